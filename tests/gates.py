"""Records, entries and documents by hand, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from pytest_tcpresilience.records.record import Failure, Promised, Record, Settings
from pytest_tcpresilience.report.contract import Contract, Entry
from pytest_tcpresilience.report.document import Document, State, ordered

TEST = "tests/test_pool.py::test_idle"
ON = Settings(enabled=True, idle=1, interval=1, probes=2, user_timeout_ms=0)
OFF = Settings(enabled=False, idle=7200, interval=75, probes=9, user_timeout_ms=0)
TIMED_OUT = Failure("TimeoutError", "[Errno 110] Connection timed out", "ETIMEDOUT")


def record(test: str = TEST, entry: str = "detects_break", **changed: Any) -> Record:
    """A client that noticed a silent drop by keepalive, but for what is given."""
    values: dict[str, Any] = {
        "expectation": "detects_break",
        "outcome": "noticed",
        "passed": True,
        "client": "pool",
        "fault": "silent_drop",
        "mechanism": "keepalive",
        "after": 3.01,
        "error": TIMED_OUT,
        "settings": ON,
        "promised": Promised(2.68, 3.0, 3.54),
        "libraries": {"redis": "5.0.1"},
    }
    return Record(test=test, entry=entry, **{**values, **changed})


def hung(test: str = TEST, **changed: Any) -> Record:
    """The same client without keepalive: it had to be woken."""
    values: dict[str, Any] = {
        "outcome": "rescued",
        "passed": False,
        "blame": "client",
        "mechanism": "",
        "after": None,
        "error": Failure("ConnectionResetError", "[Errno 104]", "ECONNRESET"),
        "settings": OFF,
    }
    return record(test, **{**values, **changed})


def document(*records: Record, **changed: Any) -> Document:
    """A run of everything that has made these records."""
    values: dict[str, Any] = {
        "tests": {each.test: State.RAN for each in records},
        "asked": ("",),
        **changed,
    }
    return Document(records=ordered(records), **values)


def contract(*records: Record, project: str = "") -> Contract:
    """That says what these records say."""
    return Contract({record.key: Entry.of(record) for record in records}, project)
