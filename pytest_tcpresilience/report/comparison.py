"""What differs between a contract and a run: pure, from two tables of entries to findings.

Owns what is compared, in which order of weight, and where an entry of the contract went that
no record stands for. Which finding fails a run is :mod:`.policy`'s, and the words around them
are :mod:`.summary`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from pytest_tcpresilience.records.record import Record
from pytest_tcpresilience.report.bands import Band, time_of
from pytest_tcpresilience.report.contract import WOKEN, Contract, Entry
from pytest_tcpresilience.report.document import Document, State

NONE = "none"


class Status(str, Enum):
    """What became of an entry."""

    SAME = "same"
    CHANGED = "changed"
    NEW = "new"
    """The run has it, and the contract has not."""
    MISSING = "missing"
    """The contract has it, and the run should have it and has not."""
    DESELECTED = "deselected"
    """The contract has it, and the run was told to leave it out, or its test skipped itself."""

    def __str__(self) -> str:
        return self.value


class Weight(int, Enum):
    """How much a difference says about the client; the heaviest are told first."""

    BEHAVIOUR = 0
    SETUP = 1
    TIME = 2


@dataclass(frozen=True)
class Difference:
    """:param before: by the contract. :param now: by the run."""

    what: str
    before: str
    now: str
    weight: Weight

    def __str__(self) -> str:
        return f"{self.what}: {self.before} before, {self.now} now"


@dataclass(frozen=True)
class Finding:
    """An entry, and what became of it.

    :param key: as :attr:`.Record.key`. :param entry: the contract's. :param record: the run's.
    :param differences: what changed, the heaviest first.
    :param why: where it is, if it is missing or was deselected.
    :param gone: whether nothing makes such a record any more, so that it can be pruned.
    :param libraries: of the client's packages, what they were and are, where that differs.
    """

    key: str
    status: Status
    entry: Entry | None = None
    record: Record | None = None
    differences: tuple[Difference, ...] = ()
    why: str = ""
    gone: bool = False
    libraries: tuple[str, ...] = ()

    @property
    def upgrade(self) -> str:
        """What to say where a client's behaviour changed together with its packages."""
        behaves = any(each.weight is Weight.BEHAVIOUR for each in self.differences)
        if not (self.libraries and behaves and self.entry and self.record):
            return ""
        now = Entry.of(self.record)
        return f"{', '.join(self.libraries)}: {behaviour(self.entry)} before, {behaviour(now)} now"


@dataclass(frozen=True)
class Comparison:
    """:param findings: in the order of their keys.

    :param problems: why part of it is not to be trusted, each a sentence.
    """

    findings: tuple[Finding, ...] = ()
    problems: tuple[str, ...] = ()

    def of(self, status: Status) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.status is status)

    @property
    def compared(self) -> int:
        """Entries that both sides have."""
        return len(self.of(Status.SAME)) + len(self.of(Status.CHANGED))

    @property
    def notes(self) -> tuple[str, ...]:
        """Packages that changed without a change of behaviour: worth a line, and no more."""
        bumps = Counter(bump for each in self.of(Status.SAME) for bump in each.libraries)
        return tuple(
            f"{bump}, and {count} {'entry is' if count == 1 else 'entries are'} as before"
            for bump, count in sorted(bumps.items())
        )


def behaviour(entry: Entry) -> str:
    """In a few words: by what it noticed, or that it did not."""
    if entry.outcome in WOKEN:
        return "never noticed" if entry.expectation == "detects_break" else "still waiting"
    words = entry.outcome.replace("_", " ")
    return f"{words} by {entry.mechanism}" if entry.mechanism else words


# --- what is compared ---------------------------------------------------------------------


def _text(value: object) -> str:
    return str(value) if value else NONE


def _field(name: str) -> Callable[[Entry], str]:
    return lambda entry: _text(getattr(entry, name))


@dataclass(frozen=True)
class Compared:
    """:param of: what of an entry must be equal, as it is shown.

    :param known: ``False`` where :data:`NONE` means that it could not be read. That is the
        machine's doing, and not the client's, so it differs from nothing.
    """

    what: str
    weight: Weight
    of: Callable[[Entry], str]
    known: bool = True

    def differs(self, before: Entry, now: Entry) -> bool:
        both = self.of(before), self.of(now)
        return both[0] != both[1] and (self.known or NONE not in both)


def _promised(entry: Entry) -> str:
    promised = entry.promised
    return NONE if promised is None else f"{promised.earliest:g} s, at most {promised.latest:g} s"


