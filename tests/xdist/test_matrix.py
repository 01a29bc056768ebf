"""With pytest-xdist a matrix is one test of one worker, and its records reach the controller."""

from __future__ import annotations

import pytest

from tests.inner import Inner
from tests.plugin.matrices import CLIENTS, kept, witness

pytest.importorskip("xdist")

SUITE = (
    CLIENTS
    + """
    DEAF = Client("deaf", connect, read=ask, wait=lambda sock: time.sleep(0.05))

    @pytest.mark.resilience(slack=0.1)
    @pytest.mark.parametrize("number", [1, 2])
    def test_one(tcp_matrix, recording_server, number):
        tcp_matrix(
            recording_server.address,
            clients=[SOCKET, DEAF, ASYNCIO, TRIO],
            faults=["reset", "hang_up"],
            within=0.4,
            activity="wait",
        )
"""
)


def test_two_workers(inner: Inner, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = witness(inner)
    monkeypatch.setenv("RESILIENCE_CELLS", "not trio and reset")
    result = inner.run_subprocess(SUITE, "-n2")
    text = result.stdout.str()
    for number in (1, 2):
        assert f"SUBFAILED[deaf × reset] test_two_workers.py::test_one[{number}]" in text
    assert "ExpectationFailed: the client did not notice the reset" in text
    # Workers note theirs, too; the controller's have gone through both ends.
    found = kept(notes)
    entries = sorted(record["entry"] for each in found for record in each.records)
    chosen = ["asyncio × reset", "deaf × reset", "socket × reset"]
    assert entries == sorted(chosen * 2 * 2)
    assert sum(len(each.deselected) for each in found) == 5 * 2 * 2
