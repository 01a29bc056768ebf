"""A record's timeline as the steps of a ladder diagram: client, link and server.

Owns which event is an arrow and which is a note, in one table with a row for each kind of
event; a test fails when a kind has none. A step shows what the event says. Where an event only
implies a segment (that a connection was accepted implies its SYN), the step is marked as
inferred. Pure; how a step is drawn is :mod:`.drawing`'s and the templates'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import groupby, pairwise
from typing import Any

from pytest_tcpresilience.evidence.timeline import TIMER_RESOLUTION_S
from pytest_tcpresilience.faults import FAULTS
from pytest_tcpresilience.records.record import Happening, Record


class Side(str, Enum):
    """A lifeline, from left to right."""

    CLIENT = "client"
    LINK = "link"
    SERVER = "server"

    def __str__(self) -> str:
        return self.value


class Loss(str, Enum):
    """Which way went missing of a segment that nobody answered."""

    NONE = ""
    SEGMENT = "segment"
    ANSWER = "answer"
    """It arrived, and what came back did not."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Step:
    """One row of the diagram.

    :param at: seconds after the record's origin. :param until: of the last, where a run of
        alike steps was folded into one.
    :param text: the words on it.
    :param source: where an arrow begins, or where a note stands. :param target: where the
        arrow ends; ``None`` for a note.
    :param tone: ``"fault"``, ``"verdict"`` (the client's own), ``"rescue"``, ``"lifted"``,
        ``"end"`` (RST and FIN), or "" for the rest.
    :param inferred: no event tells the segment itself.
    :param lasting: from here on a fault is in force, until it is lifted.
    :param alike: what this has in common with others that may be folded with it; "" for none.
    :param count: how many were folded.
    """

    at: float
    text: str
    source: Side
    target: Side | None = None
    tone: str = ""
    loss: Loss = Loss.NONE
    inferred: bool = False
    lasting: bool = False
    connection: int = 0
    alike: str = ""
    until: float | None = None
    count: int = 1

    @property
    def words(self) -> str:
        return f"{self.text} (inferred)" if self.inferred else self.text


@dataclass
class Seen:
    """What the events so far have said, by connection; 0 stands for all of them."""

    loss: dict[int, Loss] = field(default_factory=dict)
    reset: set[int] = field(default_factory=set)
    refusing: bool = False

    def loss_of(self, connection: int) -> Loss:
        return self.loss.get(connection, Loss.SEGMENT)


Draw = Callable[[Happening, Seen], Iterable[Step]]
CLIENT, LINK, SERVER = Side.CLIENT, Side.LINK, Side.SERVER
# How many alike steps in a row are still shown one by one, and how many rows a diagram has.
FOLD_FROM = 5
MOST_STEPS = 120
# Intervals count as even when they differ by no more than this share of their mean: the
# kernel's timer wheel is late by one part in eight.
EVEN_SHARE = 0.3


# --- rows of the table --------------------------------------------------------------------


def _text(event: Happening) -> str:
    """Its own sentence, without the number that the diagram shows in another place."""
    return event.text.removeprefix(f"connection {event.connection}: ")


def _step(event: Happening, text: str, source: Side, target: Side | None = None) -> Step:
    return Step(event.at, text, source, target, connection=event.connection)


def _note(on: Side, tone: str = "") -> Draw:
    def draw(event: Happening, seen: Seen) -> Iterator[Step]:
        yield replace(_step(event, _text(event), on), tone=tone)

    return draw


def _arrow(source: Side, target: Side, text: str, *, inferred: bool = False) -> Draw:
    def draw(event: Happening, seen: Seen) -> Iterator[Step]:
        yield replace(_step(event, text, source, target), inferred=inferred)

    return draw


def _field(event: Happening, name: str) -> str:
    value = event.fields.get(name)
    return "" if value is None else str(value)


def _count(event: Happening, name: str) -> int:
    value = event.fields.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def _first_byte(event: Happening, seen: Seen) -> Iterator[Step]:
    if _field(event, "direction") == "to_client":
        yield _step(event, "first byte", SERVER, LINK)
    else:
        yield _step(event, "first byte", CLIENT, LINK)


def _probe_seen(event: Happening, seen: Seen) -> Iterator[Step]:
    came, last = _count(event, "seen") or 1, _count(event, "probes")
    if came > 1:
        text = f"{came} keepalive probes, answered"
    else:
        text = f"keepalive probe {last}, answered" if last else "keepalive probe, answered"
    step = _step(event, text, CLIENT, LINK)
    yield replace(step, alike="keepalive probes, each answered", count=came)


