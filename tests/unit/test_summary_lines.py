"""What the terminal says of the gate, and the command that accepts it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_tcpresilience.report import gate, summary
from pytest_tcpresilience.report.comparison import Status
from pytest_tcpresilience.report.contract import Contract
from pytest_tcpresilience.report.document import Document, State
from pytest_tcpresilience.report.policy import DEFAULTS, SEEN, Kind, Policy
from tests.gates import contract, document, hung, record

A, B, C, D = "a.py::t", "b.py::t", "c.py::t", "d.py::t"


def said(run: Document, known: Contract, *kinds: Kind, reports: tuple[str, ...] = ()) -> list[str]:
    decision = gate.decide(run, known, DEFAULTS, kinds)
    found = summary.lines(decision, contract="c.json", reports=reports, arguments=["pytest", "-q"])
    return [line.text for line in found]


def test_what_passes_takes_one_line() -> None:
    assert said(document(record()), contract(record())) == [
        "passed: 1 entry as before (contract c.json)"
    ]


def test_everything_in_its_order() -> None:
    run = document(
        record(A, libraries={"redis": "6"}),
        hung(B, libraries={"redis": "6"}),
        record(C),
        tests={D: State.SKIPPED, "e.py::t": State.DESELECTED},
        problems=("worker gw1 ended before its work: gone",),
    )
    known = contract(*map(record, (A, B, D, "e.py::t", "gone.py::t")))
    assert said(run, known, reports=("report.html",)) == [
        "FAILED: 1 changed, 1 new, 1 missing, 1 problem; 1 entry as before, 2 deselected "
        "(contract c.json)",
        "problem: worker gw1 ended before its work: gone",
        "changed: b.py::t [detects_break]",
        "    redis 5.0.1 -> 6: noticed by keepalive before, never noticed now",
        "    outcome    noticed -> rescued",
        "    mechanism  keepalive -> none",
        "    error      TimeoutError -> none",
        "    errno      ETIMEDOUT -> none",
        "    settings   keepalive 1/1/2 -> keepalive off",
        "    after      1.98 s to 3.54 s -> none",
        "new: c.py::t [detects_break]: noticed by keepalive",
        "missing: gone.py::t [detects_break]: no such test was collected",
        "deselected: 1 not compared, its test was skipped",
        "deselected: 1 not compared, its test was deselected",
        "note: redis 5.0.1 -> 6, and 1 entry is as before",
        "report: report.html",
        "if this is how it is meant to be, accept it with:",
        # Nothing of a run with problems is pruned, so that is no advice.
        "pytest -q --resilience-record=create,update",
    ]


def test_only_so_many_are_shown_one_by_one() -> None:
    several = [record(f"t{number:02}.py::t") for number in range(summary.SHOWN + 3)]
    found = said(document(*several, record()), contract(record()))
    assert sum(line.startswith("new: t") for line in found) == summary.SHOWN
    assert "new: and 3 more" in found
    refused = [hung(f"t{number:02}.py::t", blame="test") for number in range(summary.SHOWN + 2)]
    found = said(document(*refused, record()), contract(record()), *SEEN)
    assert sum(line.startswith("not recorded: t") for line in found) == summary.SHOWN
    assert "not recorded: and 2 more" in found
    found = said(document(*several, record()), contract(record()))
    assert found[0].startswith("FAILED: 13 new; 1 entry as before")


def test_what_is_only_told_and_what_is_ignored() -> None:
    run, known = document(record(A), record(B)), contract(record(A), record(C))
    policies = {**DEFAULTS, Status.NEW: Policy.WARN, Status.MISSING: Policy.IGNORE}
    decision = gate.decide(run, known, policies)
    found = summary.lines(decision, contract="c.json")
    assert [(line.text, line.style) for line in found] == [
        ("passed: 1 entry as before, 1 new, 1 missing (contract c.json)", "good"),
        ("new: b.py::t [detects_break]: noticed by keepalive", "warn"),
        ("if this is how it is meant to be, accept it with:", ""),
        ("pytest --resilience-record=create", ""),
    ]


def test_what_was_recorded() -> None:
    run, known = document(record(A), hung(B), record(C)), contract(*map(record, (A, B, D)))
    assert said(run, known, *Kind) == [
        "recorded: 1 created, 1 updated, 1 pruned, 1 entry as before (contract c.json)"
    ]
    assert said(run, known, *SEEN)[0] == (
        "FAILED: 1 missing; 1 created, 1 updated, 1 entry as before (contract c.json)"
    )
    bumped = document(record(A, libraries={"redis": "6"}))
    assert said(bumped, contract(record(A)), *SEEN)[0] == (
        "recorded: 1 entry as before, 1 with other versions of packages (contract c.json)"
    )


def test_what_was_refused_is_no_advice() -> None:
    run = document(record(A), hung(B, blame="harness", summary="the engine died"))
    assert said(run, contract(record(A)), *SEEN) == [
        "FAILED: 1 new, 1 not recorded; 1 entry as before (contract c.json)",
        "not recorded: b.py::t [detects_break]: the harness was at fault, not the client: "
        "the engine died",
        "new: b.py::t [detects_break]: never noticed",
    ]


def test_nothing_compared() -> None:
    assert said(document(), Contract()) == [
        "FAILED: nothing was compared; 0 entries as before (contract c.json)"
    ]


def test_a_contract_that_was_not_written_is_not_said_to_be() -> None:
    decision = gate.decide(document(record()), Contract(), DEFAULTS, SEEN)
    failed = gate.with_problem(decision, "the disk is full")
    found = [line.text for line in summary.lines(failed, contract="c.json")]
    assert found[:2] == [
        "FAILED: the disk is full; 0 entries as before, 1 new (contract c.json)",
        "problem: the disk is full",
    ]
    assert failed.acceptance == replace(decision.acceptance, accepted={})


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["pytest"], "pytest --resilience-record=update"),
        (["pytest", "-k", "a and b"], "pytest -k 'a and b' --resilience-record=update"),
        (["pytest", "t.py::t[a b]"], "pytest 't.py::t[a b]' --resilience-record=update"),
        (["pytest", "--resilience-record=create", "-q"], "pytest -q --resilience-record=update"),
        (
            ["pytest", "--resilience-record", "create,prune", "-q"],
            "pytest -q --resilience-record=update",
        ),
        (["pytest", "--resilience-record", "-q"], "pytest -q --resilience-record=update"),
        (["pytest", "--resilience-record"], "pytest --resilience-record=update"),
        (["pytest", "--", "t.py"], "pytest --resilience-record=update -- t.py"),
        (
            ["pytest", "--", "--resilience-record=x"],
            "pytest --resilience-record=update -- --resilience-record=x",
        ),
    ],
)
def test_the_command_is_the_same_one_and_records(arguments: list[str], command: str) -> None:
    assert summary.command(arguments, [Kind.UPDATE]) == command
