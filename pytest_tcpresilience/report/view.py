"""What every report says, in the order in which it is said; HTML and Markdown only typeset it.

Owns the verdict, the facts of the run, and what is told of each record. Pure: a document in,
plain values out.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_tcpresilience.evidence.units import duration
from pytest_tcpresilience.records.record import Record, Settings
from pytest_tcpresilience.report import table
from pytest_tcpresilience.report.changes import Changes, changes_of
from pytest_tcpresilience.report.comparison import Comparison
from pytest_tcpresilience.report.document import Document, State
from pytest_tcpresilience.report.ladder import Step, steps_of
from pytest_tcpresilience.report.statuses import (
    Status,
    Tone,
    briefly,
    detail_of,
    status_of,
    took_of,
)

# With so few of them there is no reason to fold away what is not as promised.
OPEN_AT_MOST = 3
# How many names a sentence lists.
MOST_NAMES = 5
TITLE = "What the clients do when a connection dies"


@dataclass(frozen=True)
class Bar:
    """The promised window and the moment of noticing, as shares of a line from the fault on.

    :param words: the same, for those who cannot see it.
    """

    earliest: float
    latest: float
    after: float | None
    words: str


@dataclass(frozen=True)
class Detail:
    """A record and all that is made of it.

    :param cause: why the client did not do as promised. :param cure: what to do about it.
    :param facts: names and texts, in their order.
    :param parts: of the promised window.
    :param notices: what is wrong with the record itself.
    """

    number: int
    record: Record
    client: str
    fault: str
    status: Status
    told: str
    cause: str
    cure: str
    facts: tuple[tuple[str, str], ...]
    parts: tuple[str, ...]
    bar: Bar | None
    steps: tuple[Step, ...]
    notices: tuple[str, ...]
    expanded: bool


@dataclass(frozen=True)
class View:
    """:param tone: of the whole run. :param verdict: the first sentence of the report.

    :param counts: each status with its number of records, the bad ones first.
    :param changes: against a contract; ``None`` when there was none.
    :param problems: what is wrong with the run itself.
    """

    title: str
    verdict: str
    tone: Tone
    counts: tuple[tuple[Status, int], ...]
    problems: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    table: table.Table
    details: tuple[Detail, ...]
    changes: Changes | None = None


def view_of(document: Document, comparison: Comparison | None = None) -> View:
    """:param comparison: of the run with its contract, where there is one."""
    # As the table reads, row by row; keys say little about that.
    records = sorted(
        document.records,
        key=lambda record: (table.client_of(record), table.column_of(record), record.key),
    )
    statuses = [status_of(record) for record in records]
    changes = None
    if comparison is not None:
        changes = changes_of(comparison, [record.key for record in records])
    tone = _tone(document, statuses)
    if tone is Tone.GOOD and changes is not None and (changes.others or changes.problems):
        tone = Tone.UNSURE
    others = sum(status.tone is not Tone.GOOD for status in statuses)
    return View(
        title=f"{TITLE}: {document.project}" if document.project else TITLE,
        verdict=_verdict(statuses) + _against(changes),
        tone=tone,
        counts=_counts(statuses),
        problems=_problems(document),
        facts=tuple(_run_facts(document)),
        table=table.build(records),
        details=tuple(
            _detail(number, record, document.versions, expanded=others <= OPEN_AT_MOST)
            for number, record in enumerate(records, 1)
        ),
        changes=changes,
    )


# --- the run ------------------------------------------------------------------------------


def _tone(document: Document, statuses: Sequence[Status]) -> Tone:
    if any(status.tone is Tone.BAD for status in statuses):
        return Tone.BAD
    complete = statuses and not document.problems and State.CRASHED not in document.tests.values()
    if not complete or any(status.tone is Tone.UNSURE for status in statuses):
        return Tone.UNSURE
    return Tone.GOOD


def _verdict(statuses: Sequence[Status]) -> str:
    good = sum(status.tone is Tone.GOOD for status in statuses)
    others = len(statuses) - good
    if not statuses:
        return "Nothing was recorded"
    if not others:
        return "As promised" if good == 1 else f"All {good} as promised"
    return f"{good} as promised, {others} not"


def _against(changes: Changes | None) -> str:
    """What the contract adds to the verdict: a promise that is kept may be another one."""
    if changes is None or not changes.others:
        return ""
    return f"; {changes.others} not as in the contract"


def _counts(statuses: Sequence[Status]) -> tuple[tuple[Status, int], ...]:
    order = [Tone.BAD, Tone.UNSURE, Tone.GOOD]
    found = Counter(statuses)
    return tuple(
        sorted(found.items(), key=lambda item: (order.index(item[0].tone), -item[1], item[0].words))
    )


def _problems(document: Document) -> tuple[str, ...]:
    problems = list(document.problems)
    for state, words in (
        (State.CRASHED, "ended with its process, so that its records are lost"),
        (State.NOT_REACHED, "was chosen and not reached"),
    ):
        tests = [test for test, each in document.tests.items() if each is state]
        if tests:
            problems.append(f"{_names(tests)} {words}")
    return tuple(problems)


def _moment(iso: str) -> str:
    """``2026-11-21 19:56 UTC``; as it stands, where it is no such moment."""
    try:
        at = datetime.datetime.fromisoformat(iso).astimezone(datetime.timezone.utc)
    except ValueError:
        return iso
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _names(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _run_facts(document: Document) -> Iterator[tuple[str, str]]:
    engines = sorted({record.engine for record in document.records if record.engine})
    if document.project:
        yield "project", document.project
    if document.started:
        yield "started", _moment(document.started)
    if engines:
        yield "engine" if len(engines) == 1 else "engines", ", ".join(engines)
    yield from sorted(document.versions.items())
    if document.asked and document.asked != ("",):
        yield "asked for", _names(document.asked)
    if document.tests:
        states = Counter(map(str, document.tests.values()))
        told = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in states.items())
        yield "tests", told
    if document.deselected:
        yield "deselected", _names(document.deselected)


# --- a record -----------------------------------------------------------------------------


def _detail(number: int, record: Record, common: Mapping[str, str], *, expanded: bool) -> Detail:
    status = status_of(record)
    return Detail(
        number=number,
        record=record,
        client=table.client_of(record),
        fault=table.column_of(record),
        status=status,
        told=detail_of(record),
        cause=record.cause.why if record.cause else "",
        cure=_cure(record),
        facts=tuple((name, text) for name, text in _facts(record, common) if text),
        parts=record.promised.parts if record.promised else (),
        bar=_bar(record),
        steps=steps_of(record),
        notices=(record.problem,) if record.problem else (),
        expanded=expanded and status.tone is not Tone.GOOD,
    )


def _facts(record: Record, common: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What differs from record to record; what is the same for all is told of the run."""
    yield "test", record.test
    yield "expectation", f"{record.expectation}: {record.expected}".removesuffix(": ")
    yield "activity", record.activity
    yield "the client's socket", _settings(record.settings)
    if record.promised is not None:
        yield "promised", _promised(record)
    if record.error is not None:
        errno = f" [{record.error.errno}]" if record.error.errno else ""
        yield "error", f"{record.error.type}{errno}: {record.error.text}".removesuffix(": ")
    if record.attempts is not None:
        yield "connections since the fault", str(record.attempts)
    yield "link", f"{record.link} to {record.upstream}" if record.upstream else record.link
    own = {name: text for name, text in record.versions.items() if common.get(name) != text}
    listed = [*sorted(record.libraries.items()), *sorted(own.items())]
    yield "versions", ", ".join(f"{name} {text}" for name, text in listed)