_RETRIED = {
    "keepalive": ("keepalive probe", "keepalive probes"),
    "retransmit": ("retransmission", "retransmissions"),
    "persist": ("window probe", "window probes"),
}


def _unanswered(event: Happening, seen: Seen) -> Iterator[Step]:
    timer, number = _field(event, "timer"), _count(event, "unanswered")
    one, many = _RETRIED.get(timer, ("segment", "segments"))
    text = f"{one} {number} unanswered" if number else f"{one} unanswered"
    loss = seen.loss_of(event.connection)
    yield replace(_step(event, text, CLIENT, LINK), loss=loss, alike=f"{many}, none answered")


def _fault_hit(event: Happening, seen: Seen) -> Iterator[Step]:
    back = _field(event, "direction") == "to_client" or "drop_inbound" in (
        _field(event, "then") or _field(event, "type")
    )
    seen.loss[event.connection] = Loss.ANSWER if back else Loss.SEGMENT
    name = _field(event, "type")
    seen.refusing |= name == "refuse_connections"
    row = FAULTS.get(name)
    lasting = row is None or not row.once
    yield replace(_step(event, _text(event), LINK), tone="fault", lasting=lasting)


def _toxic_removed(event: Happening, seen: Seen) -> Iterator[Step]:
    seen.refusing &= _field(event, "type") != "refuse_connections"
    yield replace(_step(event, _text(event), LINK), tone="lifted")


# Who ended a connection, and what the client or the link then got to see of it.
_WAYS: Mapping[str, tuple[Side, Side]] = {
    "client": (CLIENT, LINK),
    "upstream": (SERVER, LINK),
    "fault": (LINK, CLIENT),
    "engine": (LINK, CLIENT),
}
_SEGMENTS = {"fin": "FIN", "reset": "RST"}


def _closed(event: Happening, seen: Seen) -> Iterator[Step]:
    by, how = _field(event, "by"), _field(event, "how")
    if by not in _WAYS or how not in _SEGMENTS:  # a kernel got no answer: no segment at all
        yield replace(_step(event, _text(event), LINK), tone="end")
        return
    why = _field(event, "reason").replace("_", " ") or _field(event, "errno")
    source, target = _WAYS[by]
    if how == "reset":
        seen.reset.add(event.connection)
    text = _SEGMENTS[how] + (f" ({why})" if why else "")
    yield replace(_step(event, text, source, target), tone="rescue" if why == "rescue" else "end")


def _upstream_failed(event: Happening, seen: Seen) -> Iterator[Step]:
    refused = replace(_step(event, "SYN", LINK, SERVER), loss=Loss.SEGMENT, inferred=True)
    yield refused
    yield replace(_step(event, _text(event), SERVER), tone="fault")


def _rescue(event: Happening, seen: Seen) -> Iterator[Step]:
    seen.reset.add(0)
    yield replace(_step(event, _text(event), LINK), tone="rescue")


def _gone(event: Happening, seen: Seen) -> Iterator[Step]:
    overdue = event.fields.get("overdue")
    ran_out = isinstance(overdue, (int, float)) and overdue >= -TIMER_RESOLUTION_S
    tone = "verdict" if _count(event, "unanswered") and ran_out else ""
    yield replace(_step(event, _text(event), CLIENT), tone=tone)


_SAYS_RESET = ("ECONNRESET", "reset by peer", "Errno 104", "(104,")
_SAYS_REFUSED = ("ECONNREFUSED", "refused", "Errno 111", "(111,")


def _failed(event: Happening, seen: Seen) -> Iterator[Step]:
    """An exception: the segment behind it is shown if no event has told of it."""
    error = _field(event, "error")
    if seen.refusing and any(sign in error for sign in _SAYS_REFUSED):
        yield replace(_step(event, "SYN", CLIENT, LINK), inferred=True)
        answer = _step(event, "RST: refused", LINK, CLIENT)
        yield replace(answer, inferred=True, tone="end")
    elif not seen.reset and any(sign in error for sign in _SAYS_RESET):
        yield replace(_step(event, "RST", LINK, CLIENT), inferred=True, tone="end")
    yield replace(_step(event, _text(event), CLIENT), tone="verdict")


