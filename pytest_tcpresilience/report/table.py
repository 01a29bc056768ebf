"""The matrix of clients and faults, from the records of a run.

Owns which record stands in which cell. A record that no matrix made has its place, too: its
row is its client, or its test, and its column is its fault. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_tcpresilience.records.record import Record
from pytest_tcpresilience.report.statuses import Status, detail_of, status_of

WITHOUT_FAULT = "without a fault"


@dataclass(frozen=True)
class Entry:
    """A record in its cell.

    :param number: of the record, from 1, in the order in which records were given.
    :param detail: by what the client noticed, and when.
    :param note: what tells it from others in the table: its engine, its expectation.
    """

    number: int
    status: Status
    detail: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    """:param cells: one for each column; empty where nothing was tried."""

    client: str
    cells: tuple[tuple[Entry, ...], ...]


@dataclass(frozen=True)
class Table:
    """:param columns: the faults."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def client_of(record: Record) -> str:
    return record.client or record.test.rpartition("::")[2] or "(unnamed)"


def column_of(record: Record) -> str:
    return record.fault or record.effect or WITHOUT_FAULT


def _asked_of(record: Record) -> str:
    """That a client is known never to notice is told by its status."""
    return "detects_break" if record.expectation == "stays_unaware" else record.expectation


def build(records: Sequence[Record]) -> Table:
    """Rows and columns by name, whoever came first in the run."""
    columns = sorted({column_of(record) for record in records}, key=_last_without_fault)
    engines = {record.engine for record in records}
    expectations = {_asked_of(record) for record in records}
    cells: dict[str, dict[str, list[Entry]]] = {}
    for number, record in enumerate(records, 1):
        notes = []
        if len(expectations) > 1:
            notes.append(_asked_of(record))
        if len(engines) > 1 and record.engine:
            notes.append(f"{record.engine} engine")
        entry = Entry(number, status_of(record), detail_of(record), ", ".join(notes))
        row = cells.setdefault(client_of(record), {})
        row.setdefault(column_of(record), []).append(entry)
    return Table(
        columns=tuple(columns),
        rows=tuple(
            Row(client, tuple(tuple(cells[client].get(column, ())) for column in columns))
            for client in sorted(cells, key=_by_name)
        ),
    )


def _by_name(name: str) -> tuple[str, str]:
    return name.casefold(), name


def _last_without_fault(name: str) -> tuple[bool, str, str]:
    return name == WITHOUT_FAULT, *_by_name(name)
