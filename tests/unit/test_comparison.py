"""What differs between a contract and a run, and where an entry went."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_tcpresilience.records.record import Failure, Promised
from pytest_tcpresilience.report.comparison import (
    COMPARED,
    Finding,
    Status,
    Weight,
    behaviour,
    compare,
    covers,
    differences,
)
from pytest_tcpresilience.report.contract import Contract, Entry
from pytest_tcpresilience.report.document import Document, State
from tests.gates import OFF, ON, TEST, TIMED_OUT, contract, document, hung, record

KEY = record().key


def only(run: Document, known: Contract) -> Finding:
    (finding,) = compare(run, known).findings
    return finding


# --- one entry ----------------------------------------------------------------------------


def test_the_same_is_the_same_whatever_was_measured() -> None:
    for after in (2.7, 3.0, 3.54, 3.8):
        assert differences(Entry.of(record()), record(after=after)) == ()


@pytest.mark.parametrize(
    ("changed", "what", "before", "now"),
    [
        ({"outcome": "too_late"}, "outcome", "noticed", "too_late"),
        ({"mechanism": "user_timeout"}, "mechanism", "keepalive", "user_timeout"),
        ({"error": replace(TIMED_OUT, type="OSError")}, "error", "TimeoutError", "OSError"),
        ({"error": replace(TIMED_OUT, errno="EHOSTUNREACH")}, "errno", "ETIMEDOUT", "EHOSTUNREACH"),
        ({"expectation": "recovers"}, "expectation", "detects_break", "recovers"),
        ({"client": "other"}, "client", "pool", "other"),
        ({"fault": "stall"}, "fault", "silent_drop", "stall"),
        ({"settings": OFF}, "settings", "keepalive 1/1/2", "keepalive off"),
        (
            {"promised": Promised(0.0, 9.0, 9.0)},
            "promised",
            "3 s, at most 3.54 s",
            "9 s, at most 9 s",
        ),
        ({"attempts": 2}, "attempts", "none", "several"),
        ({"after": 9.0}, "after", "1.98 s to 3.54 s", "9.00 s (4 s to 15 s)"),
        ({"recovery": 0.25}, "recovery", "none", "0.25 s (less than 1 s)"),
    ],
)
def test_each_thing_that_is_compared(
    changed: dict[str, Any], what: str, before: str, now: str
) -> None:
    (found,) = differences(Entry.of(record()), record(**changed))
    assert (found.what, found.before, found.now) == (what, before, now)
    assert str(found) == f"{what}: {before} before, {now} now"


def test_settings_that_could_not_be_read_differ_from_nothing() -> None:
    read, unread = record(after=3.0), record(settings=None)
    assert differences(Entry.of(read), unread) == differences(Entry.of(unread), read) == ()


def test_nothing_is_compared_that_was_not_tried_above() -> None:
    assert [each.what for each in COMPARED] == [
        "outcome",
        "mechanism",
        "error",
        "errno",
        "expectation",
        "client",
        "fault",
        "settings",
        "promised",
        "attempts",
    ]


def test_behaviour_is_told_before_the_set_up_and_that_before_times() -> None:
    now = record(
        outcome="too_late",
        mechanism="own_timeout",
        after=9.0,
        settings=replace(ON, idle=2),
        error=Failure("socket.timeout", "timed out"),
        attempts=1,
    )
    found = differences(Entry.of(record()), now)
    assert [each.what for each in found] == [
        "outcome",
        "mechanism",
        "error",
        "errno",
        "settings",
        "attempts",
        "after",
    ]
    assert [each.weight for each in found] == sorted(each.weight for each in found)
    assert found[0].weight is Weight.BEHAVIOUR


# --- packages -----------------------------------------------------------------------------


def test_a_package_that_changed_with_the_behaviour_is_told_as_that() -> None:
    run = document(hung(libraries={"redis": "5.1.0"}))
    finding = only(run, contract(record()))
    assert finding.status is Status.CHANGED
    assert finding.upgrade == "redis 5.0.1 -> 5.1.0: noticed by keepalive before, never noticed now"


def test_a_package_that_changed_alone_is_a_note() -> None:
    run = document(record(libraries={"redis": "5.1.0"}), record("a::b", libraries={"new": "1"}))
    comparison = compare(run, contract(record(), record("a::b", libraries={})))
    assert [each.status for each in comparison.findings] == [Status.SAME, Status.SAME]
    assert comparison.notes == (
        "new none -> 1, and 1 entry is as before",
        "redis 5.0.1 -> 5.1.0, and 1 entry is as before",
    )
    assert all(each.upgrade == "" for each in comparison.findings)


def test_a_change_of_times_alone_is_no_packages_doing() -> None:
    finding = only(document(record(after=9.0, libraries={"redis": "6"})), contract(record()))
    assert finding.status is Status.CHANGED
    assert finding.upgrade == ""


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "noticed by keepalive"),
        ({"outcome": "rescued", "mechanism": ""}, "never noticed"),
        ({"outcome": "still_waiting", "expectation": "recovers"}, "still waiting"),
        ({"outcome": "too_late"}, "too late by keepalive"),
        ({"outcome": "recovered", "mechanism": ""}, "recovered"),
    ],
)
def test_behaviour_in_words(changed: dict[str, Any], words: str) -> None:
    assert behaviour(Entry.of(record(**changed))) == words


# --- what is not there --------------------------------------------------------------------


def test_a_new_entry() -> None:
    finding = only(document(record()), Contract())
    assert (finding.status, finding.entry, finding.record) == (Status.NEW, None, record())


@pytest.mark.parametrize(
    ("run", "status", "why", "gone"),
    [
        ({"tests": {TEST: State.RAN}}, "missing", "its test ran and made no such record", True),
        ({"tests": {TEST: State.CRASHED}}, "missing", "its process ended in the middle", False),
        ({"tests": {TEST: State.NOT_REACHED}}, "missing", "the run ended before it", False),
        ({"tests": {TEST: State.SKIPPED}}, "deselected", "its test was skipped", False),
        ({"tests": {TEST: State.DESELECTED}}, "deselected", "its test was deselected", False),
        (
            {"tests": {TEST: State.RAN}, "deselected": (KEY,)},
            "deselected",
            "it was left out by choice",
            False,
        ),
        ({}, "missing", "no such test was collected", True),
        ({"asked": ("tests",)}, "missing", "no such test was collected", True),
        ({"asked": ("other",)}, "deselected", "the run was not asked for it", False),
        ({"asked": ()}, "deselected", "the run was not asked for it", False),
    ],
)
def test_where_an_entry_went(run: dict[str, Any], status: str, why: str, gone: bool) -> None:
    finding = only(document(**run), contract(record()))
    assert (finding.status, finding.why, finding.gone) == (status, why, gone)


def test_every_state_of_a_test_has_its_answer() -> None:
    for state in State:
        assert only(document(tests={TEST: state}), contract(record())).why


@pytest.mark.parametrize(
    ("asked", "covered"),
    [
        ("", True),
        (".", True),
        ("tests", True),
        ("tests/", True),
        ("tests/test_pool.py", True),
        ("tests/test_pool.py::TestIt", True),
        ("tests/test_pool.py::TestIt::test_x", True),
        ("tests/test_pool.py::TestIt::test_x[1]", True),
        ("test", False),
        ("tests/test_poo", False),
        ("tests/test_pool.py::TestIt::test", False),
        ("tests/test_pool.py::TestIt::test_x[2]", False),
        ("other", False),
    ],
)
def test_what_a_run_was_asked_for(asked: str, covered: bool) -> None:
    assert covers((asked,), "tests/test_pool.py::TestIt::test_x[1]") is covered


# --- all of it ----------------------------------------------------------------------------


def test_all_findings_in_the_order_of_their_keys() -> None:
    run = document(record("a::1"), hung("b::1"), record("c::1"), tests={"d::1": State.SKIPPED})
    known = contract(record("a::1"), record("b::1"), record("d::1"), record("e::1"))
    comparison = compare(run, known)
    assert [str(each.status) for each in comparison.findings] == [
        "same",
        "changed",
        "new",
        "deselected",
        "missing",
    ]
    assert comparison.compared == 2
    assert [each.key for each in comparison.of(Status.NEW)] == [record("c::1").key]


def test_two_records_of_one_name_are_a_problem_that_names_both() -> None:
    run = document(record(client="first"), hung(client="second", fault="stall"))
    comparison = compare(run, contract(record(client="first")))
    (problem,) = comparison.problems
    assert f"2 records have the same name, {KEY}" in problem
    assert "first and silent_drop, noticed by keepalive" in problem
    assert "second and stall, never noticed" in problem


def test_a_record_that_is_incomplete_is_a_problem() -> None:
    run = document(record(problem="cause cannot be written as JSON"), problems=("gw0 died",))
    assert compare(run, Contract()).problems == (
        "gw0 died",
        f"{KEY}: cause cannot be written as JSON",
    )
