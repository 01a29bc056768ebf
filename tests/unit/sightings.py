"""Hand-made observations: what a block may have left behind, in one line each."""

from __future__ import annotations

import errno
from typing import Any

from pytest_tcpresilience import Window
from pytest_tcpresilience.evidence.causes import ErrorFacts
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.evidence.verdict import Observation

# The fault hits here, and all times below are relative to it.
HIT_AT = 1000.0
WINDOW = Window(nominal=3.0, earliest=2.98, latest=3.5)

OPENED: tuple[float, str, dict[str, Any]] = (
    -1.0,
    "opened",
    {"connection": 1, "client": ["127.0.0.1", 9]},
)
TIMED_OUT = ErrorFacts("TimeoutError: [Errno 110]", errno.ETIMEDOUT, False, False)
RESET = ErrorFacts("ConnectionResetError", errno.ECONNRESET, False, False)
REFUSED = ErrorFacts("ConnectionRefusedError", errno.ECONNREFUSED, False, False)
OWN_TIMEOUT = ErrorFacts("TimeoutError: timed out", None, True, False)
END = ErrorFacts("EOFError", None, False, True)
OTHER = ErrorFacts("LibraryError: lost", None, False, False)


def look(after: float, kind: str, **fields: Any) -> tuple[float, str, dict[str, Any]]:
    """The witness's look at the client's socket."""
    seen = {
        "connection": 1,
        "state": "established",
        "timer": "keepalive",
        "unanswered": 0,
        "unacknowledged": 0,
    }
    if kind == "client_gone":
        seen["overdue"] = 0.002
    else:
        seen["expires"] = 0.5
    return after, kind, {**seen, **fields}


def observation(
    *events: tuple[float, str, dict[str, Any]],
    fault: str | None = "silent_drop",
    noticed: float | None = None,
    error: ErrorFacts | None = None,
    expected_error: bool = True,
    rescued: float | None = None,
    window: Window = WINDOW,
    opened: bool = True,
    then: str = "drop",
    counts: str = "segments",
) -> Observation:
    """An observation whose times are relative to the hit.

    :param events: time, kind and fields.
    :param fault: what hit; ``None`` when nothing did.
    :param then: what a middlebox did, if that was the fault, and what it counts.
    """
    rows = [OPENED] if opened else []
    if fault is not None:
        hit: dict[str, Any] = {
            "connection": 1,
            "type": fault,
            "toxic": f"{fault}-1",
            "idle_for": 0.0,
        }
        if fault == "middlebox":
            hit.update(then=then, counts=counts)
        rows.append((0.0, "fault_hit", hit))
    rows = sorted([*rows, *events], key=lambda row: row[0])
    log = tuple(
        Event(seq, HIT_AT + after, kind, fields)
        for seq, (after, kind, fields) in enumerate(rows, start=1)
    )
    hits = [event for event in log if event.kind == "fault_hit"]
    return Observation(
        events=log,
        hit=hits[0] if hits and fault is not None else None,
        noticed_at=None if noticed is None else HIT_AT + noticed,
        error=error,
        expected_error=expected_error,
        rescued_at=None if rescued is None else HIT_AT + rescued,
        window=window,
    )
