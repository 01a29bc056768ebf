"""A run of several workers writes each report once, and it is that of a run without them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_tcpresilience.report.document import Document, read
from tests.inner import LEAN

SUITE = """
    import os

    import pytest

    from pytest_tcpresilience.records.record import Record
    from pytest_tcpresilience.report.taking import journal_of

    @pytest.fixture(autouse=True)
    def elsewhere(tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize("client", ["a", "b", "c", "d"])
    def test_it(request, client):
        writes = request.config.pluginmanager.hasplugin("tcpresilience_reporter")
        assert writes != hasattr(request.config, "workerinput")
        record = Record(
            test="", entry="", expectation="detects_break", outcome="noticed", passed=True,
            client=client, fault="stall",
        )
        journal_of(request.node).keep(record)

    def test_that_ends_its_worker():
        if "CRASH" in os.environ:
            os._exit(3)
"""


def run(pytester: pytest.Pytester, *args: str) -> tuple[Document, str]:
    pytester.makepyfile(SUITE)
    asked = [f"--resilience-report={name}" for name in ("a.json", "a.html")]
    result = pytester.runpytest_subprocess(*LEAN, *asked, *args)
    assert result.parseoutcomes()["passed"] >= 4
    names = sorted(path.name for path in pytester.path.iterdir() if path.suffix != ".py")
    assert [name for name in names if name.startswith("a.")] == ["a.html", "a.json"]
    assert result.stdout.str().count("a.html") == 1
    return read(pytester.path / "a.json"), (pytester.path / "a.html").read_text()


def test_one_report_of_all_workers(pytester: pytest.Pytester) -> None:
    alone, page = run(pytester)
    together, page_together = run(pytester, "-n", "2")
    assert len(together.records) == 4
    assert replace(together, started="") == replace(alone, started="")
    assert page_together.replace(together.started, "") == page.replace(alone.started, "")


def test_a_worker_that_died_is_told(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRASH", "1")
    document, page = run(pytester, "-n", "2", "--max-worker-restart=1")
    assert len(document.records) == 4
    assert "What is wrong with the run itself" in page
    assert "test_that_ends_its_worker ended with its process" in page


def test_a_path_that_cannot_be_written_starts_no_worker(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess(*LEAN, "--resilience-report=missing/a.md", "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "bringing up nodes" not in result.stdout.str()
    result.stderr.fnmatch_lines(["ERROR: --resilience-report: *"])
