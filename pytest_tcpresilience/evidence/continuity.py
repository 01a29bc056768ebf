"""Did the same connection go on, did nothing happen where nothing should, did teardown end?

Owns the outcomes of ``survives``, ``stays_quiet`` and ``closes_within``, the order in which
they are tried, and their words. Pure, as :mod:`.recovery` is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.evidence.units import bytes_were, duration
from pytest_tcpresilience.evidence.verdict import Mechanism, Observation, mechanism
from pytest_tcpresilience.evidence.wording import Words

ENDS = ("closed", "client_gone", "client_closed")


class Outcome(str, Enum):
    """What one of the three came to."""

    FINE = "fine"
    NEVER_BROKEN = "never_broken"
    NOT_CONNECTED = "not_connected"
    FAULTY = "faulty"
    ENDED_EARLY = "ended_early"
    STILL_WAITING = "still_waiting"
    RAISED = "raised"
    CLOSED = "closed"
    RECONNECTED = "reconnected"
    BYTES_LOST = "bytes_lost"
    STILL_OPEN = "still_open"
    TOO_LATE = "too_late"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Gap:
    """Bytes that one side has sent and the other has not been sent.

    :param connection: the link's count.
    :param direction: ``"to the server"`` or ``"to the client"``.
    """

    connection: int
    direction: str
    count: int


@dataclass(frozen=True)
class Continuity:
    """All that is known when the block has ended.

    :param seen: what every block knows. ``noticed_at`` and ``error`` are the block's own.
    :param asked: ``"survives"``, ``"stays_quiet"`` or ``"closes_within"``.
    :param since: from when the time counts.
    :param within: seconds: the limit, or for ``stays_quiet`` the time to be quiet for.
    :param faulty: the name of a fault that is in force, or the last one that hit.
    :param gaps: bytes on their way when the block, and some grace, were over.
    :param held: connections whose client's socket the application still holds.
    """

    seen: Observation
    asked: str
    since: float
    within: float
    faulty: str | None
    gaps: tuple[Gap, ...] = ()
    held: tuple[int, ...] = ()

    @property
    def time(self) -> float:
        """Seconds to the end of the block."""
        return max(self.seen.ended_at - self.since, 0.0)

    @property
    def opened(self) -> tuple[Event, ...]:
        """Connections that were opened in the block, or since the fault."""
        return self._after("opened")

    @property
    def ended(self) -> tuple[Event, ...]:
        """Connections that ended in the block, or since the fault, and are older than that."""
        new = {event["connection"] for event in self.opened}
        return tuple(event for event in self._after(*ENDS) if event["connection"] not in new)

    def _after(self, *kinds: str) -> tuple[Event, ...]:
        begun = self.since
        if self.asked == "survives" and self.seen.hit is not None:
            begun = min(begun, self.seen.hit.at)
        # Not the end of the block: the engine hears of its last doings a little later.
        limit = self.seen.rescued_at if self.seen.rescued_at is not None else float("inf")
        return tuple(
            event for event in self.seen.events if event.kind in kinds and begun <= event.at < limit
        )


def survived(case: Continuity) -> Outcome:
    """The same connections, and every byte: the first row that applies."""
    if case.seen.hit is None or not case.seen.hit["connection"]:
        return Outcome.NEVER_BROKEN
    if case.seen.rescued_at is not None and not case.seen.noticed_at_all:
        return Outcome.STILL_WAITING
    if case.seen.error is not None:
        return Outcome.RAISED
    if case.ended:
        return Outcome.CLOSED
    if case.opened:
        return Outcome.RECONNECTED
    if case.gaps:
        return Outcome.BYTES_LOST
    return Outcome.TOO_LATE if case.time > case.within else Outcome.FINE


def quiet(case: Continuity) -> Outcome:
    """Nothing happens on a healthy idle link: the first row that applies."""
    if case.faulty is not None:
        return Outcome.FAULTY
    if not any(event.kind == "opened" for event in case.seen.events):
        return Outcome.NOT_CONNECTED
    if case.seen.error is not None and case.seen.noticed_at_all:
        return Outcome.RAISED
    if case.ended:
        return Outcome.CLOSED
    if case.opened:
        return Outcome.RECONNECTED
    over = case.seen.rescued_at is not None or case.time >= case.within
    return Outcome.FINE if over else Outcome.ENDED_EARLY


def closed(case: Continuity) -> Outcome:
    """Teardown ends while the link is dead: the first row that applies."""
    if case.faulty is None:
        return Outcome.NEVER_BROKEN
    if case.seen.rescued_at is not None and not case.seen.noticed_at_all:
        return Outcome.STILL_WAITING
    if case.time > case.within:
        return Outcome.TOO_LATE
    if case.seen.error is not None:
        return Outcome.RAISED
    return Outcome.STILL_OPEN if case.held else Outcome.FINE


JUDGES = {"survives": survived, "stays_quiet": quiet, "closes_within": closed}


def judge(case: Continuity) -> Outcome:
    return JUDGES[case.asked](case)


# --- words --------------------------------------------------------------------------------


def _error(case: Continuity) -> str:
    return case.seen.error.name if case.seen.error else "an error"


def _which(events: tuple[Event, ...]) -> str:
    return ", ".join(dict.fromkeys(f"connection {event['connection']}" for event in events))


def _survives_raised(case: Continuity) -> Words:
    return Words(
        "client",
        f"the client did not survive the {case.seen.fault}: the operation failed",
        _error(case),
        "make the client's timers longer than the outage that it should survive",
    )


def _survives_closed(case: Continuity) -> Words:
    since = duration(max(case.ended[0].at - case.since, 0.0))
    return Words(
        "client",
        f"the client did not survive the {case.seen.fault}: {_which(case.ended)} ended",
        f"the first end came {since} into it",
        "make the client's timers longer than the outage that it should survive",
    )


def _survives_reconnected(case: Continuity) -> Words:
    return Words(
        "client",
        f"the client did not go on on its connection: it opened {_which(case.opened)}",
        "the old connection could have carried on",
        "make the client's timers longer than the outage, or use recovers(link, within=...)",
    )


def _bytes_lost(case: Continuity) -> Words:
    rows = "; ".join(
        f"connection {gap.connection}: {bytes_were(gap.count)} not carried {gap.direction}"
        for gap in case.gaps
    )
    return Words(
        "client",
        "not every byte arrived",
        rows,
        "look for a side that has stopped reading, or a toxic that drops data",
    )


def _still_waiting(case: Continuity) -> Words:
    what = {
        "survives": f"the client did not go on after the {case.seen.fault}",
        "closes_within": "teardown did not end while the link was dead",
    }[case.asked]
    waited = duration(max((case.seen.rescued_at or case.since) - case.since, 0.0))
    return Words(
        "client",
        what,
        f"it was still waiting after {waited} and had to be woken",
        {
            "survives": "have the client wait for longer than the outage, and no longer",
            "closes_within": "bound what teardown waits for: a goodbye that needs an answer, a "
            "join, a drain. A dead peer answers nothing",
        }[case.asked],
    )


def _too_late(case: Continuity) -> Words:
    what = {
        "survives": f"the client went on too late after the {case.seen.fault}",
        "closes_within": "teardown took too long while the link was dead",
    }[case.asked]
    return Words(
        "client",
        what,
        f"it took {duration(case.time)}",
        "bound what the client waits for, or give it more time",
    )


def _nothing_broke(case: Continuity) -> Words:
    what = {
        "survives": "there was nothing to survive",
        "closes_within": "the link was not dead",
    }[case.asked]
    return Words(
        "test",
        what,
        "no fault was in force on a connection of this link",
        "call one of the link's faults first, while the client is connected",
    )


def _closes_raised(case: Continuity) -> Words:
    return Words(
        "client",
        "teardown raised while the link was dead",
        f"{_error(case)}, after {duration(case.time)}",
        "have the client swallow what goes wrong while it closes a dead connection, or catch it "
        "in the block if that is fine",
    )


def _still_open(case: Continuity) -> Words:
    numbers = ", ".join(f"connection {number}" for number in case.held)
    return Words(
        "client",
        "teardown ended, and the application still holds its socket",
        f"{numbers}: the descriptor is open",
        "close the socket also when the goodbye fails; a socket left to the garbage collector "
        "is a leak",
    )


def _quiet_raised(case: Continuity) -> Words:
    own = ""
    if mechanism(case.seen) is Mechanism.OWN_TIMEOUT:
        own = (
            "\nwhy: the client's own timeout is shorter than it may have to wait on a healthy idle "
            "connection"
        )
    return Words(
        "client",
        f"a false alarm on a healthy idle link, after {duration(case.time)}",
        _error(case) + own,
        "make the client's read timeout longer than its longest wait, or have it take a timeout "
        "on an idle connection for no error",
    )


def _quiet_closed(case: Continuity) -> Words:
    since = duration(case.ended[0].at - case.since)
    return Words(
        "client",
        f"a healthy idle link did not stay up: {_which(case.ended)} ended after {since}",
        case.ended[0].describe(),
        "look for an idle timeout: of the client, of its pool, or of the upstream",
    )


def _quiet_reconnected(case: Continuity) -> Words:
    since = duration(case.opened[0].at - case.since)
    return Words(
        "client",
        f"the client opened {_which(case.opened)} on a healthy idle link, after {since}",
        "nothing was wrong with the connections that it had",
        "look for a timeout or a health check that gives healthy connections up",
    )


def _faulty(case: Continuity) -> Words:
    return Words(
        "test",
        "the link was not healthy",
        f"{case.faulty} was in force, or hit in the block",
        "lift the faults of the link first: a false alarm needs a healthy one",
    )


def _not_connected(case: Continuity) -> Words:
    return Words(
        "test",
        "no connection was there to stay quiet",
        "no client has connected through this link",
        "connect to link.host and link.port before the block",
    )


def _ended_early(case: Continuity) -> Words:
    return Words(
        "test",
        "the block ended before its time was over",
        f"it ran for {duration(case.time)} of {duration(case.within)}",
        "wait in the block: let the client read, or call quiet.wait() (await quiet.sleep() in "
        "an event loop)",
    )


WORDS = {
    ("survives", Outcome.NEVER_BROKEN): _nothing_broke,
    ("survives", Outcome.STILL_WAITING): _still_waiting,
    ("survives", Outcome.RAISED): _survives_raised,
    ("survives", Outcome.CLOSED): _survives_closed,
    ("survives", Outcome.RECONNECTED): _survives_reconnected,
    ("survives", Outcome.BYTES_LOST): _bytes_lost,
    ("survives", Outcome.TOO_LATE): _too_late,
    ("stays_quiet", Outcome.FAULTY): _faulty,
    ("stays_quiet", Outcome.NOT_CONNECTED): _not_connected,
    ("stays_quiet", Outcome.RAISED): _quiet_raised,
    ("stays_quiet", Outcome.CLOSED): _quiet_closed,
    ("stays_quiet", Outcome.RECONNECTED): _quiet_reconnected,
    ("stays_quiet", Outcome.ENDED_EARLY): _ended_early,
    ("closes_within", Outcome.NEVER_BROKEN): _nothing_broke,
    ("closes_within", Outcome.STILL_WAITING): _still_waiting,
    ("closes_within", Outcome.TOO_LATE): _too_late,
    ("closes_within", Outcome.RAISED): _closes_raised,
    ("closes_within", Outcome.STILL_OPEN): _still_open,
}
