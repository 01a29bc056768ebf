"""What a report shows of a comparison with a contract.

Owns the few things that a report wants to know of one, and their order. How a comparison comes
about, and which of its findings fails a run, is no matter of a report. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

SAME = "same"
# The others, in the order in which they are told, with what a reader calls them.
STATUSES = {
    "changed": "changed",
    "missing": "missing from this run",
    "new": "not in the contract",
    "deselected": "left out of this run",
}


class Finding(Protocol):
    """An entry of a contract or a run, and what became of it."""

    @property
    def key(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def differences(self) -> Sequence[object]: ...
    @property
    def why(self) -> str: ...
    @property
    def upgrade(self) -> str: ...


class Comparison(Protocol):
    """A run beside its contract."""

    @property
    def findings(self) -> Sequence[Finding]: ...
    @property
    def problems(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Change:
    """:param number: of its record in the document, 0 for none. :param told: line by line."""

    key: str
    status: str
    number: int
    told: tuple[str, ...]


@dataclass(frozen=True)
class Changes:
    """:param same: how many entries are as they were."""

    same: int
    changes: tuple[Change, ...]
    problems: tuple[str, ...]

    @property
    def others(self) -> int:
        """How many are not as in the contract. What was left out of the run says nothing."""
        left_out = STATUSES["deselected"]
        return sum(each.status != left_out for each in self.changes)


def changes_of(comparison: Comparison, keys: Sequence[str]) -> Changes:
    """:param keys: of the document's records, in their order."""
    numbers = {key: number for number, key in enumerate(keys, 1)}
    found = [each for each in comparison.findings if str(each.status) != SAME]
    order = list(STATUSES)
    changes = [
        Change(
            key=each.key,
            status=STATUSES.get(str(each.status), str(each.status)),
            number=numbers.get(each.key, 0),
            told=tuple(
                filter(None, (*map(str, each.differences), each.upgrade, each.why)),
            ),
        )
        for each in sorted(
            found,
            key=lambda each: (
                order.index(str(each.status)) if str(each.status) in STATUSES else len(order),
                each.key,
            ),
        )
    ]
    return Changes(
        same=len(comparison.findings) - len(found),
        changes=tuple(changes),
        problems=tuple(comparison.problems),
    )
