"""Servers and clients that the tests share."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.servers import EchoServer


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
def loopback(request: pytest.FixtureRequest) -> str:
    """Each loopback address that this machine has."""
    try:
        socket.create_server(
            (request.param, 0),
            family=socket.AF_INET6 if ":" in request.param else socket.AF_INET,
        ).close()
    except OSError as error:
        pytest.skip(f"no loopback {request.param} here: {error}")
    return str(request.param)


@pytest.fixture
def echo_server() -> Iterator[EchoServer]:
    server = EchoServer("127.0.0.1")
    yield server
    server.close()
