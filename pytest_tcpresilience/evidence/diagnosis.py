"""Why the client did not notice in time, and what cures it.

Owns a table of causes: each with the evidence that establishes it, the sentence that a
user reads, and the cure. The first row that applies is the answer; where none does,
nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.evidence.verdict import Observation, gave_up

TURN_ON = (
    "set SO_KEEPALIVE with TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT on the client's "
    "socket (Keepalive(...).socket_options() gives them)"
)


@dataclass(frozen=True)
class Cause:
    """:param name: for programs. :param why: for people. :param cure: what to change."""

    name: str
    why: str
    cure: str


def _last_look(seen: Observation) -> Event | None:
    """The witness's last look at a client's socket before the rescue touched it."""
    begun = seen.hit.at if seen.hit else float("-inf")
    limit = seen.rescued_at if seen.rescued_at is not None else float("inf")
    looks = [
        event
        for event in seen.events
        if event.kind in ("client_socket", "client_unanswered", "client_gone")
        and begun <= event.at < limit
    ]
    return looks[-1] if looks else None


def _stalled(seen: Observation) -> Cause | None:
    if seen.fault not in ("stall", "time_out"):
        return None
    return Cause(
        "stalled_peer",
        "the peer's kernel answered every probe: this was a stall, and a stalled peer looks "
        "alive to keepalive for ever",
        "give the client a read timeout or an application heartbeat",
    )


def _told_and_silent(seen: Observation) -> Cause | None:
    for event in seen.events:
        if gave_up(event) and seen.hit and event.at >= seen.hit.at:
            since = event.at - seen.hit.at
            return Cause(
                "told_but_silent",
                f"the kernel gave the connection up {since:.2f} s after the fault and told the "
                "application, which did not act on it",
                "look for an except clause that swallows the error (ETIMEDOUT is TimeoutError, "
                "which a poll timeout is too), or for a socket that nobody reads",
            )
    return None


def _reconnected(seen: Observation) -> Cause | None:
    if seen.hit is None:
        return None
    for event in seen.events:
        if event.kind == "opened" and event.at > seen.hit.at:
            since = event.at - seen.hit.at
            return Cause(
                "reconnected",
                f"the client opened a new connection {since:.2f} s after the fault and said "
                "nothing",
                "if reconnecting silently is what you want, assert on the result of the "
                "operation and on link.connections instead",
            )
    return None


def _evicted(seen: Observation) -> Cause | None:
    if seen.fault != "evict_reset" or seen.hit is None:
        return None
    look = _last_look(seen)
    if look is not None and look.kind == "client_gone":
        return Cause(
            "evicted",
            "the flow was evicted, and the client's next segment, "
            f"{look.at - seen.hit.at:.2f} s after the fault, was answered with RST; the "
            "application did not act on it",
            "look for an except clause that swallows ECONNRESET, or for a socket that nobody reads",
        )
    why = "the flow was evicted: only the client's next segment is answered, with RST, and it sent"
    if look is not None and look["timer"] == "off":
        return Cause("evicted", f"{why} none; SO_KEEPALIVE is off on this socket", TURN_ON)
    return Cause(
        "evicted",
        f"{why} none in time",
        "lower TCP_KEEPIDLE or the application's heartbeat, or widen within=",
    )


def _not_let_in(seen: Observation) -> Cause | None:
    """Only for a client that was still trying: any other may not have tried to connect."""
    if seen.rescued_at is None:
        return None
    if seen.fault == "ignore_connections":
        return Cause(
            "connect_unanswered",
            "nobody answered the client's SYN, which Linux repeats for about two minutes",
            "give the client a connect timeout, and a limit to its retries",
        )
    if seen.fault == "refuse_connections":
        return Cause(
            "connect_refused",
            "each attempt to connect was refused at once, and the client kept it to itself",
            "limit the client's retries, or call detection.mark() where it handles the error",
        )
    return None


def _closed_by_client(seen: Observation) -> Cause | None:
    look = _last_look(seen)
    if look is None or not str(look.get("state", "")).startswith("fin-wait"):
        return None
    return Cause(
        "closed_by_client",
        "the client closed its socket by itself and raised nothing",
        "call detection.mark() where the client handles the break",
    )


def _unacknowledged(seen: Observation) -> Cause | None:
    look = _last_look(seen)
    if look is None or look["timer"] != "retransmit":
        return None
    count = look["unacknowledged"]
    return Cause(
        "unacknowledged",
        f"{count} byte{'s were' if count != 1 else ' was'} unacknowledged, so keepalive did not "
        "run; without TCP_USER_TIMEOUT Linux gives up after about 15 minutes",
        "set TCP_USER_TIMEOUT (Keepalive(..., user_timeout=5.0)) on the client's socket",
    )


def _keepalive_off(seen: Observation) -> Cause | None:
    look = _last_look(seen)
    if look is None or look["timer"] != "off":
        return None
    return Cause(
        "keepalive_off",
        "SO_KEEPALIVE is off on this socket: the kernel had no timer running, so it would "
        "never have found out",
        TURN_ON,
    )


def _probe_not_due(seen: Observation) -> Cause | None:
    look = _last_look(seen)
    if look is None or look["timer"] != "keepalive" or "expires" not in look.fields:
        return None
    due = look.at + look["expires"] - (seen.hit.at if seen.hit else look.at)
    count = look["unanswered"]
    which = f"after {count} unanswered, the next probe" if count else "the first probe"
    return Cause(
        "keepalive_too_slow",
        f"keepalive is on but slower than promised: {which} was due {due:.1f} s after the fault",
        "lower TCP_KEEPIDLE, TCP_KEEPINTVL or TCP_KEEPCNT, or widen within=",
    )


# In this order: what is certain comes before what is likely.
CAUSES: tuple[Callable[[Observation], Cause | None], ...] = (
    _stalled,
    _told_and_silent,
    _reconnected,
    _evicted,
    _not_let_in,
    _closed_by_client,
    _unacknowledged,
    _keepalive_off,
    _probe_not_due,
)


def diagnose(seen: Observation) -> Cause | None:
    """The first cause that the evidence establishes."""
    for cause in CAUSES:
        found = cause(seen)
        if found is not None:
            return found
    return None
