"""Did the client notice, by what, and in time? One pure function decides.

Owns the outcomes, the mechanisms and the order in which they are tried. The words for a
reader are :mod:`.wording`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from pytest_tcpresilience.evidence import causes
from pytest_tcpresilience.evidence.causes import ErrorFacts
from pytest_tcpresilience.evidence.health import Health
from pytest_tcpresilience.evidence.timeline import TIMER_RESOLUTION_S, Event, gave_up
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.windows import Window

if TYPE_CHECKING:
    from pytest_tcpresilience.tcp.middleboxes import Middlebox

# Faults by the segment with which the client's kernel hears of them. It can then notice
# sooner than by any timer: at once, or, after an eviction, with its next segment.
TELLS_RST = frozenset({"reset", "evict_reset", "evict_reset_both"})
TELLS_FIN = frozenset({"hang_up", "time_out", "evict_fin"})
TOLD = TELLS_RST | TELLS_FIN | {"refuse_connections"}
# Of these the client's kernel hears nothing at all, now or later.
NOTHING_TO_NOTICE = frozenset({"lose_close"})


class Mechanism(str, Enum):
    """By what the client noticed."""

    KEEPALIVE = "keepalive"
    USER_TIMEOUT = "user_timeout"
    RETRANSMISSION_LIMIT = "retransmission_limit"
    KERNEL_TIMEOUT = "kernel_timeout"
    """The kernel's verdict, but no witness saw which timer it was."""
    RESET = "reset"
    FIN = "fin"
    REFUSED = "refused"
    OWN_TIMEOUT = "own_timeout"
    """A timer of the client library or the application."""
    APPLICATION = "application"
    """Anything else: a heartbeat, or ``detection.mark()``."""

    def __str__(self) -> str:
        return self.value