COMPARED = (
    Compared("outcome", Weight.BEHAVIOUR, _field("outcome")),
    Compared("mechanism", Weight.BEHAVIOUR, _field("mechanism")),
    Compared("error", Weight.BEHAVIOUR, _field("error")),
    Compared("errno", Weight.BEHAVIOUR, _field("errno")),
    Compared("expectation", Weight.SETUP, _field("expectation")),
    Compared("client", Weight.SETUP, _field("client")),
    Compared("fault", Weight.SETUP, _field("fault")),
    Compared("settings", Weight.SETUP, _field("settings"), known=False),
    Compared("promised", Weight.SETUP, _promised),
    Compared("attempts", Weight.TIME, _field("attempts")),
)


def differences(entry: Entry, record: Record) -> tuple[Difference, ...]:
    """The heaviest first; none for what is the same within the tolerance of its times."""
    now = Entry.of(record)
    found = [
        Difference(each.what, each.of(entry), each.of(now), each.weight)
        for each in COMPARED
        if each.differs(entry, now)
    ]
    found += _time("after", entry.after, time_of(record), now.after)
    found += _time("recovery", entry.recovery, record.recovery, now.recovery)
    return tuple(sorted(found, key=lambda each: each.weight))


def _time(
    what: str, before: Band | None, seconds: float | None, now: Band | None
) -> list[Difference]:
    if before is None and seconds is None:
        return []
    if before is not None and seconds is not None and before.agrees(seconds):
        return []
    shown = NONE if seconds is None else f"{seconds:.2f} s ({now})"
    return [Difference(what, _text(before), shown, Weight.TIME)]


def bumps(entry: Entry, record: Record) -> tuple[str, ...]:
    """Packages of the client that are not what they were."""
    before, now = entry.libraries, record.libraries
    return tuple(
        f"{name} {before.get(name, NONE)} -> {now.get(name, NONE)}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    )


# --- where an entry went ------------------------------------------------------------------

Whereabouts = tuple[Status, str, bool]

# By what became of its test: the status, why, and whether it is gone for good.
BY_STATE: Mapping[State, Whereabouts] = {
    State.RAN: (Status.MISSING, "its test ran and made no such record", True),
    State.CRASHED: (Status.MISSING, "its process ended in the middle", False),
    State.NOT_REACHED: (Status.MISSING, "the run ended before it", False),
    State.SKIPPED: (Status.DESELECTED, "its test was skipped", False),
    State.DESELECTED: (Status.DESELECTED, "its test was deselected", False),
}
LEFT_OUT: Whereabouts = (Status.DESELECTED, "it was left out by choice", False)
NOT_ASKED: Whereabouts = (Status.DESELECTED, "the run was not asked for it", False)
NO_SUCH_TEST: Whereabouts = (Status.MISSING, "no such test was collected", True)


def covers(asked: Iterable[str], test: str) -> bool:
    """Whether a run that was asked for these paths and node ids would have had the test."""
    return any(
        each in ("", ".", test) or test.startswith(tuple(each.rstrip("/") + end for end in "/:["))
        for each in asked
    )


def whereabouts(entry: Entry, document: Document) -> Whereabouts:
    """Of an entry that no record stands for."""
    if entry.key in document.deselected:
        return LEFT_OUT
    state = document.tests.get(entry.test)
    if state is not None:
        return BY_STATE[state]
    return NO_SUCH_TEST if covers(document.asked, entry.test) else NOT_ASKED


# --- all of it ----------------------------------------------------------------------------


def compare(document: Document, contract: Contract) -> Comparison:
    """What the run says, entry by entry, against what the contract says."""
    records, problems = _by_key(document.records)
    findings = []
    for key in sorted({*records, *contract.entries}):
        entry, record = contract.entries.get(key), records.get(key)
        if record is None:
            assert entry is not None
            status, why, gone = whereabouts(entry, document)
            findings.append(Finding(key, status, entry, why=why, gone=gone))
        elif entry is None:
            findings.append(Finding(key, Status.NEW, record=record))
        else:
            found = differences(entry, record)
            status = Status.CHANGED if found else Status.SAME
            libraries = bumps(entry, record)
            findings.append(Finding(key, status, entry, record, found, libraries=libraries))
    return Comparison(tuple(findings), (*document.problems, *problems))


def _by_key(records: Iterable[Record]) -> tuple[dict[str, Record], list[str]]:
    """The first record of each key, and what is wrong with the records."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.key, []).append(record)
    problems = [_twice(key, several) for key, several in found.items() if len(several) > 1]
    problems += [
        f"{record.key}: {record.problem}"
        for several in found.values()
        for record in several
        if record.problem
    ]
    return {key: several[0] for key, several in found.items()}, problems


def _twice(key: str, records: list[Record]) -> str:
    each = "; ".join(
        f"{record.client or record.link or 'a client'} and {record.fault or 'no fault'}, "
        f"{behaviour(Entry.of(record))}"
        for record in records
    )
    return (
        f"{len(records)} records have the same name, {key}: {each}. The test ran more than "
        "once, or two of its expectations have one name"
    )
