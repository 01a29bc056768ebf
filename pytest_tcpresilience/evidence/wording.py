"""What a user reads when an expectation fails: one template for each outcome.

Owns the sentences. Whether the test or the client is to blame is said here too, for it
decides which family of error is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pytest_tcpresilience.evidence.diagnosis import Cause, diagnose
from pytest_tcpresilience.evidence.timeline import render
from pytest_tcpresilience.evidence.verdict import (
    Mechanism,
    Observation,
    Outcome,
    mechanism,
    unnoticeable,
)

Blame = Literal["client", "test"]


@dataclass(frozen=True)
class Words:
    """:param blame: whose mistake it is. :param cause: why, if that is known. The rest as in
    :mod:`pytest_tcpresilience.errors`."""

    blame: Blame
    summary: str
    happened: str
    advice: str
    cause: Cause | None = None


def _noticed(seen: Observation) -> str:
    error = seen.error.name if seen.error else "detection.mark()"
    by = mechanism(seen)
    note = ""
    if by is Mechanism.OWN_TIMEOUT:
        note = " (a TimeoutError without errno is the client's own timeout, not the kernel's)"
    return f"noticed by {by}{note}: {error}"


def _unaware(seen: Observation) -> Words:
    return Words(
        "client",
        f"the client did not notice the {seen.fault}: the block ended without an error",
        "the block ended unaware",
        "let the block use the connection after the fault, or call detection.mark() where "
        "the client reports the break",
    )


def _rescued(seen: Observation) -> Words:
    assert seen.hit is not None
    assert seen.rescued_at is not None
    waited = seen.rescued_at - seen.hit.at
    return Words(
        "client",
        f"the client did not notice the {seen.fault}",
        f"it was still waiting {waited:.2f} s after the fault and had to be woken",
        "give the client a way to notice, or widen within=",
    )


def _before_fault(seen: Observation) -> Words:
    if seen.hit is not None and seen.after is not None:
        when = f"{-seen.after:.3f} s before the {seen.fault} hit"
    else:
        when = "before any fault hit"
    return Words(
        "client",
        "the block raised before the fault",
        f"{seen.error.name if seen.error else 'detection.mark()'} came {when}",
        "make sure that the client works on a healthy link, and that the fault comes first",
    )


def _too_early(seen: Observation) -> Words:
    return Words(
        "client",
        f"the client noticed the {seen.fault} {seen.after:.2f} s after it, sooner than its "
        "settings can",
        _noticed(seen),
        "if noticing this way is fine, give the limit in seconds (within=5.0) in place of the "
        "Keepalive; if not, look for the client's own timeout or for other socket settings",
    )


def _too_late(seen: Observation) -> Words:
    return Words(
        "client",
        f"the client noticed the {seen.fault} too late: {seen.after:.2f} s after it",
        _noticed(seen),
        "lower the client's timers, or widen within=",
    )


def _wrong_error(seen: Observation) -> Words:
    return Words(
        "client",
        f"the client noticed the {seen.fault} with another error than expected",
        _noticed(seen),
        "name the error in raises=, or have the client translate it",
    )


def _not_connected(seen: Observation) -> Words:
    return Words(
        "test",
        "no connection was there to break",
        "no client has connected through this link",
        "connect to link.host and link.port, and use the connection once, before the fault; "
        "to test a connect timeout, use link.ignore_connections()",
    )


def _never_hit(seen: Observation) -> Words:
    armed = [event["type"] for event in seen.events if event.kind == "toxic_added"]
    empty = [e["type"] for e in seen.events if e.kind == "fault_active" and not e["connections"]]
    if armed and armed[-1] == "middlebox":
        happened = "the middlebox did not forget a flow: each carried segments in time"
        advice = (
            "keepalive probes count as traffic: is the client's keepalive faster than the box? "
            "A later end needs a longer resilience_hit_timeout"
        )
    elif empty:
        happened = f"{empty[-1]} acted while no connection was open"
        advice = (
            "keep the client connected until the fault: was it closed, or garbage-collected, "
            "before?"
        )
    elif armed:
        happened = f"{armed[-1]} was armed and never hit"
        advice = (
            "when_idle= counts from the last byte in either direction: does the client keep "
            "talking? A later fault needs a longer resilience_hit_timeout"
        )
    else:
        happened = "no fault was started on this link"
        advice = "call one of the link's faults in the block or before it"
    return Words("test", "no fault hit while the block ran", happened, advice)


def _not_the_clients(seen: Observation) -> Words:
    fault = unnoticeable(seen)
    return Words(
        "test",
        f"there is nothing in a {fault} that a client could notice",
        f"{fault} tells the server nothing of the client's close; to the client it is an ordinary "
        "one",
        "assert on the server: its keepalive finds the half-open connection. "
        "fault.wait_until_hit() says when the close was lost",
    )


WORDS: dict[Outcome, Callable[[Observation], Words]] = {
    Outcome.UNAWARE: _unaware,
    Outcome.RESCUED: _rescued,
    Outcome.BEFORE_FAULT: _before_fault,
    Outcome.TOO_EARLY: _too_early,
    Outcome.TOO_LATE: _too_late,
    Outcome.WRONG_ERROR: _wrong_error,
    Outcome.NOT_CONNECTED: _not_connected,
    Outcome.NEVER_HIT: _never_hit,
    Outcome.NOT_THE_CLIENTS: _not_the_clients,
}
# Lines of a timeline that a reader of a CI log gets; -vv shows them all.
MOST_LINES = 25


def explain(outcome: Outcome, seen: Observation, *, complete: bool = False) -> Words:
    """The words for an outcome, with its cause and the timeline.

    :param complete: whether to show all of a long timeline.
    """
    return with_evidence(WORDS[outcome](seen), seen, diagnose(seen, outcome), complete=complete)


def with_evidence(
    words: Words, seen: Observation, cause: Cause | None, *, complete: bool = False
) -> Words:
    """Words with their cause, what the upstream had to say, and the timeline.

    A cause explains more than an outcome's own advice, and takes its place.
    """
    happened, advice = words.happened, words.advice
    if cause is not None:
        happened, advice = f"{happened}\nwhy: {cause.why}", cause.cure
    failures = {event["error"] for event in seen.events if event.kind == "upstream_failed"}
    for failure in sorted(failures):
        happened += f"\nthe upstream failed: {failure}"
    if seen.events:
        origin = seen.hit.at if seen.hit else seen.events[0].at
        happened += f"\n{render(seen.events, origin, most=None if complete else MOST_LINES)}"
    return Words(words.blame, words.summary, happened, advice, cause)
