"""``recovers`` as pure functions: each outcome, its words, and what counts as a storm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_tcpresilience.evidence import recovery as rules
from pytest_tcpresilience.evidence.recovery import Executed, Outcome, Recovery, storm
from pytest_tcpresilience.evidence.verdict import broken_at, calm_since, in_force, not_lifted
from tests.unit.sightings import HIT_AT, OTHER, RESET, look, observation


def opened(at: float, number: int = 2) -> tuple[float, str, dict[str, Any]]:
    return at, "opened", {"connection": number, "client": ["127.0.0.1", 9 + number]}


CLOSED = (0.001, "closed", {"connection": 1, "by": "fault", "how": "reset"})
LIFTED = (0.5, "toxic_removed", {"toxic": "silent_drop-1", "type": "silent_drop"})


def case(*events: Any, succeeded: float | None = 1.0, **more: Any) -> Recovery:
    """A recovery with these events; times are relative to the hit."""
    rescued, error = more.pop("rescued", None), more.pop("error", None)
    seen = observation(
        *events,
        fault=more.pop("fault", "reset"),
        rescued=rescued,
        noticed=1.0 if error else None,
        error=error,
    )
    return Recovery(
        seen=replace(seen, ended_at=HIT_AT + 1.0),
        broken_at=seen.hit.at if seen.hit else None,
        since=HIT_AT,
        succeeded_at=None if succeeded is None else HIT_AT + succeeded,
        within=2.0,
        **more,
    )


def executed(*rows: bytes) -> tuple[Executed, ...]:
    return tuple(Executed(HIT_AT + 0.5, 2, data) for data in rows)


BACK = opened(0.25)
MANY = [opened(0.01 * number, number) for number in range(2, 15)]

# Outcome, the case, summary, what happened, and the advice's gist.
CASES: dict[str, tuple[Outcome, Recovery, str, str, str]] = {
    "nothing-broke": (
        Outcome.NEVER_BROKEN,
        case(fault=None),
        "there was nothing to recover from",
        "no fault has hit a connection of this link",
        "call one of the link's faults",
    ),
    "waiting": (
        Outcome.STILL_WAITING,
        case(CLOSED, succeeded=None, rescued=2.5),
        "the client did not recover from the reset",
        "it was still waiting after 2.50 s and had to be woken; it opened no new connection",
        "give the dead connection up",
    ),
    "trying": (
        Outcome.STILL_WAITING,
        case(CLOSED, succeeded=None, rescued=2.5, tries=7),
        "the client did not recover from the reset",
        "all 7 tries had failed after 2.50 s; it opened no new connection",
        "give the dead connection up",
    ),
    "raised": (
        Outcome.RAISED,
        case(CLOSED, BACK, succeeded=None, error=OTHER),
        "the client did not recover from the reset: the operation failed",
        "LibraryError: lost; it opened 1 new connection",
        "for attempt in recovery.retrying()",
    ),
    "the-rescue-made-it-raise": (
        Outcome.STILL_WAITING,
        case(CLOSED, succeeded=None, rescued=0.9, error=RESET),
        "the client did not recover from the reset",
        "it was still waiting after 0.90 s and had to be woken; it opened no new connection",
        "give the dead connection up",
    ),
    "healed": (
        Outcome.SAME_CONNECTION,
        case(LIFTED, fault="silent_drop"),
        "the operation succeeded without a new connection",
        "a connection was there that carried it",
        "use survives(link, within=...)",
    ),
    "another-connection": (
        Outcome.SAME_CONNECTION,
        case(opened(-0.5), CLOSED),
        "the operation succeeded without a new connection",
        "a connection was there that carried it",
        "use survives(link, within=...)",
    ),
    "no-connection-at-all": (
        Outcome.FALSE_SUCCESS,
        case(fault="silent_drop"),
        "a false success: the operation returned as if it had been carried out",
        "no connection was there that could have carried it",
        "wait for the server's answer",
    ),
    "nothing-executed": (
        Outcome.FALSE_SUCCESS,
        case(BACK, executed=()),
        "a false success: the operation returned as if it had been carried out",
        "the server has executed nothing since the fault",
        "wait for the server's answer",
    ),
    "lost": (
        Outcome.FALSE_SUCCESS,
        case(BACK, executed=executed(b"ping"), once=(b"pay", b"ping")),
        "a false success: the operation returned as if it had been carried out",
        "the server never got b'pay'",
        "wait for the server's answer",
    ),
    "not-subscribed": (
        Outcome.NOT_RESTORED,
        case(BACK, unheard=(b"news",)),
        "the client reconnected and did not subscribe again",
        "b'news' waited for a subscriber on a new connection in vain; it opened 1 new connection",
        "repeat its subscriptions",
    ),
    "twice": (
        Outcome.DUPLICATED,
        case(BACK, executed=executed(b"pay", b"pay", b"ping"), once=(b"pay",)),
        "a request was executed more than once",
        "the server executed b'pay' twice",
        "unless it is idempotent",
    ),
    "late": (
        Outcome.TOO_LATE,
        case(BACK, succeeded=2.5),
        "the client recovered from the reset too late",
        "the operation succeeded after 2.50 s; it opened 1 new connection",
        "widen within=",
    ),
    "storm": (
        Outcome.STORM,
        case(*MANY),
        "a reconnect storm: 13 new connections within 0.12 s",
        "it opened 13 new connections, 0.01 s to 0.01 s apart",
        "longer each time and with some randomness",
    ),
    "too-many": (
        Outcome.TOO_MANY,
        case(opened(0.1), opened(0.6, 3), opened(0.9, 4), most=2),
        "the client needed more than 2 new connection(s)",
        "it opened 3 new connections, 0.30 s to 0.50 s apart",
        "raise attempts=",
    ),
}


@pytest.mark.parametrize(
    ("outcome", "seen", "summary", "happened", "advice"), CASES.values(), ids=CASES
)
def test_outcomes(
    outcome: Outcome, seen: Recovery, summary: str, happened: str, advice: str
) -> None:
    assert rules.judge(seen) is outcome
    words = rules.WORDS[outcome](seen)
    assert (words.summary, words.happened) == (summary, happened)
    assert advice in words.advice
    mine = outcome in (Outcome.NEVER_BROKEN, Outcome.SAME_CONNECTION)
    assert words.blame == ("test" if mine else "client")


def test_every_outcome_but_success_has_words() -> None:
    assert set(rules.WORDS) == set(Outcome) - {Outcome.RECOVERED}
    assert {row[0] for row in CASES.values()} == set(rules.WORDS)


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(case(BACK), id="plain"),
        pytest.param(case(BACK, most=1), id="as-many-as-allowed"),
        pytest.param(case(*MANY, most=13), id="a-storm-that-is-allowed"),
        pytest.param(
            case(BACK, executed=executed(b"pay", b"ping", b"ping"), once=(b"pay",)), id="once"
        ),
        pytest.param(case(BACK, succeeded=2.0), id="just-in-time"),
    ],
)
def test_recovered(seen: Recovery) -> None:
    assert rules.judge(seen) is Outcome.RECOVERED


@pytest.mark.parametrize(
    ("attempts", "allowance", "found"),
    [
        ([], 0, None),
        ([0.1 * n for n in range(10)], 0, None),
        ([0.05 * n for n in range(11)], 0, (11, 0.5)),
        ([0.05 * n for n in range(11)], 1, None),  # a pool of one came back at once
        ([0.2 * n for n in range(50)], 0, None),
        ([*(0.5 * n for n in range(4)), *(5 + 0.01 * n for n in range(20))], 0, (20, 0.19)),
    ],
)
def test_storms(attempts: list[float], allowance: int, found: tuple[int, float] | None) -> None:
    seen = storm(attempts, allowance)
    assert seen == (pytest.approx(found) if found else None)


def test_what_the_rescue_let_in_is_no_attempt() -> None:
    seen = case(BACK, opened(1.6, 3), rescued=1.5, succeeded=None)
    assert len(seen.attempts) == 1


# --- why ----------------------------------------------------------------------------------

GHOST = (0.26, "ghost", {"connection": 1})
OFF = look(0.0, "client_socket", timer="off")


@pytest.mark.parametrize(
    ("outcome", "seen", "name"),
    [
        (Outcome.STILL_WAITING, case(OFF, fault="silent_drop", rescued=2.5), "keepalive_off"),
        (Outcome.STILL_WAITING, case(BACK, OFF, fault="silent_drop", rescued=2.5), None),
        (
            Outcome.STILL_WAITING,
            case(BACK, rescued=2.5, unheard=(b"news",)),
            "subscription_lost",
        ),
        (Outcome.STILL_WAITING, case(BACK, GHOST, rescued=2.5), "reconnected_ghost"),
        (Outcome.RAISED, case(BACK, GHOST, error=OTHER), "reconnected_ghost"),
        (Outcome.RAISED, case(OFF, fault="silent_drop", error=OTHER), None),
        (Outcome.TOO_LATE, case(BACK, succeeded=3.0), None),
        (Outcome.STORM, case(*MANY), None),
    ],
)
def test_causes(outcome: Outcome, seen: Recovery, name: str | None) -> None:
    found = rules.why(outcome, seen)
    assert (found.name if found else None) == name


# --- since when ---------------------------------------------------------------------------


def test_the_break_is_the_blocks_own_or_the_last_one_before() -> None:
    two = observation(
        (3.0, "fault_hit", {"connection": 1, "type": "reset", "toxic": "reset-2", "idle_for": 0.0}),
        (3.1, "fault_hit", {"connection": 2, "type": "reset", "toxic": "reset-2", "idle_for": 0.0}),
    ).events
    numbers = [event.seq for event in two if event.kind == "fault_hit"]
    assert broken_at(two, 0) == HIT_AT
    assert broken_at(two, numbers[0]) == HIT_AT + 3.0
    assert broken_at(two, numbers[2]) == HIT_AT + 3.0
    assert broken_at((), 0) is None


def test_lifting_starts_the_clock_anew() -> None:
    events = observation(LIFTED).events
    assert calm_since(events, HIT_AT - 1, HIT_AT + 9) == HIT_AT + 0.5
    assert calm_since(events, HIT_AT - 1, HIT_AT + 0.4) == HIT_AT
    assert calm_since(events, HIT_AT + 2, HIT_AT + 9) == HIT_AT + 2


def test_faults_in_force() -> None:
    once = frozenset({"reset"})
    lasting = observation().events
    assert in_force(lasting, begun=99, once=once) == "silent_drop"
    assert in_force(observation(LIFTED).events, begun=99, once=once) is None
    assert in_force(observation(LIFTED).events, begun=0, once=once) == "silent_drop"
    assert in_force(observation(fault="reset").events, begun=99, once=once) is None
    assert in_force(observation(fault="reset").events, begun=0, once=once) == "reset"
    assert not_lifted(lasting) == "silent_drop"
    assert not_lifted(observation(fault="reset").events) == "reset"
    assert not_lifted(observation(LIFTED).events) is None
