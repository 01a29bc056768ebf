"""What fails a run, what is accepted instead, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.report import contract as contracts
from pytest_tcpresilience.report import gate, options, policy
from pytest_tcpresilience.report.choice import choose_gate, load
from pytest_tcpresilience.report.comparison import Status
from pytest_tcpresilience.report.contract import Contract
from pytest_tcpresilience.report.document import Document, State
from pytest_tcpresilience.report.gate import Decision
from pytest_tcpresilience.report.policy import DEFAULTS, SEEN, Kind, Policy
from tests.gates import TEST, contract, document, hung, record

ALL = frozenset(Kind)
A, B, C, D = "a.py::t", "b.py::t", "c.py::t", "d.py::t"


def mixed() -> tuple[Document, Contract]:
    """One entry of each status, and a record for each that the run has."""
    run = document(record(A), hung(B), record(C), tests={"d.py::t": State.DESELECTED})
    known = contract(record(A), record(B), record("gone.py::t"), record(D))
    return run, known


def decide(
    run: Document, known: Contract, *kinds: Kind, policies: Mapping[Status, Policy] = DEFAULTS
) -> Decision:
    return gate.decide(run, known, policies, kinds)


# --- verdict ------------------------------------------------------------------------------


def test_what_agrees_passes() -> None:
    decision = decide(document(record()), contract(record()))
    assert decision.verdict.passed
    assert decision.acceptable == ()


def test_by_default_all_but_what_was_left_out_fails() -> None:
    decision = decide(*mixed())
    assert decision.verdict.reasons == ("1 changed", "1 new", "1 missing")
    assert [each.status for each in decision.verdict.told] == [Status.DESELECTED]
    assert decision.acceptable == (Kind.CREATE, Kind.UPDATE, Kind.PRUNE)


@pytest.mark.parametrize("status", DEFAULTS)
def test_each_policy_of_each_status(status: Status) -> None:
    others = dict.fromkeys(DEFAULTS, Policy.IGNORE)
    for chosen, failing, told in (
        (Policy.FAIL, 1, 0),
        (Policy.WARN, 0, 1),
        (Policy.IGNORE, 0, 0),
    ):
        verdict = decide(*mixed(), policies={**others, status: chosen}).verdict
        assert verdict.passed is not bool(failing)
        assert [len(verdict.failing), len(verdict.told)] == [failing, told]
        assert all(each.status is status for each in (*verdict.failing, *verdict.told))


def test_nothing_compared_fails_whatever_the_policies_say() -> None:
    lenient = dict.fromkeys(DEFAULTS, Policy.IGNORE)
    for run, known in (
        (document(), Contract()),
        (document(record()), Contract()),
        (document(), contract(record())),
        (document(tests={TEST: State.DESELECTED}), contract(record())),
    ):
        verdict = decide(run, known, policies=lenient).verdict
        assert verdict.reasons == ("nothing was compared",)


def test_a_problem_fails_whatever_the_policies_say() -> None:
    lenient = dict.fromkeys(DEFAULTS, Policy.IGNORE)
    run = document(record(), problems=("gw0 died", "gw1 died"))
    verdict = decide(run, contract(record()), policies=lenient).verdict
    assert verdict.reasons == ("2 problems",)


# --- accepting ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "keys", "left"),
    [
        ((), {A, B, "gone.py::t", D}, ("1 changed", "1 new", "1 missing")),
        ((Kind.CREATE,), {A, B, C, "gone.py::t", D}, ("1 changed", "1 missing")),
        ((Kind.UPDATE,), {A, B, "gone.py::t", D}, ("1 new", "1 missing")),
        ((Kind.PRUNE,), {A, B, D}, ("1 changed", "1 new")),
        ((Kind.CREATE, Kind.UPDATE), {A, B, C, "gone.py::t", D}, ("1 missing",)),
        (tuple(Kind), {A, B, C, D}, ()),
    ],
)
def test_each_kind_does_one_thing(
    kinds: tuple[Kind, ...], keys: set[str], left: tuple[str, ...]
) -> None:
    run, known = mixed()
    decision = decide(run, known, *kinds)
    written = decision.acceptance.contract.entries
    assert {entry.test for entry in written.values()} == keys
    assert decision.verdict.reasons == left
    (changed,) = (entry for entry in written.values() if entry.test == B)
    assert changed.outcome == ("rescued" if Kind.UPDATE in kinds else "noticed")
    # What was accepted is nothing any more, and nothing else is.
    again = decide(run, decision.acceptance.contract)
    assert again.verdict.reasons == left


def test_recording_twice_changes_nothing_the_second_time() -> None:
    first = decide(document(record(after=2.7, promised=None)), Contract(), *SEEN)
    assert first.acceptance.differs
    assert first.verdict.passed
    again = decide(document(record(after=3.7, promised=None)), first.acceptance.contract, *ALL)
    assert not again.acceptance.differs
    assert again.acceptance.contract.text() == first.acceptance.contract.text()


def test_an_update_keeps_a_time_that_still_fits() -> None:
    """Of two times that are near the border of a class, the recorded one stays."""
    own: dict[str, Any] = {"mechanism": "own_timeout", "settings": None, "recovery": 0.2}
    known = contract(record(after=0.9, **own))
    moved = record(after=0.95, **{**own, "recovery": 5.0})
    assert contract(moved).entries[moved.key].after != known.entries[moved.key].after
    written = decide(document(moved), known, Kind.UPDATE).acceptance.contract.entries[moved.key]
    assert written.after == known.entries[moved.key].after
    assert written.recovery == contract(moved).entries[moved.key].recovery


def test_an_update_of_anything_else_writes_what_a_new_contract_would_have() -> None:
    known = contract(record(after=0.9, settings=None, mechanism="own_timeout"))
    run = document(record(after=0.95, settings=None, mechanism="application"))
    updated = decide(run, known, Kind.UPDATE).acceptance.contract
    assert updated == decide(run, Contract(), Kind.CREATE).acceptance.contract


def test_versions_of_packages_are_written_with_an_update_alone() -> None:
    run, known = document(record(libraries={"redis": "5.1.0"})), contract(record())
    assert not decide(run, known).acceptance.differs
    assert not decide(run, known, Kind.CREATE, Kind.PRUNE).acceptance.differs
    acceptance = decide(run, known, Kind.UPDATE).acceptance
    assert acceptance.touched == 1
    assert acceptance.contract == contract(record(libraries={"redis": "5.1.0"}))


def test_the_project_is_written_where_it_was_not_known() -> None:
    run = document(record(), project="shop")
    assert decide(run, Contract(), *SEEN).acceptance.contract.project == "shop"
    assert not decide(run, contract(record()), *ALL).acceptance.differs


def test_a_client_that_failed_may_be_recorded_as_it_is() -> None:
    decision = decide(document(hung()), Contract(), *SEEN)
    assert decision.verdict.passed
    assert decide(document(hung()), decision.acceptance.contract).verdict.passed


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"blame": "test", "summary": "no fault hit"}, "the test was at fault, not the client"),
        ({"blame": "harness"}, "the harness was at fault, not the client"),
        ({"blame": ""}, "the harness was at fault, not the client"),
        ({"problem": "cause is odd"}, "its record is incomplete: cause is odd"),
    ],
)
def test_a_record_that_says_nothing_of_the_client_is_refused(
    changed: dict[str, Any], why: str
) -> None:
    for known in (Contract(), contract(record())):
        decision = decide(document(hung(**changed), record(A)), known, *ALL)
        (refused,) = decision.acceptance.refused
        assert refused.startswith(f"{record().key}: {why}")
        assert not decision.verdict.passed
        assert "1 not recorded" in decision.verdict.reasons
        entries = decision.acceptance.contract.entries
        assert entries.get(record().key) == known.entries.get(record().key)
        assert record(A).key in entries


def test_of_two_records_of_one_name_neither_is_recorded() -> None:
    decision = decide(document(record(), record(client="other")), Contract(), *ALL)
    assert decision.acceptance.contract.entries == {}
    assert "more than one record has this name" in decision.acceptance.refused[0]
    assert decision.acceptable == ()


@pytest.mark.parametrize(
    "state", [State.CRASHED, State.NOT_REACHED, State.SKIPPED, State.DESELECTED]
)
def test_what_is_not_proved_to_be_gone_is_never_pruned(state: State) -> None:
    run, known = document(record(A), tests={TEST: state}), contract(record(A), record())
    decision = decide(run, known, *ALL)
    assert decision.acceptance.contract == known
    assert decision.acceptable == ()


def test_a_run_with_problems_prunes_nothing() -> None:
    run = document(record(A), problems=("b.py could not be collected",))
    decision = decide(run, contract(record(A), record(B)), *ALL)
    assert record(B).key in decision.acceptance.contract.entries
    assert "proves nothing to be gone" in decision.acceptance.refused[0]


def test_nothing_to_record_is_a_failure() -> None:
    decision = decide(document(), Contract(), *ALL)
    assert decision.verdict.reasons == ("nothing was compared",)
    assert not decision.acceptance.differs


# --- writing ------------------------------------------------------------------------------


def test_a_decision_is_carried_out(tmp_path: Path) -> None:
    path = tmp_path / "contract.json"
    gate.carry_out(decide(document(record()), Contract(), *SEEN), path)
    assert contracts.read(path) == contract(record())
    written = path.stat().st_mtime_ns
    gate.carry_out(decide(document(record(after=3.2)), contracts.read(path), *SEEN), path)
    assert path.stat().st_mtime_ns == written


def test_a_contract_that_could_not_be_written_is_a_problem(tmp_path: Path) -> None:
    decision = decide(document(record()), Contract(), *SEEN)
    failed = gate.carry_out(decision, tmp_path / "none" / "contract.json")
    assert not failed.verdict.passed
    assert "could not be written: No such file" in failed.comparison.problems[0]
    assert failed.acceptance.accepted == {}


# --- options ------------------------------------------------------------------------------


def choose(
    flags: Mapping[str, Any] | None = None, *, ini: Mapping[str, Any] | None = None, **env: str
) -> Any:
    return choose_gate(
        ini or {}, env, flags or {}, started_in=Path("/here"), ini_directory=Path("/project")
    )


def test_no_contract_no_gate() -> None:
    assert choose() is None
    assert choose({"policy": "new=warn"}) is None


@pytest.mark.parametrize(
    ("path", "flags", "ini", "env"),
    [
        ("/here/c.json", {"contract": "c.json"}, {}, {}),
        ("/elsewhere/c.json", {"contract": "/elsewhere/c.json"}, {}, {}),
        ("/here/c.json", {}, {}, {"RESILIENCE_CONTRACT": "c.json"}),
        ("/project/c.json", {}, {"resilience_contract": "c.json"}, {}),
        ("/here/b.json", {"contract": "b.json"}, {"resilience_contract": "c.json"}, {}),
    ],
)
def test_where_a_contract_is(
    path: str, flags: dict[str, str], ini: dict[str, str], env: dict[str, str]
) -> None:
    assert choose(flags, ini=ini, **env).path == Path(path)


def test_recording_into_nothing() -> None:
    with pytest.raises(UsageError, match="--resilience-record has nothing to write to"):
        choose({"record": ""})


def test_only_the_command_line_records() -> None:
    chosen = choose(
        {"contract": "c"}, ini={"resilience_record": "create"}, RESILIENCE_RECORD="create"
    )
    assert chosen.kinds == frozenset()


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("", SEEN),
        ("create", {Kind.CREATE}),
        ("prune,update", {Kind.PRUNE, Kind.UPDATE}),
        (" create , prune,", {Kind.CREATE, Kind.PRUNE}),
    ],
)
def test_what_is_recorded(text: str, kinds: frozenset[Kind]) -> None:
    assert choose({"contract": "c", "record": text}).kinds == kinds


def test_what_cannot_be_recorded() -> None:
    with pytest.raises(UsageError, match="'tests/' is nothing that can be recorded") as refusal:
        choose({"contract": "c", "record": "tests/"})
    assert "--resilience-record=create,update" in refusal.value.advice


def test_policies_are_told_over_the_defaults() -> None:
    chosen = choose({"contract": "c"}, RESILIENCE_POLICY=" new=ignore, deselected = fail ,")
    assert chosen.policies == {
        **DEFAULTS,
        Status.NEW: Policy.IGNORE,
        Status.DESELECTED: Policy.FAIL,
    }


@pytest.mark.parametrize("text", ["new", "new=maybe", "same=fail", "=fail", "skipped=warn"])
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(UsageError, match=r"environment variable RESILIENCE_POLICY: .* no policy"):
        choose({"contract": "c"}, RESILIENCE_POLICY=text)


def test_the_defaults_in_the_help_are_those_in_force() -> None:
    assert policy.parse_policies(options.POLICY.default, "default") == DEFAULTS


def test_loading(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    asked = choose({"contract": str(path)})
    with pytest.raises(UsageError, match="there is no contract"):
        load(asked, "shop")
    # Only what creates entries creates a file.
    with pytest.raises(UsageError, match="there is no contract"):
        load(choose({"contract": str(path), "record": "update"}), "shop")
    create = choose({"contract": str(path), "record": "create"})
    assert load(create, "shop") == Contract(project="shop")
    with pytest.raises(UsageError, match="there is no directory"):
        load(choose({"contract": str(path / "c.json"), "record": ""}), "shop")

    contracts.write(contract(record(), project="shop"), path)
    assert load(asked, "shop", tmp_path).project == "shop"  # its tests may have moved
    with pytest.raises(UsageError, match="another project"):
        load(asked, "bank", tmp_path)
    with pytest.raises(UsageError, match="none of its 1 test files is there"):
        load(asked, "", tmp_path)
    assert load(choose({"contract": str(path), "record": "prune"}), "", tmp_path).entries
