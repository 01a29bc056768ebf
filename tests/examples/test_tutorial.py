"""The tutorial's steps, as a reader runs them: what should fail fails, with the words shown."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.docs_markdown import fences

ROOT = Path(__file__).resolve().parents[2]
STEPS = ROOT / "examples" / "tutorial"
SHOWN = {
    "tutorial": [ROOT / "docs" / "tutorial.md", ROOT / "docs" / "howto" / "failures.md"],
    "first_test": [ROOT / "README.md"],
}


def failure(name: str, page: Path) -> list[str]:
    """What a page shows of a failure, as :func:`essence` has it."""
    (text,) = [f.text for f in fences(page.read_text()) if f.origin == ("failure", name)]
    return essence(text.splitlines())


def essence(lines: list[str]) -> list[str]:
    """Without times and ports, and with what came at the same time in any order."""
    plain = [re.sub(r"[+-]?\d+\.\d+ s\b", "… s", line) for line in lines]
    return sorted(re.sub(r"port \d+", "port …", line).strip() for line in plain)


def reported(result: pytest.RunResult) -> list[str]:
    """The message of the failure, without pytest's margin."""
    lines = [line[1:].strip() for line in result.outlines if line.startswith("E ")]
    (begin,) = [i for i, line in enumerate(lines) if "ExpectationFailed:" in line]
    first = lines[begin].partition("ExpectationFailed: ")[2]
    return essence([first, *lines[begin + 1 :]])


def not_said(shown: list[str], result: pytest.RunResult) -> list[str]:
    """Lines of a page that the failure does not have.

    It may have more: on a busy machine the witness sees timers that are short-lived.
    """
    said = reported(result)
    return [line for line in shown if line not in said]


def run(pytester: pytest.Pytester, step: str, *arguments: str) -> pytest.RunResult:
    shutil.copytree(STEPS / step, pytester.path, dirs_exist_ok=True)
    return pytester.runpytest_inprocess("-p", "no:asyncio", *arguments)


@pytest.fixture(autouse=True)
def no_cache(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", True)


def test_the_client_hangs_and_the_failure_is_the_one_that_is_shown(
    pytester: pytest.Pytester,
) -> None:
    result = run(pytester, "1_it_hangs")
    result.assert_outcomes(failed=1)
    for page in SHOWN["tutorial"]:
        assert not_said(failure("tutorial", page), result) == []


def test_keepalive_is_the_cure(pytester: pytest.Pytester) -> None:
    run(pytester, "2_keepalive").assert_outcomes(passed=1)


def test_a_reader_is_shown_whatever_changes_from_step_to_step() -> None:
    shown = {f.origin[1] for f in fences(SHOWN["tutorial"][0].read_text()) if f.origin}
    before: dict[str, str] = {}
    for step in sorted(STEPS.iterdir()):
        files = {
            str(path.relative_to(step)): path.read_text()
            for path in sorted(step.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }
        changed = {name for name, text in files.items() if before.get(name) != text}
        assert {f"examples/tutorial/{step.name}/{name}" for name in changed} <= shown
        before |= files


def test_the_client_comes_back(pytester: pytest.Pytester) -> None:
    run(pytester, "3_recovers").assert_outcomes(passed=2)


def test_the_failure_in_the_readme(pytester: pytest.Pytester) -> None:
    """Its test, without the line that README says to take away."""
    test = (ROOT / "examples" / "first_test" / "test_first.py").read_text()
    assert test.count("            KEEPALIVE.apply(client)\n") == 1
    pytester.makepyfile(test.replace("            KEEPALIVE.apply(client)\n", ""))
    result = pytester.runpytest_inprocess("-p", "no:asyncio")
    result.assert_outcomes(failed=1)
    for page in SHOWN["first_test"]:
        assert not_said(failure("first_test", page), result) == []


def test_the_contract_is_what_the_clients_do(pytester: pytest.Pytester) -> None:
    """The recorded one holds for a run, and every test of the step has a part in it."""
    result = run(pytester, "4_gate")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*2 entries as before*"])


def test_the_gate_does_not_open_when_keepalive_is_gone(pytester: pytest.Pytester) -> None:
    result = run(pytester, "5_gate_fails", "test_newsfeed.py")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (shown,) = [
        fence.text.splitlines()
        for fence in fences(SHOWN["tutorial"][0].read_text())
        if fence.origin == ("output", "gate")
    ]
    result.stdout.fnmatch_lines([line.replace("[", "[[]") for line in shown[:-1]])
    # The command is the reader's, and here the test's.
    assert shown[-1] == "pytest test_newsfeed.py --resilience-record=update"
    result.stdout.fnmatch_lines(["*--resilience-record=update"])
