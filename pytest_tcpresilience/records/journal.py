"""A test's journal: the records of its expectations, in the order in which they ended.

Owns the names of entries, what a test adds to each of its records, and that a record can be
kept whatever is in it. An expectation writes into the journal of its link from whatever
thread it runs in.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from pytest_tcpresilience.records.record import Happening, Record

Libraries = Callable[[Record], Mapping[str, str]]


def _none(_record: Record) -> Mapping[str, str]:
    return {}


class Journal:
    """Where the links of one test write.

    :param test: its node id. :param client: what its clients are called by default.
    :param versions: see :class:`.Record`. :param libraries: finds those of a record.
    :param kept: called with each record that was kept.
    """

    def __init__(
        self,
        test: str = "",
        *,
        client: str = "",
        versions: Mapping[str, str] | None = None,
        libraries: Libraries = _none,
        kept: Callable[[Record], object] = lambda _record: None,
    ) -> None:
        self.test = test
        self.client = client
        self._versions = versions or {}
        self._libraries = libraries
        self._kept = kept
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._records: list[Record] = []
        self._deselected: list[str] = []

    @property
    def records(self) -> tuple[Record, ...]:
        return tuple(self._records)

    @property
    def deselected(self) -> tuple[str, ...]:
        """Keys of the entries that were left out by choice."""
        return tuple(self._deselected)

    def keep(self, record: Record) -> Record:
        """Name a record and keep it.

        :param record: without the test's part; an ``entry`` that it has is taken as it is,
            but for a number when the test has one of that name already.
        :returns: what was kept. What JSON cannot hold is left out, and :attr:`.Record.problem`
            says so.
        """
        client = record.client or self.client
        entry = record.entry or _entry(record)
        with self._lock:
            number = self._counts[entry] = self._counts.get(entry, 0) + 1
            named = f"{entry} #{number}" if number > 1 else entry
            record = replace(
                record,
                test=self.test,
                entry=named,
                client=client,
                versions={**self._versions, **record.versions},
                libraries={**self._libraries(record), **record.libraries},
            )
            record = serialisable(record)
            self._records.append(record)
        self._kept(record)
        return record

    def prepare(self) -> None:
        """Look up now what every record of the test wants to know, while there is time."""
        self._libraries(Record(test="", entry="", expectation="", outcome="", passed=True))

    def leave_out(self, entry: str) -> None:
        """An entry that there will be no record of, by choice."""
        self._deselected.append(f"{self.test} [{entry}]")


def _entry(record: Record) -> str:
    return f"{record.expectation}: {record.client}" if record.client else record.expectation


def serialisable(record: Record) -> Record:
    """The record without what JSON cannot hold."""
    if _fits(record.to_json):
        return record
    problems = []
    for each in fields(Record):
        value = getattr(record, each.name)
        if _fits(functools.partial(_alone, each.name, value)):
            continue
        if each.name == "timeline":
            instead: Any = tuple(map(_bare, value))
        else:
            instead = _instead(each.name)
        problems.append(f"{each.name} cannot be written as JSON: {_shown(value)}")
        record = replace(record, **{each.name: instead})
    return replace(record, problem="; ".join(problems))


def _alone(name: str, value: object) -> object:
    blank = Record(test="", entry="", expectation="", outcome="", passed=True)
    return replace(blank, **{name: value}).to_json()  # type: ignore[arg-type]


def _fits(write: Callable[[], object]) -> bool:
    try:
        write()
    except Exception:  # whatever a stranger's object raises when it is looked at
        return False
    return True


def _instead(name: str) -> Any:
    blank = Record(test="", entry="", expectation="", outcome="", passed=False)
    return getattr(blank, name)


def _bare(event: Happening) -> Happening:
    """The event without what cannot be written."""
    try:
        json.dumps(dict(event.fields), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return replace(event, fields={})
    return event


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:
        return f"a {type(value).__name__}, whose repr() raises {type(error).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}…"
