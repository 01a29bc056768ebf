"""Taking what a run has shown into the contract, as far as it was asked to and can be trusted.

Owns which findings are written, which are refused and why, and that nothing else moves: an
entry that compares equal keeps its bytes, whatever its times were today. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pytest_tcpresilience.report.comparison import Comparison, Finding, Status, Weight
from pytest_tcpresilience.report.contract import Contract, Entry
from pytest_tcpresilience.report.document import Document
from pytest_tcpresilience.report.policy import ACCEPTED_BY, Kind


@dataclass(frozen=True)
class Acceptance:
    """:param contract: as it is now to be.

    :param accepted: by key, what has been accepted in which way.
    :param refused: why an entry was not written though that was asked for, each a sentence.
    :param touched: entries of which only the versions of packages were written anew.
    """

    contract: Contract
    accepted: Mapping[str, Kind]
    refused: tuple[str, ...] = ()
    touched: int = 0

    @property
    def differs(self) -> bool:
        """Whether the file has to be written at all."""
        return bool(self.accepted) or self.touched > 0

    def count(self, kind: Kind) -> int:
        return sum(each is kind for each in self.accepted.values())


def accept(
    document: Document, contract: Contract, comparison: Comparison, kinds: Iterable[Kind]
) -> Acceptance:
    """What the contract becomes.

    Nothing is written of a record that says nothing about the client: its test or the
    harness was at fault, it is incomplete, or it shares its name with another one. Nothing
    is forgotten that a run has not proved to be gone, and by a run with problems nothing.
    """
    wanted = frozenset(kinds)
    entries = dict(contract.entries)
    accepted: dict[str, Kind] = {}
    refused: list[str] = []
    touched = 0
    doubtful = _doubtful(document)
    for finding in comparison.findings:
        key, kind = finding.key, ACCEPTED_BY.get(finding.status)
        if kind in wanted and kind is not None:
            why = _objection(finding, doubtful, comparison)
            if why:
                refused.append(f"{key}: {why}")
                continue
            accepted[key] = kind
            if finding.record is None:
                del entries[key]
            else:
                entries[key] = _entry(finding)
        elif finding.libraries and finding.status is Status.SAME and Kind.UPDATE in wanted:
            assert finding.entry is not None
            assert finding.record is not None
            entries[key] = replace(finding.entry, libraries=dict(finding.record.libraries))
            touched += 1
    project = contract.project or document.project
    changed = replace(contract, entries=entries, project=project)
    return Acceptance(changed, accepted, tuple(refused), touched)


def _entry(finding: Finding) -> Entry:
    """As the record has it. Where nothing but a time has changed, the other one stays."""
    assert finding.record is not None
    now, before = Entry.of(finding.record), finding.entry
    if before is None or any(each.weight is not Weight.TIME for each in finding.differences):
        return now
    moved = {each.what for each in finding.differences}
    after = now.after if "after" in moved else before.after
    recovery = now.recovery if "recovery" in moved else before.recovery
    return replace(now, after=after, recovery=recovery)


def _doubtful(document: Document) -> Mapping[str, str]:
    """By key, why a record is not to be relied on."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    for record in document.records:
        if record.key in seen:
            found[record.key] = "more than one record has this name"
        elif record.problem:
            found[record.key] = f"its record is incomplete: {record.problem}"
        elif not record.passed and record.blame != "client":
            whose = "the test" if record.blame == "test" else "the harness"
            found[record.key] = f"{whose} was at fault, not the client: {record.summary}"
        seen.add(record.key)
    return found


def _objection(finding: Finding, doubtful: Mapping[str, str], comparison: Comparison) -> str:
    if finding.key in doubtful:
        return doubtful[finding.key]
    if finding.status is not Status.MISSING:
        return ""
    if not finding.gone:
        return f"{finding.why}, which does not prove that it is gone"
    return "this run had problems, so that it proves nothing to be gone" * bool(comparison.problems)
