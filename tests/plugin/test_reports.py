"""Reports of a run: asked for, checked before the first test, written after the last."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_tcpresilience.report import files, reporting, writing
from pytest_tcpresilience.report.document import Document, State, read

STRICT = ("-W", "error", "-p", "no:asyncio", "-p", "no:trio", "-p", "no:hypothesispytest")

# What expectations leave behind, without the time that they take.
SOURCE = """
    import pytest

    from pytest_tcpresilience.records.record import Record
    from pytest_tcpresilience.report.taking import journal_of

    def keep(request, **fields):
        given = dict(expectation="detects_break", outcome="noticed", passed=True, fault="stall")
        journal_of(request.node).keep(Record(test="", entry="", **{**given, **fields}))

    def test_one(request):
        keep(request, client="redis", mechanism="fin", after=0.5)

    @pytest.mark.parametrize("text", ["<script>alert(1)</script>", "a|b"])
    def test_two(request, text):
        keep(request, client=text, outcome="rescued", passed=False, summary="never noticed")
        assert False, text
"""
FORMS = ("a.html", "a.md", "a.json")


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    def run(*args: str | Path, source: str = SOURCE) -> pytest.RunResult:
        pytester.makepyfile(source)
        return pytester.runpytest_inprocess(*STRICT, *args)

    return run


Run = Callable[..., pytest.RunResult]


def test_several_reports_are_written_and_named(pytester: pytest.Pytester, run: Run) -> None:
    result = run(*(f"--resilience-report={name}" for name in FORMS))
    result.assert_outcomes(passed=1, failed=2)
    assert result.ret == 1
    for name in FORMS:
        result.stdout.fnmatch_lines([f"*report: *{name}"])
    document = read(pytester.path / "a.json")
    assert len(document.records) == 3
    assert set(document.tests.values()) == {State.RAN}
    html = (pytester.path / "a.html").read_text()
    assert "1 as promised, 2 not" in html
    assert html.count("<script") == 1
    assert "&lt;script&gt;alert(1)" in html
    assert "a\\|b" in (pytester.path / "a.md").read_text()


def test_nobody_who_did_not_ask_gets_one(pytester: pytest.Pytester, run: Run) -> None:
    result = run()
    assert "tcpresilience: report" not in result.stdout.str()
    assert [path.suffix for path in pytester.path.iterdir() if path.is_file()] == [".py"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("report", "it has no suffix"),
        ("report.pdf", "its suffix is '.pdf'"),
        ("missing/report.html", "there is no directory"),
        (".html", "it has no suffix"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused_before_any_test(
    run: Run, path: str, why: str
) -> None:
    result = run(f"--resilience-report={path}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --resilience-report: *"])
    assert why in result.stderr.str()
    assert "test_one" not in result.stdout.str()
    assert not re.search(r"\d (passed|failed)", result.stdout.str())


def test_the_same_path_twice_is_refused(run: Run) -> None:
    result = run("--resilience-report=a.md", "--resilience-report=./a.md")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*is given twice*"])


def test_a_refused_run_leaves_yesterdays_report(pytester: pytest.Pytester, run: Run) -> None:
    (pytester.path / "a.html").write_text("of yesterday")
    run("--resilience-report=a.html", "--resilience-report=missing/a.md")
    assert (pytester.path / "a.html").read_text() == "of yesterday"


def test_without_jinja2_a_run_is_refused_at_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "jinja2" else real(name)
    )
    result = run("--resilience-report=a.html")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(['*pip install "pytest-tcpresilience?report?"*'])
    result = run("--resilience-report=a.json")
    assert result.ret == 1
    assert len(read(pytester.path / "a.json").records) == 3


def test_an_ini_file_names_them_from_its_own_place(pytester: pytest.Pytester, run: Run) -> None:
    (pytester.path / "reports").mkdir()
    pytester.makeini("[pytest]\nresilience_report =\n  reports/a b.md\n  reports/a.json\n")
    inner = pytester.mkdir("inner")
    os.chdir(inner)
    run("..")
    names = sorted(path.name for path in (pytester.path / "reports").iterdir())
    assert names == ["a b.md", "a.json"]


def test_the_environment_names_them(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESILIENCE_REPORT", os.pathsep.join(["a.json", "b.json"]))
    run()
    assert (pytester.path / "a.json").exists()
    assert (pytester.path / "b.json").exists()


def test_a_test_that_changes_the_directory_moves_no_report(
    pytester: pytest.Pytester, run: Run
) -> None:
    source = """
        import os
        def test_it(tmp_path):
            os.chdir(tmp_path)
    """
    run("--resilience-report=a.json", source=source)
    assert (pytester.path / "a.json").exists()


@pytest.mark.parametrize("flag", ["--collect-only", "--setup-plan", "--help"])
def test_a_run_without_tests_leaves_yesterdays_report(
    pytester: pytest.Pytester, run: Run, flag: str
) -> None:
    (pytester.path / "a.json").write_text("of yesterday")
    run("--resilience-report=a.json", flag)
    assert (pytester.path / "a.json").read_text() == "of yesterday"


def test_a_run_that_was_stopped_tells_what_it_did_not_reach(
    pytester: pytest.Pytester, run: Run
) -> None:
    run("--resilience-report=a.json", "--resilience-report=a.md", "-x")
    document = read(pytester.path / "a.json")
    assert len(document.records) == 2
    assert "and not reached" in (pytester.path / "a.md").read_text()


def test_a_run_that_records_nothing_says_so(pytester: pytest.Pytester, run: Run) -> None:
    result = run("--resilience-report=a.html", source="def test_it(): pass")
    assert result.ret == 0
    assert "<h1>Nothing was recorded</h1>" in (pytester.path / "a.html").read_text()


# --- when it cannot be written after all --------------------------------------------------


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Disks fill up in the ten minutes of a run. What is returned takes temporary files."""

    def replace(path: Path, text: str) -> None:
        if path.suffix != ".json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, text)

    real = files.replace
    monkeypatch.setattr(files, "replace", replace)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


