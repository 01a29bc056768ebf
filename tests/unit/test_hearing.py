"""What becomes of a test, by the reports that come, and by those that do not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_tcpresilience.report.document import State
from pytest_tcpresilience.report.hearing import Heard
from pytest_tcpresilience.report.taking import ATTRIBUTE
from tests.gates import record

TEST = "a.py::t"


def report(when: str, outcome: Any = "passed", **attributes: Any) -> pytest.TestReport:
    return pytest.TestReport(
        TEST,
        ("a.py", 1, "t"),
        {},
        outcome,
        None,
        when,  # type: ignore[arg-type]
        **attributes,
    )


def with_record(when: str, **changed: Any) -> pytest.TestReport:
    luggage = {"records": [record(TEST, **changed).to_json()], "deselected": [f"{TEST} [x]"]}
    return report(when, **{ATTRIBUTE: json.dumps(luggage)})


def heard(*reports: pytest.TestReport, has_begun: bool = True) -> Heard:
    found = Heard(names={TEST: TEST})
    for each in reports:
        found.take(each, has_begun=has_begun)
    return found


DEAD = report("???", "failed")  # as pytest-xdist reports a test whose worker died


@pytest.mark.parametrize(
    ("reports", "has_begun", "state"),
    [
        pytest.param([], False, State.NOT_REACHED, id="nothing"),
        pytest.param([report("setup")], True, State.NOT_REACHED, id="set-up-only"),
        pytest.param([report("setup"), report("call")], True, State.RAN, id="ran"),
        pytest.param([report("setup", "failed")], True, State.RAN, id="setup-failed"),
        pytest.param([report("setup", "skipped")], True, State.SKIPPED, id="skipped"),
        pytest.param([report("call", "skipped", wasxfail="")], True, State.RAN, id="xfailed"),
        pytest.param([report("setup"), DEAD], True, State.CRASHED, id="died-in-its-call"),
        pytest.param([DEAD], True, State.CRASHED, id="died-in-its-setup"),
        pytest.param(
            [report("setup"), report("call"), DEAD], True, State.CRASHED, id="died-in-its-teardown"
        ),
        pytest.param(
            [report("setup"), report("call"), report("teardown"), DEAD],
            True,
            State.RAN,
            id="died-when-all-was-told",
        ),
        pytest.param([DEAD], False, State.NOT_REACHED, id="died-before-it-began"),
    ],
)
def test_what_became_of_a_test(
    reports: list[pytest.TestReport], has_begun: bool, state: State
) -> None:
    assert heard(*reports, has_begun=has_begun).states == {TEST: state}


def test_a_test_that_begins_again_has_said_nothing_yet() -> None:
    again = heard(report("setup"), with_record("call"), report("teardown"), report("setup"))
    assert again.records == []
    assert again.left_out == ()
    again.take(DEAD, has_begun=True)
    assert again.states == {TEST: State.CRASHED}


def test_records_of_all_phases_are_kept() -> None:
    found = heard(with_record("setup", entry="one"), with_record("teardown", entry="two"))
    assert [each.entry for each in found.records] == ["one", "two"]
    assert found.left_out == (f"{TEST} [x]",)


def test_records_that_cannot_be_read_are_a_problem() -> None:
    found = heard(report("call", **{ATTRIBUTE: '{"records": [{}], "deselected": []}'}))
    assert found.records == []
    (problem,) = found.problems
    assert problem.startswith(f"the records of {TEST} could not be read: ")


def test_names_that_xdist_has_changed_are_changed_back() -> None:
    found = Heard(names={"a.py::t@group": TEST}, deselected={"a.py::u", TEST})
    assert found.states == {TEST: State.NOT_REACHED, "a.py::u": State.DESELECTED}
    made = report("call")
    made.nodeid = "a.py::t@group"
    found.take(made, has_begun=True)
    assert found.states[TEST] is State.RAN
