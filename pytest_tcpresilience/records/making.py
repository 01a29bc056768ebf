"""How a record is made from what was seen. Pure.

Owns which part of an observation goes into which field. Who the test and its client are is
:mod:`.journal`'s to add.
"""

from __future__ import annotations

import errno as errnos
from collections.abc import Iterable

from pytest_tcpresilience.evidence import causes
from pytest_tcpresilience.evidence.diagnosis import Cause
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.evidence.verdict import Observation
from pytest_tcpresilience.records.record import (
    Failure,
    Happening,
    Promised,
    Reason,
    Record,
    Settings,
)
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.windows import Window

# Events that a record keeps of a timeline, half from each end. A client that reconnects in a
# storm makes thousands, and its report is read by people.
MOST_EVENTS = 200
# Of an exception's text. Some libraries put whole responses into it.
MOST_TEXT = 2000

# What is kept besides ``at``, ``kind`` and ``connection``, which have fields of their own.
_OWN = frozenset({"seq", "at", "kind", "connection"})


def settings_of(keepalive: Keepalive | None) -> Settings | None:
    if keepalive is None:
        return None
    return Settings(
        enabled=keepalive.enabled,
        idle=keepalive.idle,
        interval=keepalive.interval,
        probes=keepalive.probes,
        user_timeout_ms=keepalive.user_timeout_ms,
    )


def promised_of(window: Window) -> Promised:
    """The window, each of its parts as a sentence with its seconds."""
    parts = [f"{part.label}: {part.reason} ({part.seconds:.2f} s)" for part in window.parts]
    parts += [f"{part.label}: {part.reason} ({part.seconds:+.2f} s)" for part in window.slacks]
    return Promised(window.earliest, window.nominal, window.latest, tuple(parts))


def failure_of(error: BaseException | None) -> Failure | None:
    """The exception by name and text, with the errno that it carries or wraps."""
    if error is None:
        return None
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else _full_name(kind)
    code = causes.facts(error).code
    text = causes.text_of(error)
    if len(text) > MOST_TEXT:
        text = f"{text[:MOST_TEXT]}… ({len(text) - MOST_TEXT} characters more)"
    return Failure(name, text, "" if code is None else errnos.errorcode.get(code, str(code)))


def _full_name(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def reason_of(cause: Cause | None) -> Reason | None:
    return None if cause is None else Reason(cause.name, cause.why, cause.cure)


def happenings_of(events: Iterable[Event], origin: float) -> tuple[tuple[Happening, ...], int]:
    """The timeline relative to ``origin``, and how many events its middle had more."""
    all_of_it = [
        Happening(
            at=event.at - origin,
            kind=event.kind,
            text=event.describe(),
            connection=int(event.get("connection") or 0),
            fields={name: value for name, value in event.fields.items() if name not in _OWN},
        )
        for event in events
    ]
    left_out = len(all_of_it) - MOST_EVENTS
    if left_out <= 0:
        return tuple(all_of_it), 0
    half = MOST_EVENTS // 2
    return tuple(all_of_it[:half] + all_of_it[-half:]), left_out


def fault_of(hit: Event | None) -> str:
    """What was done, as a person would name it: ``silent_drop (to_server)``."""
    if hit is None:
        return ""
    words = [
        str(hit[name])
        for name in ("direction", "side", "then")
        if hit.get(name, "both") != "both" and not str(hit["type"]).endswith(str(hit[name]))
    ]
    return f"{hit['type']} ({', '.join(words)})" if words else str(hit["type"])


def activity_of(seen: Observation) -> str:
    """What the client was doing when the fault hit, as far as its socket tells.

    ``"connecting"``, ``"writing"`` with data unacknowledged, else ``"idle"``; "" when nothing
    hit.
    """
    if seen.hit is None:
        return ""
    if seen.hit["connection"] == 0:
        return "connecting"
    number = seen.hit["connection"]
    outstanding = any(
        event.get("unacknowledged", 0) > 0 and event.get("timer") in ("retransmit", "persist")
        for event in seen.events
        if event.get("connection") == number and event.at >= seen.hit.at
    )
    return "writing" if outstanding else "idle"


def record_of(
    expectation: str,
    outcome: str,
    seen: Observation,
    *,
    error: BaseException | None,
    client: Keepalive | None,
    expected: str,
) -> Record:
    """What every expectation has in common.

    :param error: what left the block. :param client: the settings of its socket.
    """
    hit = seen.hit
    begun_at = seen.events[0].at if seen.events else 0.0
    timeline, left_out = happenings_of(seen.events, hit.at if hit else begun_at)
    return Record(
        test="",
        entry="",
        expectation=expectation,
        outcome=outcome,
        passed=True,
        fault=fault_of(hit),
        effect=seen.effect if hit else "",
        activity=activity_of(seen),
        error=failure_of(error),
        settings=settings_of(client),
        promised=promised_of(seen.window),
        expected=expected,
        origin="fault" if hit else "block",
        timeline=timeline,
        left_out=left_out,
    )