GOOD = "def test_it(): pass"


def test_no_result_is_lost_and_the_run_has_failed(run: Run, full: Path) -> None:
    result = run("--resilience-report=a.html", source=SOURCE.replace("assert False", "assert True"))
    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["*a.html could not be written: No space left on device"])
    (kept,) = full.glob("pytest-tcpresilience-*.json")
    result.stdout.fnmatch_lines([f"*no result is lost, they are in {kept}: *"])
    assert len(read(kept).records) == 3


def test_failed_tests_keep_their_exit_status(run: Run, full: Path) -> None:
    assert run("--resilience-report=a.html").ret == pytest.ExitCode.TESTS_FAILED


def test_the_other_reports_are_written_and_one_of_them_has_the_results(
    pytester: pytest.Pytester, run: Run, full: Path
) -> None:
    result = run("--resilience-report=a.md", "--resilience-report=a.json", source=GOOD)
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    assert list(full.glob("pytest-tcpresilience-*")) == []
    result.stdout.fnmatch_lines([f"*they are in {pytester.path / 'a.json'}: *"])


def test_a_template_with_a_mistake_loses_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("pytest_tcpresilience.report.html.view_of", lambda *_: 1 / 0)
    result = run("--resilience-report=a.html", source=GOOD)
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["*could not be written: ZeroDivisionError: *"])
    assert len(list(tmp_path.glob("pytest-tcpresilience-*.json"))) == 1


def test_where_nothing_can_be_written_the_summary_says_so(
    run: Run, full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    result = run("--resilience-report=a.html", source=GOOD)
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["*could not be kept as a temporary file either: *"])


def test_whoever_compares_is_shown(pytester: pytest.Pytester, run: Run) -> None:
    """What stands in the stash before the end is in the report; what was written, after it."""
    pytester.makeconftest(
        """
        import pytest

        from pytest_tcpresilience.report.comparison import Comparison, Finding, Status
        from pytest_tcpresilience.report.reporting import COMPARISON, WRITTEN

        def pytest_sessionfinish(session):
            finding = Finding("a [gone]", Status.MISSING, why="gone away")
            session.config.stash[COMPARISON] = Comparison((finding,))

        def pytest_unconfigure(config):
            print("WRITTEN", [path.name for path in config.stash.get(WRITTEN, ())])
        """
    )
    result = run("--resilience-report=a.md")
    assert "| `a [gone]` | missing from this run | gone away |" in Path("a.md").read_text()
    result.stdout.fnmatch_lines(["WRITTEN ['a.md']"])


def test_a_report_is_made_of_a_document_alone(pytester: pytest.Pytester, run: Run) -> None:
    """The JSON of a run makes the same pages again."""
    run(*(f"--resilience-report={name}" for name in FORMS))
    document: Document = read(pytester.path / "a.json")
    for name in ("a.html", "a.md"):
        writing.write(document, pytester.path / f"again-{name}")
        again = (pytester.path / f"again-{name}").read_text()
        assert again == (pytester.path / name).read_text()


def test_the_reporter_is_not_there_without_need(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfigure(*STRICT)
    assert not config.pluginmanager.hasplugin("tcpresilience_reporter")
    config = pytester.parseconfigure(*STRICT, "--resilience-report=a.json")
    assert config.pluginmanager.hasplugin("tcpresilience_reporter")
    assert reporting.WRITTEN not in config.stash
