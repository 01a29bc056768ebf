"""The project in examples/ci_gate: its contract holds, and a client without keepalive fails it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.projects import Run

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "examples" / "ci_gate"
CONTRACT = PROJECT / "contract.json"

pytest.importorskip("xdist")


def test_the_gate_of_a_small_project(tmp_path: Path) -> None:
    """Side by side, since each of them waits.

    That a gate fails with workers as without is held by ``tests/xdist/test_contract_gate.py``.
    """
    anew = tmp_path / "contract.json"
    checked_in = CONTRACT.read_bytes()
    recording = (f"--resilience-contract={anew}", "--resilience-record", "-n2")
    with (
        Run(PROJECT, FEED_KEEPALIVE="off") as fails,
        Run(PROJECT, *recording, FEED_KEEPALIVE="on") as creates,
        Run(PROJECT, FEED_KEEPALIVE="on") as holds,
    ):
        status, output = holds.end()
        assert status == 0, output
        assert "passed: 3 entries as before (contract contract.json)" in output

        # A contract that is made anew is the one that is checked in, to the byte.
        status, output = creates.end()
        assert status == 0, output
        assert anew.read_bytes() == checked_in

        status, output = fails.end()
        # Every test passed: the read timeout kept what they promise.
        assert "3 passed" in output
        assert status == 1
        assert "FAILED: 1 changed; 2 entries as before (contract contract.json)" in output
        assert "mechanism  keepalive -> own_timeout\n" in output
        assert "settings   keepalive 1/1/2 -> keepalive off\n" in output
        assert "--resilience-record=update\n" in output
    assert CONTRACT.read_bytes() == checked_in
