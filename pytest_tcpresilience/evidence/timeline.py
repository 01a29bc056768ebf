"""Events on one clock, and how they read.

Owns the shape of an event and the sentence for each kind. Times are CLOCK_MONOTONIC
seconds, which the engine and the test process share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# What the kernel tells of a timer is whole ticks, of 10 ms on the slowest kernels (HZ=100).
TIMER_RESOLUTION_S = 0.010


@dataclass(frozen=True)
class Event:
    """Something that happened on a link.

    :param seq: counts up from 1 within the link; 0 for what the test process saw.
    :param at: CLOCK_MONOTONIC, seconds.
    :param kind: a key of :data:`SENTENCES`.
    :param fields: what else is known, by kind.
    """

    seq: int
    at: float
    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Event:
        rest = {key: value for key, value in document.items() if key not in ("seq", "at", "kind")}
        return cls(document["seq"], document["at"], document["kind"], rest)

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.fields.get(name, default)

    def describe(self) -> str:
        """One line for a reader."""
        sentence = SENTENCES.get(self.kind)
        text = sentence(self) if sentence else f"{self.kind} {dict(self.fields)}"
        number = self.get("connection")
        return f"connection {number}: {text}" if number else text


def _client_socket(event: Event) -> str:
    timer = event["timer"]
    if timer == "off":
        words = "no timer runs (SO_KEEPALIVE is off)"
    elif timer == "keepalive":
        words = f"keepalive timer, fires in {event['expires']:.2f} s"
    elif timer == "retransmit":
        words = f"{event['unacknowledged']} bytes unacknowledged, retransmission timer"
    elif timer == "persist":
        count = event["unacknowledged"]
        words = f"the peer's window is 0, {count} bytes wait, persist timer"
    else:
        words = f"{timer} timer"
    if event["state"] == "close-wait":
        words = "FIN received"
    return f"client's socket is {event['state']}: {words}"


def _closed(event: Event) -> str:
    by, code = event["by"], event.get("errno")
    if event["how"] == "timeout":
        return f"closed, no answer from the {by} any more ({code})"
    reason = f", {event['reason'].replace('_', ' ')}" if event.get("reason") else ""
    segment = {"fin": "FIN", "reset": "RST"}[event["how"]]
    return f"closed by the {by}{reason} ({code or segment})"


def _first_byte(event: Event) -> str:
    to = {"to_server": "client", "to_client": "upstream"}
    return f"first byte from the {to[event['direction']]}"


def gave_up(event: Event) -> bool:
    """Whether a client's kernel gave its connection up.

    An application that closes abruptly makes its socket vanish too. But the kernel gives up
    only when a timer runs out, and never before something has gone unanswered.
    """
    if event.kind != "client_gone" or event["state"] != "established":
        return False
    return bool(event["unanswered"] > 0 and event["overdue"] >= -TIMER_RESOLUTION_S)


def _gone(event: Event) -> str:
    count = event["unanswered"]
    if not gave_up(event):
        return "the client's socket is gone: it was reset, or the client closed it"
    return (
        f"the client's kernel gave the connection up (timer: {event['timer']}, {count} unanswered)"
    )


def _hit(event: Event) -> str:
    if event["connection"] == 0:
        return f"{event['type']} acts on whoever connects"
    name = event["type"]
    if event.get("direction", "both") != "both":
        name += f" ({event['direction']})"
    if "then" in event.fields:
        return (
            f"{name} forgot the flow ({event['then']}), {event['idle_for']:.2f} s after the "
            "last byte"
        )
    return f"{name} hit, {event['idle_for']:.2f} s after the last byte"


def _active(event: Event) -> str:
    if event["type"] in ("middlebox", "lose_close"):
        return f"{event['type']} waits for each connection's own moment"
    return f"{event['type']} acts on {event['connections']} connection(s)"


# The vocabulary of the engine's log, and of the test process's own entries.
SENTENCES: dict[str, Callable[[Event], str]] = {
    "opened": lambda e: f"opened by {e['client'][0]} port {e['client'][1]}",
    "connected": lambda e: "upstream answered",
    "upstream_failed": lambda e: f"upstream failed: {e['error']}; the client was reset",
    "accept_failed": lambda e: f"the engine cannot accept: {e['error']}",
    "internal_error": lambda e: f"the engine made a mistake: {e['error']}",
    "closed": _closed,
    "first_byte": _first_byte,
    "probe_seen": lambda e: f"keepalive probe {e['probes']} of the client was answered",
    "enabled": lambda e: "the link takes connections",
    "disabled": lambda e: "the link ends its connections and refuses new ones",
    "toxic_added": lambda e: f"{e['type']} armed",
    "toxic_removed": lambda e: f"{e['type']} lifted",
    "fault_hit": _hit,
    "fault_active": _active,
    "client_socket": _client_socket,
    "client_unanswered": lambda e: f"{e['timer']} {e['unanswered']} went unanswered",
    "client_gone": _gone,
    "client_closed": lambda e: "the application closed the client's socket",
    "ghost": lambda e: "the server still holds this connection",
    "witness_unavailable": lambda e: f"the client's socket cannot be followed: {e['error']}",
    "rescue_reset": lambda e: "rescue: RST on all connections of the link",
    "rescue_refuse": lambda e: "rescue: RST again, and new connections refused",
    "rescue_interrupt": lambda e: "rescue: the block was interrupted",
    "watch_ended": lambda e: "the block ended",
    "error": lambda e: f"the block raised {e['error']}",
    "marked": lambda e: "detection.mark() was called",
    "tried": lambda e: f"the operation failed: {e['error']}",
    "succeeded": lambda e: "the operation succeeded",
    "request": lambda e: f"the server got {e['data']} on its connection {e['on']}",
}


def merge(*logs: Iterable[Event]) -> tuple[Event, ...]:
    """Several logs as one, by time; within one moment as the engine numbered them."""
    return tuple(sorted((event for log in logs for event in log), key=lambda e: (e.at, e.seq)))


def render(events: Iterable[Event], origin: float, *, most: int | None = 25) -> str:
    """Aligned lines with seconds relative to ``origin``; the middle goes if they are many.

    :param most: lines to show; ``None`` for all.
    """
    rows = [f"{event.at - origin:+9.3f} s  {event.describe()}" for event in events]
    if most is not None and len(rows) > most:
        half = most // 2
        elided = f"{'':9}    … {len(rows) - 2 * half} more (pytest -vv shows them) …"
        rows = [*rows[:half], elided, *rows[-half:]]
    return "\n".join(rows)
