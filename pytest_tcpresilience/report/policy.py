"""Which finding fails a run, and what may be accepted instead.

Owns the policies, the kinds of acceptance, and the verdict. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.report.comparison import Comparison, Finding, Status


class Policy(str, Enum):
    """What a finding does."""

    FAIL = "fail"
    WARN = "warn"
    """It is told, and the run passes."""
    IGNORE = "ignore"
    """It is counted, and nothing else is said."""

    def __str__(self) -> str:
        return self.value


class Kind(str, Enum):
    """What a run may write into its contract. Each does one thing, and they are combined."""

    CREATE = "create"
    UPDATE = "update"
    PRUNE = "prune"

    def __str__(self) -> str:
        return self.value


# A run that was told to leave something out is no regression; all else is, until it has
# been looked at.
DEFAULTS: Mapping[Status, Policy] = {
    Status.CHANGED: Policy.FAIL,
    Status.NEW: Policy.FAIL,
    Status.MISSING: Policy.FAIL,
    Status.DESELECTED: Policy.WARN,
}
# What accepts a finding.
ACCEPTED_BY: Mapping[Status, Kind] = {
    Status.NEW: Kind.CREATE,
    Status.CHANGED: Kind.UPDATE,
    Status.MISSING: Kind.PRUNE,
}
# Of --resilience-record alone: what this run has seen. What it has not seen is no proof of
# anything, so that forgetting has to be asked for by name.
SEEN = frozenset({Kind.CREATE, Kind.UPDATE})


def parse_policies(text: str, origin: str) -> Mapping[Status, Policy]:
    """``"changed=fail,new=warn"`` over the defaults.

    :param origin: where the text came from. :raises UsageError: naming it.
    """
    policies = dict(DEFAULTS)
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (each.strip() for each in part.partition("="))
        if name not in map(str, DEFAULTS) or value not in map(str, Policy):
            raise UsageError(
                f"{origin}: {part!r} is no policy",
                expected=f"one of {', '.join(map(str, DEFAULTS))}, then =, then one of "
                f"{', '.join(map(str, Policy))}",
                happened=f"got {text!r}",
                advice="for example new=warn,deselected=ignore",
            )
        policies[Status(name)] = Policy(value)
    return policies


def parse_kinds(text: str, origin: str) -> frozenset[Kind]:
    """``"create,update"`` as what it asks for; an empty text as :data:`SEEN`.

    :raises UsageError: naming where the text came from.
    """
    names = [name for name in (part.strip() for part in text.split(",")) if name]
    unknown = [name for name in names if name not in map(str, Kind)]
    if unknown:
        raise UsageError(
            f"{origin}: {unknown[0]!r} is nothing that can be recorded",
            expected=f"any of {', '.join(map(str, Kind))}, with commas between them",
            happened=f"got {text!r}",
            advice=f"write {origin}=create,update, with the sign of equality; without a "
            "value the option wants no other word behind it",
        )
    return frozenset(map(Kind, names)) or SEEN


@dataclass(frozen=True)
class Verdict:
    """:param reasons: why not, each a few words. :param failing: the findings behind them.

    :param told: findings that pass and are told.
    """

    reasons: tuple[str, ...] = ()
    failing: tuple[Finding, ...] = ()
    told: tuple[Finding, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.reasons


def judge(
    comparison: Comparison,
    policies: Mapping[Status, Policy],
    accepted: Iterable[str] = (),
    refused: int = 0,
) -> Verdict:
    """:param accepted: keys of findings that are to be written into the contract.

    :param refused: how many were to be, and cannot.
    """
    taken = frozenset(accepted)
    reasons, failing, told = [], [], []
    for status, policy in policies.items():
        found = [each for each in comparison.of(status) if each.key not in taken]
        if found and policy is Policy.FAIL:
            reasons.append(f"{len(found)} {status}")
            failing += found
        elif policy is not Policy.IGNORE:
            told += found
    if comparison.problems:
        count = len(comparison.problems)
        reasons.append(f"{count} problem{'s' if count > 1 else ''}")
    if refused:
        reasons.append(f"{refused} not recorded")
    if not comparison.compared and not taken:
        # Whatever the policies say: a gate that compares nothing holds nothing.
        reasons.append("nothing was compared")
    return Verdict(tuple(reasons), tuple(failing), tuple(told))
