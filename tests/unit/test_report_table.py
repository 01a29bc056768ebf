"""Which record stands in which cell, and what a cell says."""

from __future__ import annotations

import re

import pytest

from pytest_tcpresilience.evidence import continuity, recovery, verdict
from pytest_tcpresilience.records.record import Promised, Record
from pytest_tcpresilience.report import table
from pytest_tcpresilience.report.statuses import (
    MECHANISMS,
    STATUSES,
    Status,
    Tone,
    detail_of,
    status_of,
)
from pytest_tcpresilience.report.table import WITHOUT_FAULT, build
from tests.reports import record

PROMISED = Promised(earliest=2.98, nominal=3.0, latest=3.535)
GOOD_OUTCOMES = {"noticed", "recovered", "fine"}
OUTCOMES = [
    str(each)
    for enum in (verdict.Outcome, recovery.Outcome, continuity.Outcome)
    for each in enum
    if str(each) not in GOOD_OUTCOMES
]


# --- statuses -----------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", sorted({*OUTCOMES, "fails"}))
def test_every_outcome_has_words_of_its_own(outcome: str) -> None:
    assert outcome in STATUSES
    found = status_of(record(outcome=outcome, passed=False, blame="client"))
    assert found.tone is Tone.BAD
    assert found.words
    assert len(found.sign) == 1


@pytest.mark.parametrize("mechanism", [str(each) for each in verdict.Mechanism])
def test_every_mechanism_follows_by(mechanism: str) -> None:
    assert mechanism in MECHANISMS
    assert "_" not in MECHANISMS[mechanism]


@pytest.mark.parametrize(
    ("fields", "words", "tone"),
    [
        ({}, "as promised", Tone.GOOD),
        ({"outcome": "unaware"}, "not noticed, as expected", Tone.GOOD),
        ({"outcome": "unaware", "passed": False}, "not noticed", Tone.BAD),
        ({"outcome": "too_late", "passed": False}, "too late", Tone.BAD),
        (
            {"outcome": "never_hit", "passed": False, "blame": "test"},
            "the test's mistake",
            Tone.UNSURE,
        ),
        (
            {"outcome": "harness_failed", "passed": False, "blame": "harness"},
            "the harness failed",
            Tone.UNSURE,
        ),
        ({"outcome": "of_tomorrow", "passed": False}, "of tomorrow", Tone.BAD),
    ],
)
def test_a_status(fields: dict[str, object], words: str, tone: Tone) -> None:
    found = status_of(record(**fields))
    assert (found.words, found.tone) == (words, tone)


def test_statuses_of_one_tone_differ_from_others_by_their_signs() -> None:
    """Without colours a reader must still tell good from bad."""
    found = {status_of(record()), *STATUSES.values()}
    found |= {status_of(record(passed=False, blame=blame)) for blame in ("test", "harness")}
    signs: dict[str, set[Tone]] = {}
    for status in found:
        signs.setdefault(status.sign, set()).add(status.tone)
    assert {sign: tones for sign, tones in signs.items() if len(tones) > 1} == {}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"mechanism": "keepalive", "after": 3.01}, "by keepalive, 3.01 s of 3.54 s promised"),
        ({"mechanism": "reset", "after": 0.0024}, "by RST, 2 ms of 3.54 s promised"),
        ({"mechanism": "of_tomorrow", "after": 1.0}, "by of tomorrow, 1.00 s of 3.54 s promised"),
        ({"outcome": "rescued", "passed": False}, "3.54 s promised"),
        ({"outcome": "unaware", "passed": True}, "not within 3.54 s"),
        ({"outcome": "survived"}, ""),
        (
            {"outcome": "recovered", "recovery": 0.42, "after": 9.0},
            "recovered in 0.42 s of 3.54 s promised",
        ),
        ({"outcome": "before_fault", "passed": False, "after": -0.25}, "0.25 s before the fault"),
        (
            {"mechanism": "keepalive", "after": 3.0, "nominal": 7875.0},
            "by keepalive, 3.00 s of 3.54 s promised, 2 h 11 min 15 s in production",
        ),
        ({"mechanism": "reset", "after": 1.0, "promised": None}, "by RST, 1.00 s"),
    ],
)
def test_a_detail(fields: dict[str, object], expected: str) -> None:
    assert detail_of(record(**{"promised": PROMISED, **fields})) == expected


# --- the table ----------------------------------------------------------------------------


def numbers(records: list[Record]) -> list[list[list[int]]]:
    return [[[e.number for e in cell] for cell in row.cells] for row in build(records).rows]


def test_no_records_make_no_table() -> None:
    assert build([]) == table.Table((), ())


def test_one_cell() -> None:
    built = build([record(client="redis", fault="stall")])
    assert built.columns == ("stall",)
    assert [row.client for row in built.rows] == ["redis"]
    assert built.rows[0].cells[0][0].note == ""


def test_forty_eight_cells_in_whatever_order_they_came() -> None:
    cells = [(f"client {c}", f"fault {f}") for c in range(8) for f in range(6)]
    records = [record(client=client, fault=fault) for client, fault in reversed(cells)]
    built = build(records)
    assert (len(built.rows), len(built.columns)) == (8, 6)
    assert built.rows[0].client == "client 0"
    assert [entry.number for row in built.rows for cell in row.cells for entry in cell] == [
        *range(48, 0, -1)
    ]


def test_what_was_not_tried_is_empty() -> None:
    records = [record(client="a", fault="stall"), record(client="b", fault="reset")]
    assert build(records).columns == ("reset", "stall")
    assert numbers(records) == [[[], [1]], [[2], []]]


def test_several_records_in_one_cell_are_all_there() -> None:
    records = [record(client="a", fault="stall", passed=passed) for passed in (True, False)]
    assert numbers(records) == [[[1, 2]]]


def test_a_record_outside_of_a_matrix_is_called_by_its_test() -> None:
    built = build([record(test="tests/test_a.py::TestB::test_c[x]", client="", effect="stall")])
    assert built.rows[0].client == "test_c[x]"
    assert built.columns == ("stall",)


def test_what_has_no_fault_comes_last() -> None:
    records = [record(client="a", expectation="stays_quiet"), record(client="a", fault="z")]
    built = build(records)
    assert built.columns == ("z", WITHOUT_FAULT)
    assert [cell[0].note for cell in built.rows[0].cells] == ["detects_break", "stays_quiet"]


def test_engines_are_told_when_they_differ() -> None:
    records = [record(client="a", fault="z", engine=name) for name in ("embedded", "virtual", "")]
    (cell,) = build(records).rows[0].cells
    assert [entry.note for entry in cell] == ["embedded engine", "virtual engine", ""]


def test_names_differ_by_case_only_and_stay_apart() -> None:
    records = [record(client=name, fault="z") for name in ("b", "B", "a")]
    assert [row.client for row in build(records).rows] == ["a", "B", "b"]


def test_signs_are_no_words() -> None:
    every = [status_of(record()), *STATUSES.values()]
    assert not any(re.search(r"\w", status.sign) for status in every if isinstance(status, Status))


def test_a_cell_that_never_notices_is_asked_for_the_same_as_its_neighbours() -> None:
    records = [record(fault="reset"), record(fault="stall", expectation="stays_unaware")]
    (row,) = table.build(records).rows
    assert [entry.note for cell in row.cells for entry in cell] == ["", ""]
