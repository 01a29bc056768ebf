"""Records and texts for the tests of reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_tcpresilience.evidence.kinds import KINDS
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.records.record import Failure, Happening, Promised, Reason, Record
from pytest_tcpresilience.report.document import Document, State, ordered

# What tests are called, and what exceptions say, when nobody thinks of a report.
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a|b`c``d",
    "x;y#z\nnew line\r\nC->>L: injected",
    "\x1b[31mred\x1b[0m \x00 \x07 \x9b1m",
    "\ud800 lone",
    "end",
    "wrap: hello",
    "%%{init: {}}%% and %% comment",
    "```\n# head",
    "# h | - x",
    "1. one",
    "&lt;b&gt; &amp; \"q\" 'q'",
    "x" * 5000,
    "\u202eevil",
    "$a$ ![x](y) [l](javascript:alert(1)) *b* _i_ ~~s~~",
    "]]> --> {{ 7*7 }} {% x %}",
    "日本語" * 60,
    "",
    "\u2028line\u2029 \ufeff \uffff",
    "a\\|b",
    "]",
)


def record(**fields: Any) -> Record:
    given: dict[str, Any] = {
        "test": "test_it.py::test_it",
        "entry": f"{fields.get('client', '')} × {fields.get('fault', '')}",
        "expectation": "detects_break",
        "outcome": "noticed",
        "passed": True,
        "engine": "embedded",
    }
    return Record(**{**given, **fields})


def happened(at: float, kind: str, *, connection: int = 1, **fields: Any) -> Happening:
    """As an engine tells it, with the sentence that it gets."""
    event = Event(1, at, kind, {"connection": connection, **fields})
    return Happening(at, kind, event.describe(), connection, fields)


def unanswered(at: float, number: int, timer: str = "keepalive", **fields: Any) -> Happening:
    return happened(at, "client_unanswered", timer=timer, unanswered=number, **fields)


def hostile_document() -> Document:
    """Every text of every record is one of those, and every kind of event is there."""
    return Document(
        records=ordered(map(_hostile, range(len(HOSTILE)), HOSTILE)),
        project=HOSTILE[0],
        problems=HOSTILE,
        tests=dict.fromkeys(HOSTILE, State.CRASHED),
        asked=HOSTILE,
        versions={text: text for text in HOSTILE},
        deselected=HOSTILE,
        started="2026-01-05T02:11:09+00:00",
    )


def _hostile(number: int, text: str) -> Record:
    timeline = tuple(
        Happening(at / 3, kind, text, 1 + at % 2, _hostile_fields(text, at))
        for at, kind in enumerate([*KINDS, "a_kind_of_tomorrow"])
    )
    return record(
        test=f"test_it.py::test_it[{text}]",
        entry=text,
        outcome=text or "rescued",
        passed=bool(number % 2),
        client=text,
        fault=text[::-1],
        summary=text,
        advice=text,
        expected=text,
        activity=text,
        link=text,
        upstream=text,
        error=Failure(text, text, text),
        cause=Reason(text, text, text) if number % 3 else None,
        engine=text,
        versions={text: text},
        libraries={text: text},
        timeline=timeline,
        problem=text,
        promised=Promised(0.5, 1, 2, (text,)),
        left_out=number % 2,
    )


def _hostile_fields(text: str, number: int) -> Mapping[str, Any]:
    names = ("error", "type", "timer", "reason", "toxic", "direction", "errno", "then")
    return {**dict.fromkeys(names, text), "by": "client", "how": "reset", "unanswered": number}
