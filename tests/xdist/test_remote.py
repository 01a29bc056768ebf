"""A worker that is reached by a socket, works in another directory, and shares nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Loaded here, and so the same for each run in this process.
from pytest_tcpresilience.report import hooks  # noqa: F401
from tests.inner import Inner

pytest.importorskip("xdist")

SUITE = """
    from pytest_tcpresilience import detects_break

    def test_reset(client, link):
        with detects_break(link, within=5, raises=ConnectionResetError):
            link.reset()
            client.recv(1)
"""
CONTRACT = "--resilience-contract=contract.json"


@pytest.fixture
def worker_address(tmp_path: Path) -> Iterator[str]:
    """Of a server of execnet's, which becomes the worker that asks it to."""
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "execnet.script.socketserver", "127.0.0.1:0"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        found = re.search(r"\('127\.0\.0\.1', (\d+)\)", server.stdout.readline())
        assert found is not None
        yield f"127.0.0.1:{found[1]}"
    finally:
        server.kill()
        server.communicate()


def test_a_worker_elsewhere_has_its_own_engine_and_the_same_contract(
    inner: Inner, worker_address: str, tmp_path: Path
) -> None:
    here = inner.pytester.path
    assert inner.run(SUITE, "-p", "no:xdist", CONTRACT, "--resilience-record").ret == 0
    before = set(inner.engines)
    elsewhere = tmp_path / "checkout"
    shutil.copytree(here, elsewhere, ignore=shutil.ignore_patterns("__pycache__", "*.json"))
    remote = f"socket={worker_address}//chdir={elsewhere}"
    result = inner.run_subprocess(SUITE, "--dist=each", "--tx=popen", f"--tx={remote}", CONTRACT)
    assert result.ret == 0
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["passed: 1 entry as before (contract contract.json)"])
    assert len(inner.engines - before) == 2
    inner.assert_nothing_left(within=5.0)
