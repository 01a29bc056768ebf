"""The real server that the tests of this directory talk to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_tcpresilience import Link, LinkFactory

SERVER = Path(__file__).with_name("server.py")


@pytest.fixture
def http_server() -> Iterator[str]:
    """The URL of a real HTTP server in a process of its own."""
    with subprocess.Popen(
        [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        # Leaving the block closes the server's standard input, which ends it.


@pytest.fixture
def link(tcp_link: LinkFactory, http_server: str) -> Link:
    """The clients connect to this link, and it leads to the server."""
    return tcp_link(http_server)
