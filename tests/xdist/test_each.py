"""``--dist=each``: several workers run the same tests, and may find different things."""

from __future__ import annotations

import platform

import pytest

# Loaded here, and so the same for each run in this process.
from pytest_tcpresilience.report import hooks  # noqa: F401
from tests.inner import Inner

pytest.importorskip("xdist")

SUITE = """
    import os
    import pytest
    from pytest_tcpresilience.records.record import Record
    from pytest_tcpresilience.report.taking import journal_of

    SECOND = os.environ.get("PYTEST_XDIST_WORKER") == "gw1"

    def keep(request, mechanism):
        journal_of(request.node).keep(
            Record(test="", entry="", expectation="detects_break", passed=True,
                   outcome="noticed", mechanism=mechanism, after=3.0))

    def test_same(request):
        keep(request, "keepalive")

    def test_other(request):
        keep(request, "reset" if SECOND else "keepalive")

    def test_silent(request):
        if not SECOND:
            keep(request, "keepalive")

    def test_skipped(request):
        if SECOND:
            pytest.skip("not here")
        keep(request, "keepalive")
"""
CONTRACT = "--resilience-contract=contract.json"


def test_what_workers_disagree_on_is_a_problem_that_names_them(inner: Inner) -> None:
    recorded = inner.run(SUITE, "-p", "no:xdist", CONTRACT, "--resilience-record")
    assert recorded.ret == 0
    result = inner.run_subprocess(SUITE, "-n2", "--dist=each", CONTRACT)
    assert result.ret == 1
    python = f"(Python {platform.python_version()})"
    both = f"gw0 {python} and gw1 {python} contradict each other on {recorded_name(inner)}::"
    text = result.stdout.str()
    assert f"{both}test_other [detects_break]: mechanism keepalive and reset" in text
    assert (
        f"{both}test_silent [detects_break]: its test ran in both, and gw1 {python} has no such "
        "record"
    ) in text
    assert "test_same" not in text.partition("TCP resilience")[2]
    assert "test_skipped" not in text.partition("TCP resilience")[2]


def recorded_name(inner: Inner) -> str:
    (path,) = inner.pytester.path.glob("test_*.py")
    return path.name
