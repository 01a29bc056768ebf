"""``survives``, ``stays_quiet`` and ``closes_within`` as pure functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_tcpresilience.evidence import continuity as rules
from pytest_tcpresilience.evidence.continuity import Continuity, Gap, Outcome
from tests.unit.sightings import HIT_AT, OTHER, OWN_TIMEOUT, RESET, look, observation

REOPENED = (0.75, "opened", {"connection": 2, "client": ["127.0.0.1", 10]})
ENDED = (0.5, "closed", {"connection": 1, "by": "upstream", "how": "fin"})
BY_CLIENT = look(0.5, "client_closed", state="fin-wait-1")


def case(asked: str, *events: Any, **more: Any) -> Continuity:
    """A block that began with the hit, and ended 1 s later."""
    rescued, error = more.pop("rescued", None), more.pop("error", None)
    seen = observation(
        *events,
        fault=more.pop("fault", None if asked == "stays_quiet" else "silent_drop"),
        opened=more.pop("connected", True),
        rescued=rescued,
        noticed=1.0 if error else None,
        error=error,
    )
    faulty = more.pop("faulty", "silent_drop" if asked == "closes_within" else None)
    return Continuity(
        seen=replace(seen, ended_at=HIT_AT + more.pop("ended", 1.0)),
        asked=asked,
        since=HIT_AT,
        within=more.pop("within", 1.0),
        faulty=faulty,
        **more,
    )


SURVIVES, QUIET, CLOSES = "survives", "stays_quiet", "closes_within"

# Outcome, the case, summary, what happened, and the advice's gist.
CASES: dict[str, tuple[Outcome, Continuity, str, str, str]] = {
    "nothing-to-survive": (
        Outcome.NEVER_BROKEN,
        case(SURVIVES, fault=None),
        "there was nothing to survive",
        "no fault was in force on a connection of this link",
        "call one of the link's faults first",
    ),
    "did-not-go-on": (
        Outcome.STILL_WAITING,
        case(SURVIVES, rescued=1.5, ended=1.6),
        "the client did not go on after the silent_drop",
        "it was still waiting after 1.50 s and had to be woken",
        "wait for longer than the outage",
    ),
    "did-not-survive": (
        Outcome.RAISED,
        case(SURVIVES, error=RESET),
        "the client did not survive the silent_drop: the operation failed",
        "ConnectionResetError",
        "make the client's timers longer",
    ),
    "ended": (
        Outcome.CLOSED,
        case(SURVIVES, ENDED, REOPENED),
        "the client did not survive the silent_drop: connection 1 ended",
        "the first end came 0.50 s into it",
        "make the client's timers longer",
    ),
    "closed-by-itself": (
        Outcome.CLOSED,
        case(SURVIVES, BY_CLIENT),
        "the client did not survive the silent_drop: connection 1 ended",
        "the first end came 0.50 s into it",
        "make the client's timers longer",
    ),
    "opened-another": (
        Outcome.RECONNECTED,
        case(SURVIVES, REOPENED),
        "the client did not go on on its connection: it opened connection 2",
        "the old connection could have carried on",
        "use recovers(link, within=...)",
    ),
    "lost-bytes": (
        Outcome.BYTES_LOST,
        case(SURVIVES, gaps=(Gap(1, "to the server", 3), Gap(1, "to the client", 1))),
        "not every byte arrived",
        "connection 1: 3 bytes were not carried to the server; connection 1: 1 byte was not "
        "carried to the client",
        "a toxic that drops data",
    ),
    "went-on-late": (
        Outcome.TOO_LATE,
        case(SURVIVES, ended=1.5),
        "the client went on too late after the silent_drop",
        "it took 1.50 s",
        "give it more time",
    ),
    "a-false-alarm": (
        Outcome.RAISED,
        case(QUIET, error=OTHER),
        "a false alarm on a healthy idle link, after 1.00 s",
        "LibraryError: lost",
        "make the client's read timeout longer",
    ),
    "a-timeout-that-is-too-short": (
        Outcome.RAISED,
        case(QUIET, error=OWN_TIMEOUT),
        "a false alarm on a healthy idle link, after 1.00 s",
        "TimeoutError: timed out\nwhy: the client's own timeout is shorter than it may have to "
        "wait on a healthy idle connection",
        "make the client's read timeout longer",
    ),
    "hung-up": (
        Outcome.CLOSED,
        case(QUIET, ENDED),
        "a healthy idle link did not stay up: connection 1 ended after 0.50 s",
        "connection 1: closed by the upstream (FIN)",
        "look for an idle timeout",
    ),
    "reconnected": (
        Outcome.RECONNECTED,
        case(QUIET, REOPENED),
        "the client opened connection 2 on a healthy idle link, after 0.75 s",
        "nothing was wrong with the connections that it had",
        "a health check that gives healthy connections up",
    ),
    "not-healthy": (
        Outcome.FAULTY,
        case(QUIET, faulty="stall"),
        "the link was not healthy",
        "stall was in force, or hit in the block",
        "lift the faults",
    ),
    "nobody-there": (
        Outcome.NOT_CONNECTED,
        case(QUIET, connected=False),
        "no connection was there to stay quiet",
        "no client has connected through this link",
        "connect to link.host",
    ),
    "not-for-long": (
        Outcome.ENDED_EARLY,
        case(QUIET, within=3.0),
        "the block ended before its time was over",
        "it ran for 1.00 s of 3.00 s",
        "call quiet.wait() (await quiet.sleep()",
    ),
    "not-dead": (
        Outcome.NEVER_BROKEN,
        case(CLOSES, faulty=None),
        "the link was not dead",
        "no fault was in force on a connection of this link",
        "call one of the link's faults first",
    ),
    "hangs": (
        Outcome.STILL_WAITING,
        case(CLOSES, rescued=1.5, ended=1.6, error=None),
        "teardown did not end while the link was dead",
        "it was still waiting after 1.50 s and had to be woken",
        "bound what teardown waits for",
    ),
    "takes-long": (
        Outcome.TOO_LATE,
        case(CLOSES, ended=1.2),
        "teardown took too long while the link was dead",
        "it took 1.20 s",
        "bound what the client waits for",
    ),
    "raises": (
        Outcome.RAISED,
        case(CLOSES, error=OTHER),
        "teardown raised while the link was dead",
        "LibraryError: lost, after 1.00 s",
        "swallow what goes wrong while it closes",
    ),
    "leaks": (
        Outcome.STILL_OPEN,
        case(CLOSES, held=(1, 3)),
        "teardown ended, and the application still holds its socket",
        "connection 1, connection 3: the descriptor is open",
        "close the socket also when the goodbye fails",
    ),
}


@pytest.mark.parametrize(
    ("outcome", "seen", "summary", "happened", "advice"), CASES.values(), ids=CASES
)
def test_outcomes(
    outcome: Outcome, seen: Continuity, summary: str, happened: str, advice: str
) -> None:
    assert rules.judge(seen) is outcome
    words = rules.WORDS[seen.asked, outcome](seen)
    assert (words.summary, words.happened) == (summary, happened)
    assert advice in words.advice
    mine = {Outcome.NEVER_BROKEN, Outcome.FAULTY, Outcome.NOT_CONNECTED, Outcome.ENDED_EARLY}
    assert words.blame == ("test" if outcome in mine else "client")


def test_every_outcome_has_words() -> None:
    assert {(seen.asked, outcome) for outcome, seen, *_ in CASES.values()} == set(rules.WORDS)


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(case(SURVIVES), id="survived"),
        pytest.param(case(QUIET), id="quiet"),
        pytest.param(case(QUIET, rescued=0.9, error=RESET), id="a-read-that-was-ended"),
        pytest.param(
            case(QUIET, ENDED, rescued=0.4, error=RESET), id="ended-by-the-end-of-the-time"
        ),
        pytest.param(case(CLOSES), id="closed"),
    ],
)
def test_fine(seen: Continuity) -> None:
    assert rules.judge(seen) is Outcome.FINE


def test_what_came_before_the_block_is_no_news() -> None:
    before = (-0.5, "closed", {"connection": 1, "by": "client", "how": "fin"})
    assert rules.judge(case(QUIET, before)) is Outcome.FINE