def _cure(record: Record) -> str:
    """A cause explains more than an outcome's own advice."""
    if record.cause is not None:
        return record.cause.cure
    return "" if record.passed else record.advice


def _settings(settings: Settings | None) -> str:
    if settings is None:
        return "could not be read"
    if not settings.enabled:
        return str(settings)
    probes = f"a first probe after {settings.idle} s, then one each {settings.interval} s"
    if settings.user_timeout_ms:  # which takes the place of their number
        return f"{settings}: {probes}"
    return f"{settings}: {probes}, dead after {settings.probes} unanswered"


def _promised(record: Record) -> str:
    window = record.promised
    assert window is not None
    if window.earliest <= 0:
        return f"within {duration(window.latest)}"
    return (
        f"between {duration(window.earliest)} and {duration(window.latest)}, "
        f"nominally {duration(window.nominal)}"
    )


def _bar(record: Record) -> Bar | None:
    window = record.promised
    took = took_of(record)
    if window is None or window.latest <= 0 or (record.passed and took is None):
        return None
    noticed = took if took is not None and took >= 0 else None
    whole = max(window.latest, noticed or 0.0) * 1.08
    told = status_of(record).words if noticed is None else f"after {briefly(noticed)}"
    return Bar(
        earliest=max(window.earliest, 0.0) / whole,
        latest=window.latest / whole,
        after=None if noticed is None else noticed / whole,
        words=f"{told}; promised {_promised(record)}",
    )
