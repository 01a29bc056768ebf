"""What a report shows of a comparison with a contract.

Owns the few things that a report wants to know of one, their words and their order. How a
comparison comes about is :mod:`.comparison`'s; which of its findings fails a run is no matter of
a report. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_tcpresilience.report.comparison import Comparison, Status

# All but the entries that are as they were, in the order in which they are told, with what a
# reader calls them.
STATUSES: Mapping[Status, str] = {
    Status.CHANGED: "changed",
    Status.MISSING: "missing from this run",
    Status.NEW: "not in the contract",
    Status.DESELECTED: "left out of this run",
}


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
        left_out = STATUSES[Status.DESELECTED]
        return sum(each.status != left_out for each in self.changes)


def changes_of(comparison: Comparison, keys: Sequence[str]) -> Changes:
    """:param keys: of the document's records, in their order."""
    numbers = {key: number for number, key in enumerate(keys, 1)}
    changes = [
        Change(
            key=each.key,
            status=words,
            number=numbers.get(each.key, 0),
            told=tuple(filter(None, (*map(str, each.differences), each.upgrade, each.why))),
        )
        for status, words in STATUSES.items()
        for each in comparison.of(status)
    ]
    same = len(comparison.of(Status.SAME))
    return Changes(same, tuple(changes), comparison.problems)
