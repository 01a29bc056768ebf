"""Did the client recover, on a new connection, in time, and without damage?

Owns the outcomes of ``recovers``, the order in which they are tried, and their words.
Pure: what was seen goes in, an outcome and sentences come out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from pytest_tcpresilience.evidence.diagnosis import Cause, diagnose
from pytest_tcpresilience.evidence.units import duration, times
from pytest_tcpresilience.evidence.verdict import Observation
from pytest_tcpresilience.evidence.verdict import Outcome as Wait
from pytest_tcpresilience.evidence.wording import Words

# More new connections than this in STORM_S, on top of those that were broken, are a storm.
# A client that waits 0.1 s between attempts, or doubles its pause from there, stays below.
STORM = 10
STORM_S = 1.0


class Outcome(str, Enum):
    """What a recovery came to."""

    RECOVERED = "recovered"
    NEVER_BROKEN = "never_broken"
    STILL_WAITING = "still_waiting"
    RAISED = "raised"
    SAME_CONNECTION = "same_connection"
    FALSE_SUCCESS = "false_success"
    NOT_RESTORED = "not_restored"
    DUPLICATED = "duplicated"
    TOO_LATE = "too_late"
    STORM = "storm"
    TOO_MANY = "too_many"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Executed:
    """A request that the recording server has executed; times as everywhere."""

    at: float
    connection: int
    data: bytes


@dataclass(frozen=True)
class Recovery:
    """All that is known when the block has ended.

    :param seen: what every block knows. ``noticed_at`` and ``error`` are the failure's.
    :param broken_at: when the fault hit; ``None`` if none did.
    :param since: from when the time counts.
    :param succeeded_at: when the operation succeeded; ``None`` if it did not.
    :param within: seconds.
    :param most: new connections that the client may open; ``None`` for any number that is
        no storm.
    :param executed: since the fault or the block's beginning; ``None`` without a server.
    :param once: requests that must be executed once.
    :param unheard: messages that waited for a subscriber in vain.
    :param tries: how often the operation was tried and failed.
    """

    seen: Observation
    broken_at: float | None
    since: float
    succeeded_at: float | None
    within: float
    most: int | None = None
    executed: tuple[Executed, ...] | None = None
    once: tuple[bytes, ...] = ()
    unheard: tuple[bytes, ...] = ()
    tries: int = 0

    @property
    def time(self) -> float | None:
        """Seconds to the success."""
        return None if self.succeeded_at is None else max(self.succeeded_at - self.since, 0.0)

    @property
    def attempts(self) -> tuple[float, ...]:
        """When new connections were opened, up to the success or the rescue."""
        if self.broken_at is None:
            return ()
        limit = self.seen.rescued_at if self.seen.rescued_at is not None else float("inf")
        return tuple(
            event.at
            for event in self.seen.events
            if event.kind == "opened" and self.broken_at < event.at < limit
        )

    @property
    def spacing(self) -> tuple[float, ...]:
        """Seconds from each attempt to the next."""
        return tuple(later - earlier for earlier, later in itertools.pairwise(self.attempts))

    @property
    def broken(self) -> int:
        """How many connections the fault has hit."""
        return len({e["connection"] for e in self.seen.events if e.kind == "fault_hit"} - {0})

    @property
    def missing(self) -> tuple[bytes, ...]:
        """What should have been executed once, and was not executed."""
        done = [request.data for request in self.executed or ()]
        return tuple(wanted for wanted in self.once if wanted not in done)

    @property
    def repeated(self) -> tuple[bytes, ...]:
        """What should have been executed once, and was executed more often."""
        done = [request.data for request in self.executed or ()]
        return tuple(wanted for wanted in self.once if done.count(wanted) > 1)


def storm(attempts: Sequence[float], allowance: int) -> tuple[int, float] | None:
    """The densest stretch of attempts, if it is a storm: how many, in how many seconds.

    :param allowance: connections that were broken, and may come back at once.
    """
    worst: tuple[int, float] | None = None
    for first, begun in enumerate(attempts):
        within = [at for at in attempts[first:] if at - begun <= STORM_S]
        if len(within) > STORM + allowance and (worst is None or len(within) > worst[0]):
            worst = len(within), within[-1] - begun
    return worst


def _went_on(recovery: Recovery) -> bool:
    """Whether a connection that can carry the operation is there without a new one."""
    seen = recovery.seen
    opened = {e["connection"] for e in seen.events if e.kind == "opened"}
    closed = {e["connection"] for e in seen.events if e.kind == "closed"}
    lifted = {e["toxic"] for e in seen.events if e.kind == "toxic_removed"}
    dead = {
        e["connection"] for e in seen.events if e.kind == "fault_hit" and e["toxic"] not in lifted
    }
    return bool(opened - closed - dead)


def judge(recovery: Recovery) -> Outcome:
    """The outcome: the first row that applies."""
    seen = recovery.seen
    if recovery.broken_at is None:
        return Outcome.NEVER_BROKEN
    if recovery.succeeded_at is None:
        # An error that the rescue has caused is a wait that did not end by itself.
        return Outcome.RAISED if seen.noticed_at_all else Outcome.STILL_WAITING
    if not recovery.attempts:
        return Outcome.SAME_CONNECTION if _went_on(recovery) else Outcome.FALSE_SUCCESS
    if recovery.executed is not None and (recovery.missing or not recovery.executed):
        return Outcome.FALSE_SUCCESS
    return _damage(recovery) or Outcome.RECOVERED


def _damage(recovery: Recovery) -> Outcome | None:
    """What is wrong with an operation that has succeeded on a new connection."""
    if recovery.unheard:
        return Outcome.NOT_RESTORED
    if recovery.repeated:
        return Outcome.DUPLICATED
    if recovery.time is not None and recovery.time > recovery.within:
        return Outcome.TOO_LATE
    if recovery.most is not None:
        return Outcome.TOO_MANY if len(recovery.attempts) > recovery.most else None
    return Outcome.STORM if storm(recovery.attempts, recovery.broken) else None


# --- words --------------------------------------------------------------------------------


def connections(recovery: Recovery) -> str:
    """What the client did to come back, in one sentence."""
    count = len(recovery.attempts)
    if not count:
        return "it opened no new connection"
    gaps = recovery.spacing
    spacing = ""
    if gaps:
        spacing = f", {duration(min(gaps))} to {duration(max(gaps))} apart"
    return f"it opened {count} new connection{'s' if count > 1 else ''}{spacing}"


def _never_broken(recovery: Recovery) -> Words:
    return Words(
        "test",
        "there was nothing to recover from",
        "no fault has hit a connection of this link",
        "call one of the link's faults in the block or before it, while the client is connected",
    )


def _still_waiting(recovery: Recovery) -> Words:
    seen = recovery.seen
    waited = duration((seen.rescued_at or seen.ended_at) - recovery.since)
    if recovery.tries:
        how = f"all {recovery.tries} tries had failed after {waited}"
    else:
        how = f"it was still waiting after {waited} and had to be woken"
    return Words(
        "client",
        f"the client did not recover from the {seen.fault}",
        f"{how}; {connections(recovery)}",
        "have the client give the dead connection up and open a new one",
    )


def _raised(recovery: Recovery) -> Words:
    error = recovery.seen.error.name if recovery.seen.error else "an error"
    return Words(
        "client",
        f"the client did not recover from the {recovery.seen.fault}: the operation failed",
        f"{error}; {connections(recovery)}",
        "if the first operation after a break may fail, try again: "
        "for attempt in recovery.retrying(): with attempt: ...",
    )


def _same_connection(recovery: Recovery) -> Words:
    return Words(
        "test",
        "the operation succeeded without a new connection",
        "a connection was there that carried it",
        "if the client is to go on on the same connection, use survives(link, within=...)",
    )


def _false_success(recovery: Recovery) -> Words:
    if not recovery.attempts:
        how = "no connection was there that could have carried it"
    elif recovery.missing:
        how = f"the server never got {_list(recovery.missing)}"
    else:
        how = "the server has executed nothing since the fault"
    return Words(
        "client",
        "a false success: the operation returned as if it had been carried out",
        how,
        "have the client wait for the server's answer before it reports success",
    )


def _not_restored(recovery: Recovery) -> Words:
    return Words(
        "client",
        "the client reconnected and did not subscribe again",
        f"{_list(recovery.unheard)} waited for a subscriber on a new connection in vain; "
        f"{connections(recovery)}",
        "have the client repeat its subscriptions on each new connection",
    )


def _duplicated(recovery: Recovery) -> Words:
    counts = [request.data for request in recovery.executed or ()]
    rows = ", ".join(f"{data!r} {times(counts.count(data))}" for data in recovery.repeated)
    return Words(
        "client",
        "a request was executed more than once",
        f"the server executed {rows}",
        "do not repeat a request whose answer was lost unless it is idempotent; give it a key "
        "that the server can recognise",
    )


def _too_late(recovery: Recovery) -> Words:
    assert recovery.time is not None
    return Words(
        "client",
        f"the client recovered from the {recovery.seen.fault} too late",
        f"the operation succeeded after {duration(recovery.time)}; {connections(recovery)}",
        "shorten the pause before the client's attempts to connect, or widen within=",
    )


def _storm(recovery: Recovery) -> Words:
    found = storm(recovery.attempts, recovery.broken)
    assert found is not None
    return Words(
        "client",
        f"a reconnect storm: {found[0]} new connections within {duration(found[1])}",
        connections(recovery),
        "have the client wait between attempts, longer each time and with some randomness; or "
        "say how many are fine: recovers(..., attempts=...)",
    )


def _too_many(recovery: Recovery) -> Words:
    return Words(
        "client",
        f"the client needed more than {recovery.most} new connection(s)",
        connections(recovery),
        "have the client wait between attempts, or raise attempts=",
    )


def _list(items: Sequence[bytes]) -> str:
    return ", ".join(repr(item) for item in items)


WORDS = {
    Outcome.NEVER_BROKEN: _never_broken,
    Outcome.STILL_WAITING: _still_waiting,
    Outcome.RAISED: _raised,
    Outcome.SAME_CONNECTION: _same_connection,
    Outcome.FALSE_SUCCESS: _false_success,
    Outcome.NOT_RESTORED: _not_restored,
    Outcome.DUPLICATED: _duplicated,
    Outcome.TOO_LATE: _too_late,
    Outcome.STORM: _storm,
    Outcome.TOO_MANY: _too_many,
}

EXPLAINED = frozenset({Outcome.STILL_WAITING, Outcome.TOO_LATE, Outcome.RAISED})
# Causes that still explain something once the client has left its dead connection.
DESPITE_RECONNECTING = frozenset({"spinning", "loop_blocked", "reconnected_ghost"})
SUBSCRIPTION_LOST = Cause(
    "subscription_lost",
    "the client reconnected and did not subscribe again, so what it waited for was sent to nobody",
    "have the client repeat its subscriptions on each new connection",
)


def why(outcome: Outcome, recovery: Recovery) -> Cause | None:
    """The cause, where one explains more than the outcome itself does."""
    if outcome not in EXPLAINED:
        return None
    if outcome is Outcome.STILL_WAITING and recovery.unheard and recovery.attempts:
        return SUBSCRIPTION_LOST
    wait = Wait.TOO_LATE if outcome is Outcome.TOO_LATE else Wait.RESCUED
    found = diagnose(recovery.seen, wait)
    if found is None or found.name == "reconnected":  # which is what was asked for
        return None
    if recovery.attempts and found.name not in DESPITE_RECONNECTING:
        return None
    return found if outcome is not Outcome.RAISED or found.name == "reconnected_ghost" else None
