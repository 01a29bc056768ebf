"""The gate: one decision from a document, a contract and what was asked.

Owns the order of the steps, and nothing of any of them: compare, accept, judge. Pure; the
file is written by whoever asked, since only that one can tell that it could not be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_tcpresilience.report import accepting, contract, policy
from pytest_tcpresilience.report.accepting import Acceptance
from pytest_tcpresilience.report.comparison import Comparison, Status, compare
from pytest_tcpresilience.report.contract import Contract
from pytest_tcpresilience.report.document import Document
from pytest_tcpresilience.report.policy import ACCEPTED_BY, Kind, Policy, Verdict


@dataclass(frozen=True)
class Decision:
    """:param kinds: what was asked to be recorded. :param acceptance: what came of that.

    :param acceptable: by which kinds the findings that are left could be accepted.
    """

    comparison: Comparison
    verdict: Verdict
    kinds: frozenset[Kind]
    acceptance: Acceptance
    acceptable: tuple[Kind, ...]


def decide(
    document: Document,
    contract: Contract,
    policies: Mapping[Status, Policy],
    kinds: Collection[Kind] = (),
) -> Decision:
    """:param kinds: what may be written into the contract; none for a comparison alone."""
    comparison = compare(document, contract)
    acceptance = accepting.accept(document, contract, comparison, kinds)
    verdict = policy.judge(comparison, policies, acceptance.accepted, len(acceptance.refused))
    # What would be accepted if all was asked for: no advice that would be refused.
    anything = accepting.accept(document, contract, comparison, Kind).accepted
    left = [each for each in (*verdict.failing, *verdict.told) if each.key in anything]
    by = {ACCEPTED_BY[each.status] for each in left}
    ordered = tuple(kind for kind in Kind if kind in by)
    return Decision(comparison, verdict, frozenset(kinds), acceptance, ordered)


def carry_out(decision: Decision, path: Path) -> Decision:
    """Write the contract, if anything of it changed.

    :returns: the same, or with a problem when the file could not be written.
    """
    if not decision.acceptance.differs:
        return decision
    try:
        contract.write(decision.acceptance.contract, path)
    except OSError as error:
        problem = f"the contract {path} could not be written: {error.strerror or error}"
        return with_problem(decision, problem)
    return decision


def with_problem(decision: Decision, problem: str) -> Decision:
    """The same, and failed, with nothing written."""
    comparison = decision.comparison
    nothing = replace(decision.acceptance, accepted={}, touched=0)
    return replace(
        decision,
        comparison=replace(comparison, problems=(*comparison.problems, problem)),
        verdict=replace(decision.verdict, reasons=(*decision.verdict.reasons, problem)),
        acceptance=nothing,
    )
