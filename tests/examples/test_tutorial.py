"""The tutorial's steps, as a reader runs them: what should fail fails, with the words shown."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.docs_markdown import fences
from tests.projects import Run

ROOT = Path(__file__).resolve().parents[2]
STEPS = ROOT / "examples" / "tutorial"
TUTORIAL = ROOT / "docs" / "tutorial.md"
SHOWN = {
    "tutorial": [TUTORIAL, ROOT / "docs" / "howto" / "failures.md"],
    "first_test": [ROOT / "README.md"],
}


def shown(page: Path, *origin: str) -> list[str]:
    """The lines of what a page shows, by the comment in front of it."""
    (text,) = [f.text for f in fences(page.read_text()) if f.origin == origin]
    return text.splitlines()


def essence(lines: list[str]) -> list[str]:
    """Without times and ports, and with what came at the same time in any order."""
    plain = [re.sub(r"[+-]?\d+\.\d+ s\b", "… s", line) for line in lines]
    return sorted(re.sub(r"port \d+", "port …", line).strip() for line in plain)


def reported(output: str) -> list[str]:
    """The message of the failure, without pytest's margin."""
    lines = [line[1:].strip() for line in output.splitlines() if line.startswith("E ")]
    (begin,) = [i for i, line in enumerate(lines) if "ExpectationFailed:" in line]
    first = lines[begin].partition("ExpectationFailed: ")[2]
    return essence([first, *lines[begin + 1 :]])


def not_said(name: str, output: str) -> list[str]:
    """Lines of the pages' failure of this name that a run's failure does not have.

    It may have more: on a busy machine the witness sees timers that are short-lived.
    """
    said = reported(output)
    lines = [line for page in SHOWN[name] for line in essence(shown(page, "failure", name))]
    return [line for line in lines if line not in said]


def files_of(step: str) -> dict[str, str]:
    return {
        str(path.relative_to(STEPS / step)): path.read_text()
        for path in sorted((STEPS / step).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def without_keepalive() -> str:
    """README's test, without the line that README says to take away."""
    test = (ROOT / "examples" / "first_test" / "test_first.py").read_text()
    assert test.count("            KEEPALIVE.apply(client)\n") == 1
    return test.replace("            KEEPALIVE.apply(client)\n", "")


def test_each_step_does_what_its_page_says(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """Side by side, since each of them waits. Steps 3 and 4 run as parts of step 5.

    All in processes of their own: one in this process would take the others for its client's
    children, which spin as they start.
    """
    shutil.copytree(STEPS, tmp_path, dirs_exist_ok=True)
    # README's test is a guest of step 2, as an interpreter more costs a second of CPU.
    (tmp_path / "2_keepalive" / "test_first.py").write_text(without_keepalive())
    with (
        Run(tmp_path / "5_gate") as gate,
        Run(tmp_path / "2_keepalive") as keepalive,
        Run(tmp_path / "1_it_hangs") as hangs,
        Run(tmp_path / "6_gate_fails", "test_newsfeed.py") as gate_fails,
    ):
        with subtests.test("the client hangs, and the failure is the one that is shown"):
            status, output = hangs.end()
            assert (status, not_said("tutorial", output)) == (1, []), output
        with subtests.test("keepalive is the cure, and README's failure is the one that comes"):
            status, output = keepalive.end()
            assert "test_newsfeed.py ." in output, output
            assert "1 failed, 1 passed" in output
            assert (status, not_said("first_test", output)) == (1, []), output
        with subtests.test("the gate does not open when keepalive is gone"):
            status, output = gate_fails.end()
            assert status == 1, output
            *lines, command = shown(TUTORIAL, "output", "gate")
            assert "\n".join(lines) in output
            # The command is the reader's, and here the test's.
            assert command == "pytest test_newsfeed.py --resilience-record=update"
            assert "test_newsfeed.py --resilience-record=update\n" in output
        with subtests.test("the contract is what the client does, in every test"):
            status, output = gate.end()
            assert status == 0, output
            assert "3 passed" in output
            assert "passed: 6 entries as before (contract resilience.contract)\n" in output


def test_the_run_of_step_5_is_that_of_steps_3_and_4_too() -> None:
    steps = [files_of(step) for step in ("3_recovers", "4_matrix", "5_gate")]
    assert all(steps)
    assert steps[0].items() < steps[1].items() < steps[2].items()


def test_a_reader_is_shown_whatever_changes_from_step_to_step() -> None:
    named = {f.origin[1] for f in fences(TUTORIAL.read_text()) if f.origin}
    before: dict[str, str] = {}
    for step in sorted(each.name for each in STEPS.iterdir()):
        files = files_of(step)
        changed = {name for name, text in files.items() if before.get(name) != text}
        assert {f"examples/tutorial/{step}/{name}" for name in changed} <= named
        before |= files