class Outcome(str, Enum):
    """What a wait for a detection came to."""

    NOTICED = "noticed"
    UNAWARE = "unaware"
    RESCUED = "rescued"
    BEFORE_FAULT = "before_fault"
    TOO_EARLY = "too_early"
    TOO_LATE = "too_late"
    WRONG_ERROR = "wrong_error"
    NOT_CONNECTED = "not_connected"
    NEVER_HIT = "never_hit"
    NOT_THE_CLIENTS = "not_the_clients"
    """What hit is nothing that a client could notice."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Observation:
    """All that is known when the block has ended. Times are CLOCK_MONOTONIC seconds.

    :param events: the link's, by time.
    :param hit: the first ``fault_hit`` that the block could notice.
    :param noticed_at: when the exception left the block, or ``mark()`` was called.
    :param error: what the exception says; ``None`` when there was none.
    :param expected_error: whether it is one that ``raises=`` allows.
    :param rescued_at: when the rescue began.
    :param window: relative to the hit.
    :param retries2: ``net.ipv4.tcp_retries2`` of this network namespace.
    :param ended_at: when the block had ended.
    :param promise: the settings that the test promises, if it gave settings.
    :param client: the settings of the client's socket that was hit first, where they could
        be read.
    :param health: of the client's process while the block ran.
    :param middlebox: the one that the link has, if any.
    """

    events: tuple[Event, ...]
    hit: Event | None
    noticed_at: float | None
    error: ErrorFacts | None
    expected_error: bool
    rescued_at: float | None
    window: Window
    retries2: int = 15
    ended_at: float = float("inf")
    promise: Keepalive | None = None
    client: Keepalive | None = None
    health: Health | None = None
    middlebox: Middlebox | None = None

    @property
    def noticed_at_all(self) -> bool:
        """Whether the client noticed before it was rescued."""
        if self.noticed_at is None:
            return False
        return self.rescued_at is None or self.noticed_at < self.rescued_at

    @property
    def idle_timeout(self) -> float | None:
        """Seconds without a segment after which a middlebox forgot the flow.

        That is the link's middlebox, or an eviction scheduled with ``when_idle=``.
        """
        if not self.fault.startswith(("evict_", "middlebox")):
            return None
        if self.middlebox is not None:
            return self.middlebox.idle_timeout
        for event in self.events:
            armed = event.kind == "toxic_added" and self.hit and event["toxic"] == self.hit["toxic"]
            seconds = event.get("when_idle") or event.get("idle_timeout")
            if armed and seconds:
                return float(seconds)
        return None

    @property
    def after(self) -> float | None:
        """Seconds from the hit to the detection."""
        if self.hit is None or self.noticed_at is None:
            return None
        return self.noticed_at - self.hit.at

    @property
    def fault(self) -> str:
        return str(self.hit["type"]) if self.hit else "the fault"

    @property
    def effect(self) -> str:
        """The fault that the client met: what a middlebox does is an eviction."""
        if self.hit is not None and self.fault == "middlebox":
            return f"evict_{self.hit['then']}"
        return self.fault


def find_hit(
    events: tuple[Event, ...], *, judged: int, begun: int, once: frozenset[str]
) -> Event | None:
    """The first hit that a block could notice.

    :param judged: number of the last event that an earlier block has judged.
    :param begun: number of the last event before the block.
    :param once: fault types that act once and then are over. One of them counts for one
        block; a fault that lasts counts for every block until it is lifted.
    """
    lifted = {
        event["toxic"] for event in events if event.kind == "toxic_removed" and event.seq <= begun
    }
    for event in events:
        if event.kind != "fault_hit" or event["type"] in NOTHING_TO_NOTICE:
            continue
        still_news = event.seq > judged if event["type"] in once else event["toxic"] not in lifted
        if event.seq > begun or still_news:
            return event
    return None


def broken_at(events: Sequence[Event], begun: int) -> float | None:
    """When the break came that a block recovers from: in it, or the last one before it.

    :param begun: number of the last event before the block.
    """
    hits = [event for event in events if event.kind == "fault_hit"]
    inside = [event for event in hits if event.seq > begun]
    if inside:
        return inside[0].at
    return min((e.at for e in hits if e["toxic"] == hits[-1]["toxic"]), default=None)


def calm_since(events: Sequence[Event], begun_at: float, until: float) -> float:
    """Since when a recovery's time counts: what came last up to ``until``.

    The beginning of the block, the hit of a fault, or its lifting.
    """
    turns = [
        event.at
        for event in events
        if event.kind in ("fault_hit", "toxic_removed") and event.at <= until
    ]
    return max(begun_at, *turns, begun_at)


def in_force(events: Sequence[Event], *, begun: int, once: frozenset[str]) -> str | None:
    """The name of a fault that was in force in a block, or hit in it.

    :param begun: number of the last event before the block; a fault that acts once and
        did so before it is over.
    """
    lifted = {event["toxic"] for event in events if event.kind == "toxic_removed"}
    for event in events:
        if event.kind == "fault_hit":
            lasts = event["type"] not in once and event["toxic"] not in lifted
            if lasts or event.seq > begun:
                return str(event["type"])
    return None


def not_lifted(events: Sequence[Event]) -> str | None:
    """The name of the first fault that hit and was not undone, if there is one."""
    lifted = {event["toxic"] for event in events if event.kind == "toxic_removed"}
    for event in events:
        if event.kind == "fault_hit" and event["toxic"] not in lifted:
            return str(event["type"])
    return None


def unnoticeable(seen: Observation) -> str | None:
    """The last fault that hit or was armed, if it is one that no client can notice."""
    types = [e["type"] for e in seen.events if e.kind in ("toxic_added", "fault_hit")]
    return types[-1] if types and types[-1] in NOTHING_TO_NOTICE else None


def _gave_up_at_closed_window(event: Event) -> bool:
    """Or whether the application closed its socket at that moment: nothing goes unanswered
    at a closed window, so this wants another proof that the kernel did it."""
    vanished = event.kind == "client_gone" and event["state"] == "established"
    return vanished and event["timer"] == "persist"


def _witnessed_end(seen: Observation) -> Event | None:
    """The client's kernel giving up, if that is what the client noticed.

    With the kernel's errno in hand that is certain. Without it, the kernel's timer must
    have run out by then. That tells when the end came, and the witness only when it looked:
    on a busy machine later than the client.
    """
    certain = seen.error is not None and seen.error.code in causes.DEAD
    noticed_at = seen.noticed_at if seen.noticed_at is not None else float("inf")
    limit = float("inf") if certain else noticed_at + TIMER_RESOLUTION_S
    # What came before the fault is an earlier block's.
    begun = seen.hit.at if seen.hit else float("-inf")
    for event in seen.events:
        is_end = gave_up(event) or (certain and _gave_up_at_closed_window(event))
        if is_end and begun <= event.at and event.at - event["overdue"] <= limit:
            return event
    return None


def _by_timer(end: Event, retries2: int) -> Mechanism:
    # While a timer's handler runs, the kernel shows that timer as off. So a last look from
    # that moment is told by the data: keepalive does not run while any is unacknowledged.
    if end["timer"] == "keepalive" or (end["timer"] == "off" and not end["unacknowledged"]):
        return Mechanism.KEEPALIVE
    # Retransmission ends by the user timeout or by tcp_retries2, and only the latter
    # leaves that many retransmissions behind.
    limited = end["unanswered"] >= retries2
    return Mechanism.RETRANSMISSION_LIMIT if limited else Mechanism.USER_TIMEOUT


def mechanism(seen: Observation) -> Mechanism:
    """By what the client noticed, as far as the evidence goes.

    The kernel's errno comes first, then the client's own timeout, then the witness: a
    library that hides the errno cannot hide its socket.
    """
    error, end = seen.error, _witnessed_end(seen)
    by_witness = _by_timer(end, seen.retries2) if end else None
    code = error.code if error else None
    if code in causes.DEAD:
        return by_witness or Mechanism.KERNEL_TIMEOUT
    if code in causes.RESET:
        return Mechanism.RESET
    if code in causes.REFUSED:
        return Mechanism.REFUSED
    if error and error.own_timeout:
        return Mechanism.OWN_TIMEOUT
    if by_witness:
        return by_witness
    if seen.fault == "refuse_connections":
        return Mechanism.REFUSED
    if seen.effect in TELLS_RST:
        return Mechanism.RESET
    if seen.effect in TELLS_FIN or (error and error.end_of_stream):
        return Mechanism.FIN
    return Mechanism.APPLICATION


def _never_broken(seen: Observation) -> Outcome | None:
    """What there is to say when no fault hit."""
    if seen.hit is not None:
        return None
    if not any(event.kind == "opened" for event in seen.events):
        return Outcome.NOT_CONNECTED
    if unnoticeable(seen) is not None:
        return Outcome.NOT_THE_CLIENTS
    if seen.noticed_at is not None and seen.rescued_at is None:
        return Outcome.BEFORE_FAULT
    return Outcome.NEVER_HIT


def _too_early(seen: Observation, after: float) -> bool:
    if seen.effect in TOLD or after >= seen.window.earliest:
        return False
    # The retransmission path has no lower bound here: it begins with the client's own
    # write, which nobody has timed.
    by = mechanism(seen)
    return by not in (Mechanism.USER_TIMEOUT, Mechanism.RETRANSMISSION_LIMIT)


def judge(seen: Observation) -> Outcome:
    """The outcome: the first row that applies."""
    unbroken = _never_broken(seen)
    if unbroken is not None:
        return unbroken
    after = seen.after
    if seen.rescued_at is not None and not seen.noticed_at_all:
        return Outcome.RESCUED
    if after is None:
        return Outcome.UNAWARE
    if after < 0:
        return Outcome.BEFORE_FAULT
    if not seen.expected_error:
        return Outcome.WRONG_ERROR
    if after > seen.window.latest:
        return Outcome.TOO_LATE
    if _too_early(seen, after):
        return Outcome.TOO_EARLY
    return Outcome.NOTICED
