"""Documents of several runs as one."""

from __future__ import annotations

import pytest

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.report.comparison import compare
from pytest_tcpresilience.report.document import Document, State
from pytest_tcpresilience.report.merging import merge
from tests.gates import TEST, contract, document, hung, record

A, B = "a.py::t", "b.py::t"


def test_one_is_itself() -> None:
    run = document(record())
    assert merge({"one.json": run}) is run


def test_none_is_an_error() -> None:
    with pytest.raises(UsageError, match="there is nothing to merge"):
        merge({})


def test_shards_are_one_run() -> None:
    first = document(
        record(B),
        tests={A: State.DESELECTED, B: State.RAN},
        asked=("b.py",),
        project="shop",
        started="2024-02-02T00:00:00+00:00",
        versions={"python": "3.11.1", "kernel": "Linux 6.1"},
        problems=("gw0 died",),
    )
    second = document(
        record(A),
        tests={A: State.RAN, B: State.DESELECTED},
        started="2024-01-01T00:00:00+00:00",
        versions={"python": "3.11.1", "kernel": "Linux 6.18"},
    )
    whole = merge({"1.json": first, "2.json": second})
    assert whole == Document(
        records=(record(A), record(B)),
        project="shop",
        tests={A: State.RAN, B: State.RAN},
        asked=("", "b.py"),
        problems=("1.json: gw0 died",),
        started="2024-01-01T00:00:00+00:00",
        versions={"python": "3.11.1"},
    )
    assert merge({"2.json": second, "1.json": first}) == whole
    assert compare(whole, contract(record(A), record(B))).compared == 2


@pytest.mark.parametrize("better", State)
@pytest.mark.parametrize("worse", State)
def test_the_state_that_says_more_counts(better: State, worse: State) -> None:
    order = list(State)
    expected = order[min(order.index(better), order.index(worse))]
    whole = merge({"1": document(tests={TEST: better}), "2": document(tests={TEST: worse})})
    assert whole.tests == {TEST: expected}


def test_what_one_shard_left_out_and_another_has() -> None:
    left_out = document(deselected=(record(A).key, record(B).key))
    assert merge({"1": left_out, "2": document(record(A))}).deselected == (record(B).key,)


def test_a_test_that_ran_in_two_shards_and_did_the_same() -> None:
    whole = merge({"1": document(record()), "2": document(record(after=3.2))})
    assert whole.records == (record(),)
    assert whole.problems == ()


def test_a_contradiction_names_the_files_and_loses_nothing() -> None:
    documents = {"1": document(record(A)), "2.json": document(record()), "3.json": document(hung())}
    whole = merge(documents)
    (problem,) = whole.problems
    assert problem.startswith(
        f"2.json and 3.json contradict each other on {record().key}: "
        "outcome noticed and rescued; mechanism keepalive and none"
    )
    assert {each.outcome for each in whole.records if each.test == TEST} == {"noticed", "rescued"}
    assert len(compare(whole, contract(record())).problems) == 2


def test_two_records_of_one_name_in_one_run_stay_that() -> None:
    twice = document(record(), record(client="other"))
    whole = merge({"1": twice, "2": document(record(A))})
    assert len(whole.records) == 3
    assert whole.problems == ()


def test_different_projects() -> None:
    with pytest.raises(UsageError, match="of different projects") as refusal:
        merge({"1": document(project="shop"), "2": document(), "3": document(project="bank")})
    assert refusal.value.happened == "1 is of 'shop', 3 is of 'bank'"


def test_a_record_that_only_one_of_two_runs_of_a_test_has() -> None:
    silent = document(tests={TEST: State.RAN})
    (problem,) = merge({"1": document(record()), "2": silent}).problems
    assert problem == (
        f"1 and 2 contradict each other on {record().key}: its test ran in both, and 2 has no "
        "such record"
    )


@pytest.mark.parametrize("state", [state for state in State if state is not State.RAN])
def test_a_test_that_did_not_run_contradicts_nobody(state: State) -> None:
    other = document(tests={TEST: state})
    assert merge({"1": document(record()), "2": other}).problems == ()
    left_out = document(tests={TEST: State.RAN}, deselected=(record().key,))
    assert merge({"1": document(record()), "2": left_out}).problems == ()