ROWS: Mapping[str, Draw] = {
    "opened": _arrow(CLIENT, LINK, "SYN: opened", inferred=True),
    "connected": _arrow(LINK, SERVER, "SYN: connected", inferred=True),
    "first_byte": _first_byte,
    "probe_seen": _probe_seen,
    "upstream_failed": _upstream_failed,
    "closed": _closed,
    "enabled": _note(LINK),
    "disabled": _note(LINK),
    "toxic_added": _note(LINK),
    "fault_hit": _fault_hit,
    "fault_active": _note(LINK),
    "toxic_removed": _toxic_removed,
    "client_socket": _note(CLIENT),
    "client_unanswered": _unanswered,
    "client_gone": _gone,
    "client_closed": _note(CLIENT),
    "ghost": _note(SERVER),
    "witness_unavailable": _note(CLIENT),
    "rescue_reset": _rescue,
    "rescue_refuse": _rescue,
    "watch_ended": _note(CLIENT),
    "accept_failed": _note(LINK, "fault"),
    "internal_error": _note(LINK, "fault"),
    "rescue_interrupt": _note(CLIENT, "rescue"),
    "error": _failed,
    "marked": _note(CLIENT, "verdict"),
    "tried": _failed,
    "succeeded": _note(CLIENT, "verdict"),
    "request": _note(SERVER),
}
# A later version may write kinds of its own.
_UNKNOWN = _note(LINK)


# --- the ladder ---------------------------------------------------------------------------


def steps_of(record: Record, *, most: int = MOST_STEPS) -> tuple[Step, ...]:
    """The diagram of a record, from above.

    :param most: rows; the middle goes if they are more, and a note says so.
    """
    seen = Seen()
    told = _without_repeats(record.timeline)
    steps = [step for event in told for step in ROWS.get(event.kind, _UNKNOWN)(event, seen)]
    numbers = {step.connection for step in steps} - {0}
    if len(numbers) > 1:
        steps = [_numbered(step) for step in steps]
    return _shortened(_folded(steps), most, record.left_out)


def _without_repeats(events: Sequence[Happening]) -> Iterator[Happening]:
    """A fault that has told of each connection that it hit says no more by its sum."""
    told: set[Any] = set()
    for event in events:
        if event.kind == "fault_hit":
            told.add(_field(event, "toxic"))
        elif event.kind == "fault_active" and _field(event, "toxic") in told:
            continue
        yield event


def _numbered(step: Step) -> Step:
    if not step.connection:
        return step
    alike = f"{step.alike} (connection {step.connection})" if step.alike else ""
    return replace(step, text=f"{step.connection}: {step.text}", alike=alike)


def _folded(steps: Sequence[Step]) -> list[Step]:
    """Runs of alike steps become one each, with their number and spacing."""
    folded: list[Step] = []
    for (alike, _), group in groupby(steps, key=lambda step: (step.alike, step.loss)):
        run = list(group)
        if alike and len(run) >= FOLD_FROM:
            folded.append(_fold(run))
        else:
            folded += run
    return folded


def _fold(run: Sequence[Step]) -> Step:
    count = sum(step.count for step in run)
    text = f"{count} {run[0].alike}"
    if count == len(run):  # else some came between two looks, and nobody knows when
        text += f", {_spacing([step.at for step in run])} apart"
    return replace(run[0], text=text, until=run[-1].at, count=count)


def _spacing(times: Sequence[float]) -> str:
    between = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(between) / len(between)
    if max(between) - min(between) <= EVEN_SHARE * mean:
        return f"{mean:.2f} s"
    return f"{min(between):.2f} s to {max(between):.2f} s"


def _shortened(steps: Sequence[Step], most: int, left_out: int) -> tuple[Step, ...]:
    """Events that the record has left out are missing in its middle, too."""
    if len(steps) <= most and not left_out:
        return tuple(steps)
    half = min(most, len(steps)) // 2
    missing = max(len(steps) - 2 * half, 0) if len(steps) > most else 0
    tail = steps[len(steps) - half :] if missing else steps[half:]
    parts = [f"{missing} more steps" if missing else "", f"{left_out} events not kept"]
    said = " and ".join(part for part in parts[: 2 if left_out else 1] if part)
    at = tail[0].at if tail else 0.0
    return (*steps[:half], Step(at, f"… {said} …", LINK), *tail)
