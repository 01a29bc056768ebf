"""The project in examples/ci_gate: its contract holds, and a client without keepalive fails it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inner import LEAN

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "examples" / "ci_gate"
CONTRACT = PROJECT / "contract.json"
# Each run waits for the kernel, or for the client's own timeout. Nothing else takes long.
RUN_S = 60.0

pytest.importorskip("xdist")


class Run:
    """One run of the project's tests, in the background."""

    def __init__(self, *args: str, keepalive: str = "on") -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "RESIL"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *LEAN, "-p", "no:cacheprovider", *args],
            cwd=PROJECT,
            env={**environment, "FEED_KEEPALIVE": keepalive, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Run:
        return self

    def end(self) -> tuple[int, str]:
        output, _ = self._process.communicate(timeout=RUN_S)
        return self._process.returncode, output

    def __exit__(self, *_exception: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def test_the_gate_of_a_small_project(tmp_path: Path) -> None:
    """Side by side, since each of them waits."""
    anew = tmp_path / "contract.json"
    checked_in = CONTRACT.read_bytes()
    with (
        Run() as holds,
        Run(f"--resilience-contract={anew}", "--resilience-record", "-n2") as creates,
        Run(keepalive="off") as fails,
        Run("-n2", keepalive="off") as fails_with_workers,
    ):
        status, output = holds.end()
        assert status == 0, output
        assert "passed: 3 entries as before (contract contract.json)" in output

        # A contract that is made anew is the one that is checked in, to the byte.
        status, output = creates.end()
        assert status == 0, output
        assert anew.read_bytes() == checked_in

        for run in (fails, fails_with_workers):
            status, output = run.end()
            # Every test passed: the read timeout kept what they promise.
            assert "3 passed" in output
            assert status == 1
            assert "FAILED: 1 changed; 2 entries as before (contract contract.json)" in output
            assert "mechanism  keepalive -> own_timeout\n" in output
            assert "settings   keepalive 1/1/2 -> keepalive off\n" in output
            assert "--resilience-record=update\n" in output
    assert CONTRACT.read_bytes() == checked_in
