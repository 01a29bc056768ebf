"""Documents of several runs as one: shards of a suite, or runs on several machines.

Owns whose word counts where two documents speak of the same thing. Nothing is dropped
without a trace: what contradicts each other is kept, and is a problem that names the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.records.record import Record
from pytest_tcpresilience.report.comparison import Difference, differences
from pytest_tcpresilience.report.contract import Entry
from pytest_tcpresilience.report.document import Document, State, ordered

PRECEDENCE = tuple(State)


def merge(documents: Mapping[str, Document]) -> Document:
    """One document that says what all of them say.

    :param documents: by the name of the file that each came from.
    :raises UsageError: for documents of different projects, and for none.
    """
    if not documents:
        raise UsageError(
            "there is nothing to merge",
            expected="at least one document",
            happened="got none",
            advice="give the files that --resilience-report=NAME.json has written",
        )
    if len(documents) == 1:
        return next(iter(documents.values()))
    project = _project(documents)
    records, conflicts = _records(documents)
    recorded = {record.key for record in records}
    whole = documents.values()
    return Document(
        records=ordered(records),
        project=project,
        tests=_tests(list(whole)),
        asked=tuple(sorted({each for document in whole for each in document.asked})),
        deselected=tuple(
            sorted({each for document in whole for each in document.deselected} - recorded)
        ),
        problems=(*_problems(documents), *conflicts, *_absent(documents)),
        started=min((each.started for each in whole if each.started), default=""),
        versions=_versions(list(whole)),
    )


def _project(documents: Mapping[str, Document]) -> str:
    named: dict[str, str] = {}
    for name, document in documents.items():
        if document.project:
            named.setdefault(document.project, name)
    if len(named) > 1:
        raise UsageError(
            "these documents are of different projects",
            expected="runs of one project's tests",
            happened=", ".join(f"{name} is of {project!r}" for project, name in named.items()),
            advice="make a report for each project",
        )
    return next(iter(named), "")


def _tests(documents: Sequence[Document]) -> dict[str, State]:
    """What became of each: a shard that ran a test knows better than one that left it out."""
    found: dict[str, State] = {}
    for document in documents:
        for test, state in document.tests.items():
            found[test] = min(found.get(test, state), state, key=PRECEDENCE.index)
    return dict(sorted(found.items()))


def _records(documents: Mapping[str, Document]) -> tuple[list[Record], list[str]]:
    """Each record once, both where two contradict each other, and what is to be said of that."""
    kept: dict[str, list[tuple[str, Record]]] = {}
    conflicts = []
    for name, document in documents.items():
        # Two of one document are the run's own affair: both are kept.
        own: list[tuple[str, Record]] = []
        for record in document.records:
            others = kept.get(record.key, [])
            same = [other for _, other in others if not _differ(other, record)]
            if others and not same:
                first, other = others[0]
                what = "; ".join(
                    f"{each.what} {each.before} and {each.now}" for each in _differ(other, record)
                )
                conflicts.append(
                    f"{first} and {name} contradict each other on {record.key}: {what}"
                )
            if not same:
                own.append((record.key, record))
        for key, record in own:
            kept.setdefault(key, []).append((name, record))
    return [record for several in kept.values() for _, record in several], conflicts


def _absent(documents: Mapping[str, Document]) -> list[str]:
    """What is to be said where a test ran twice and made a record only once."""
    makers: dict[str, tuple[str, str]] = {}
    there = {name: {each.key for each in document.records} for name, document in documents.items()}
    for name, document in documents.items():
        for record in document.records:
            makers.setdefault(record.key, (name, record.test))
    return [
        f"{maker} and {name} contradict each other on {key}: its test ran in both, and {name} "
        "has no such record"
        for name, document in documents.items()
        for key, (maker, test) in makers.items()
        if key not in there[name]
        and key not in document.deselected
        and document.tests.get(test) is State.RAN
    ]


def _differ(first: Record, second: Record) -> tuple[Difference, ...]:
    """As the gate sees it: that times are not the same to the millisecond says nothing."""
    return differences(Entry.of(first), second)


def _problems(documents: Mapping[str, Document]) -> list[str]:
    return [f"{name}: {each}" for name, document in documents.items() for each in document.problems]


def _versions(documents: Sequence[Document]) -> dict[str, str]:
    """What was the same everywhere."""
    first, *others = (dict(document.versions) for document in documents)
    return {
        name: version
        for name, version in first.items()
        if all(other.get(name) == version for other in others)
    }
