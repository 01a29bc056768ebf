"""Each outcome and each mechanism, reached by a hand-made observation."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_tcpresilience import Mechanism, Window
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.evidence.verdict import (
    Observation,
    Outcome,
    find_hit,
    judge,
    mechanism,
)
from pytest_tcpresilience.faults import FAULTS, NEWS_ONCE
from tests.unit.sightings import (
    END,
    OTHER,
    OWN_TIMEOUT,
    REFUSED,
    RESET,
    TIMED_OUT,
    look,
    observation,
)

KEEPALIVE_END = look(3.0, "client_gone", unanswered=2)
USER_TIMEOUT_END = look(2.0, "client_gone", timer="retransmit", unanswered=4)
CLOSED_WINDOW_END = look(2.0, "client_gone", timer="persist")
LOSE_CLOSE = (-0.5, "toxic_added", {"type": "lose_close", "toxic": "lose_close-1"})
CLOSE_LOST = (0.5, "fault_hit", {"type": "lose_close", "toxic": "lose_close-1", "idle_for": 0.0})

OUTCOMES: dict[str, tuple[Outcome, Observation]] = {
    "in-the-window": (Outcome.NOTICED, observation(noticed=3.1, error=TIMED_OUT)),
    "at-its-beginning": (Outcome.NOTICED, observation(noticed=2.98, error=TIMED_OUT)),
    "at-its-end": (Outcome.NOTICED, observation(noticed=3.5, error=TIMED_OUT)),
    "marked": (Outcome.NOTICED, observation(noticed=3.1)),
    "noticed-before-the-rescue": (
        Outcome.NOTICED,
        observation(noticed=3.1, error=TIMED_OUT, rescued=4.0),
    ),
    # The retransmission clock began with a write that nobody has timed.
    "user-timeout-has-no-lower-bound": (
        Outcome.NOTICED,
        observation(USER_TIMEOUT_END, noticed=2.0, error=TIMED_OUT),
    ),
    "retransmission-limit-has-none": (
        Outcome.NOTICED,
        observation(
            look(2.0, "client_gone", timer="retransmit", unanswered=15),
            noticed=2.0,
            error=TIMED_OUT,
        ),
    ),
    "nothing-raised": (Outcome.UNAWARE, observation()),
    "woken-and-raised": (Outcome.RESCUED, observation(noticed=4.1, error=RESET, rescued=4.0)),
    "raised-as-it-was-woken": (Outcome.RESCUED, observation(noticed=4.0, error=RESET, rescued=4.0)),
    "woken-and-silent": (Outcome.RESCUED, observation(rescued=4.0)),
    "raised-and-then-hit": (Outcome.BEFORE_FAULT, observation(noticed=-0.1, error=OTHER)),
    "raised-and-never-hit": (
        Outcome.BEFORE_FAULT,
        observation(fault=None, noticed=0.0, error=OTHER),
    ),
    "too-early": (Outcome.TOO_EARLY, observation(noticed=2.97, error=TIMED_OUT)),
    "too-early-by-its-own-timer": (
        Outcome.TOO_EARLY,
        observation(noticed=1.0, error=OWN_TIMEOUT),
    ),
    "too-late": (Outcome.TOO_LATE, observation(noticed=3.51, error=TIMED_OUT)),
    "wrong-error": (
        Outcome.WRONG_ERROR,
        observation(noticed=3.1, error=OTHER, expected_error=False),
    ),
    "wrong-error-comes-before-late": (
        Outcome.WRONG_ERROR,
        observation(noticed=9.0, error=OTHER, expected_error=False),
    ),
    "no-connection": (Outcome.NOT_CONNECTED, observation(fault=None, opened=False, rescued=4.0)),
    "no-connection-and-raised": (
        Outcome.NOT_CONNECTED,
        observation(fault=None, opened=False, noticed=0.0, error=REFUSED),
    ),
    "not-the-clients": (Outcome.NOT_THE_CLIENTS, observation(LOSE_CLOSE, fault=None)),
    "not-the-clients-and-lost": (
        Outcome.NOT_THE_CLIENTS,
        observation(LOSE_CLOSE, CLOSE_LOST, fault=None, rescued=4.0, noticed=4.1, error=RESET),
    ),
    "never-hit": (Outcome.NEVER_HIT, observation(fault=None)),
    "never-hit-and-rescued": (
        Outcome.NEVER_HIT,
        observation(fault=None, noticed=4.1, error=RESET, rescued=4.0),
    ),
}


@pytest.mark.parametrize(("outcome", "seen"), OUTCOMES.values(), ids=OUTCOMES)
def test_outcomes(outcome: Outcome, seen: Observation) -> None:
    assert judge(seen) is outcome


def test_every_outcome_is_reached() -> None:
    assert {outcome for outcome, _ in OUTCOMES.values()} == set(Outcome)


@pytest.mark.parametrize("fault", FAULTS)
def test_only_what_the_kernel_is_told_may_be_noticed_at_once(fault: str) -> None:
    seen = observation(fault=fault, noticed=0.01, error=RESET)
    told = fault in ("reset", "hang_up", "time_out", "refuse_connections") or (
        fault in ("evict_reset", "evict_reset_both", "evict_fin")
    )
    expected = Outcome.NOTICED if told else Outcome.TOO_EARLY
    assert judge(seen) is expected


@pytest.mark.parametrize(
    ("then", "outcome"),
    [
        ("reset", Outcome.NOTICED),
        ("drop", Outcome.TOO_EARLY),
        ("drop_inbound", Outcome.TOO_EARLY),
        ("reset_both", Outcome.NOTICED),
        ("fin", Outcome.NOTICED),
    ],
)
def test_what_a_middlebox_does_is_an_eviction(then: str, outcome: Outcome) -> None:
    seen = observation(fault="middlebox", then=then, noticed=0.01, error=RESET)
    assert seen.effect == f"evict_{then}"
    assert judge(seen) is outcome


def test_seconds_allow_noticing_at_once() -> None:
    window = Window(nominal=5.0, earliest=0.0, latest=5.0)
    assert judge(observation(noticed=0.0, error=OWN_TIMEOUT, window=window)) is Outcome.NOTICED


MECHANISMS: dict[str, tuple[Mechanism, Observation]] = {
    "keepalive": (
        Mechanism.KEEPALIVE,
        observation(KEEPALIVE_END, noticed=3.0, error=TIMED_OUT),
    ),
    "keepalive-behind-a-library": (
        Mechanism.KEEPALIVE,
        observation(KEEPALIVE_END, noticed=3.0, error=OTHER),
    ),
    "keepalive-and-marked": (Mechanism.KEEPALIVE, observation(KEEPALIVE_END, noticed=3.0)),
    # With the kernel's errno the end is certain, whatever the clocks say.
    "keepalive-witnessed-late": (
        Mechanism.KEEPALIVE,
        observation(look(3.2, "client_gone", unanswered=2), noticed=3.0, error=TIMED_OUT),
    ),
    # Without it the timer tells when the end came, and the look may come any time later.
    "keepalive-witnessed-late-and-marked": (
        Mechanism.KEEPALIVE,
        observation(look(3.2, "client_gone", unanswered=2, overdue=0.19), noticed=3.0),
    ),
    "timer-ran-out-after-the-notice": (
        Mechanism.APPLICATION,
        observation(look(3.2, "client_gone", unanswered=2, overdue=0.18), noticed=3.0),
    ),
    # Its last probe is unanswered, and nothing was due: the application has closed it.
    "closed-abruptly-after-a-probe": (
        Mechanism.APPLICATION,
        observation(look(1.5, "client_gone", unanswered=1, overdue=-0.5), noticed=1.5),
    ),
    "user-timeout": (
        Mechanism.USER_TIMEOUT,
        observation(USER_TIMEOUT_END, noticed=2.0, error=TIMED_OUT),
    ),
    "user-timeout-one-short-of-the-limit": (
        Mechanism.USER_TIMEOUT,
        observation(
            look(3.0, "client_gone", timer="retransmit", unanswered=14),
            noticed=3.0,
            error=TIMED_OUT,
        ),
    ),
    "retransmission-limit": (
        Mechanism.RETRANSMISSION_LIMIT,
        observation(
            look(3.0, "client_gone", timer="retransmit", unanswered=15),
            noticed=3.0,
            error=TIMED_OUT,
        ),
    ),
    "kernel-without-a-witness": (
        Mechanism.KERNEL_TIMEOUT,
        observation(noticed=3.0, error=TIMED_OUT),
    ),
    "reset": (Mechanism.RESET, observation(noticed=0.1, error=RESET, fault="reset")),
    "reset-behind-a-library": (
        Mechanism.RESET,
        observation(noticed=0.1, error=OTHER, fault="reset"),
    ),
    **{
        f"reset-by-{fault}": (
            Mechanism.RESET,
            observation(noticed=0.1, error=OTHER, fault=fault),
        )
        for fault in ("evict_reset", "evict_reset_both")
    },
    "reset-by-a-middlebox": (
        Mechanism.RESET,
        observation(noticed=0.1, error=OTHER, fault="middlebox", then="reset_both"),
    ),
    "fin-by-a-middlebox": (
        Mechanism.FIN,
        observation(noticed=0.1, fault="middlebox", then="fin"),
    ),
    "user-timeout-at-a-closed-window": (
        Mechanism.USER_TIMEOUT,
        observation(CLOSED_WINDOW_END, noticed=2.0, error=TIMED_OUT, fault="stop_reading"),
    ),
    # Its socket would vanish in the same way.
    "closed-by-itself-at-a-closed-window": (
        Mechanism.APPLICATION,
        observation(CLOSED_WINDOW_END, noticed=2.0, error=OTHER, fault="stop_reading"),
    ),
    "fin-by-eviction": (Mechanism.FIN, observation(noticed=0.1, fault="evict_fin")),
    "keepalive-of-a-dropped-flow": (
        Mechanism.KEEPALIVE,
        observation(KEEPALIVE_END, noticed=3.0, error=TIMED_OUT, fault="evict_drop"),
    ),
    "fin-by-hang-up": (Mechanism.FIN, observation(noticed=0.1, error=OTHER, fault="hang_up")),
    "fin-by-time-out": (Mechanism.FIN, observation(noticed=0.1, error=OTHER, fault="time_out")),
    "fin-by-what-the-library-says": (Mechanism.FIN, observation(noticed=0.1, error=END)),
    "refused": (Mechanism.REFUSED, observation(noticed=0.1, error=REFUSED)),
    "refused-behind-a-library": (
        Mechanism.REFUSED,
        observation(noticed=0.1, error=OTHER, fault="refuse_connections"),
    ),
    "own-timeout": (Mechanism.OWN_TIMEOUT, observation(noticed=3.0, error=OWN_TIMEOUT)),
    "own-timeout-whatever-the-kernel": (
        Mechanism.OWN_TIMEOUT,
        observation(KEEPALIVE_END, noticed=3.1, error=OWN_TIMEOUT),
    ),
    "application": (Mechanism.APPLICATION, observation(noticed=3.0, error=OTHER)),
    "application-marked": (Mechanism.APPLICATION, observation(noticed=3.0)),
    # The client noticed first, and closed later.
    "witnessed-after-the-notice": (
        Mechanism.APPLICATION,
        observation(look(3.2, "client_gone"), noticed=3.0, error=OTHER),
    ),
    "closed-by-the-client": (
        Mechanism.APPLICATION,
        observation(look(2.0, "client_gone", state="fin-wait-1"), noticed=3.0, error=OTHER),
    ),
    "an-earlier-faults-end": (
        Mechanism.APPLICATION,
        observation(look(-0.5, "client_gone", unanswered=2), noticed=3.0, error=OTHER),
    ),
}


@pytest.mark.parametrize(("by", "seen"), MECHANISMS.values(), ids=MECHANISMS)
def test_mechanisms(by: Mechanism, seen: Observation) -> None:
    assert mechanism(seen) is by


def test_every_mechanism_is_reached() -> None:
    assert {by for by, _ in MECHANISMS.values()} == set(Mechanism)


@pytest.mark.parametrize("value", [*Mechanism, *Outcome], ids=repr)
def test_they_are_their_names(value: Mechanism | Outcome) -> None:
    assert value == str(value) == value.name.lower()


@pytest.mark.parametrize(
    ("seen", "after", "fault"),
    [
        (observation(noticed=1.5), 1.5, "silent_drop"),
        (observation(), None, "silent_drop"),
        (observation(fault=None, noticed=1.5), None, "the fault"),
    ],
    ids=["noticed", "not-noticed", "never-hit"],
)
def test_what_follows_from_an_observation(
    seen: Observation, after: float | None, fault: str
) -> None:
    assert (seen.after, seen.fault) == (after, fault)


# --- which hit a block is about ----------------------------------------------------------


def _event(seq: int, kind: str, toxic: str) -> Event:
    fields: dict[str, Any] = {"toxic": toxic, "type": toxic.partition("-")[0]}
    return Event(seq, float(seq), kind, fields)


DROP = _event(1, "fault_hit", "silent_drop-1")
LIFTED = _event(2, "toxic_removed", "silent_drop-1")
RESET_HIT = _event(3, "fault_hit", "reset-2")
LATER = _event(5, "fault_hit", "silent_drop-3")
FORGOTTEN = _event(6, "fault_hit", "middlebox-4")
AGAIN = _event(7, "fault_hit", "middlebox-4")
LOST = _event(4, "fault_hit", "lose_close-5")


@pytest.mark.parametrize(
    ("events", "judged", "begun", "hit"),
    [
        pytest.param((), 0, 0, None, id="nothing"),
        pytest.param((LIFTED,), 0, 0, None, id="no-hit"),
        pytest.param((DROP,), 0, 0, DROP, id="in-the-block"),
        pytest.param((DROP,), 0, 1, DROP, id="before-the-block"),
        pytest.param((DROP,), 1, 1, DROP, id="one-that-lasts-counts-again"),
        pytest.param((DROP, LIFTED), 0, 2, None, id="lifted-before-the-block"),
        pytest.param((DROP, LIFTED), 0, 0, DROP, id="hit-and-lifted-in-the-block"),
        pytest.param((DROP, LIFTED), 1, 1, DROP, id="lifted-in-the-second-block"),
        pytest.param((DROP, LIFTED, LATER), 2, 2, LATER, id="the-next-one"),
        pytest.param((RESET_HIT,), 0, 3, RESET_HIT, id="once-before-the-block"),
        pytest.param((RESET_HIT,), 3, 3, None, id="once-and-judged"),
        pytest.param((RESET_HIT, LATER), 3, 3, LATER, id="once-judged-then-another"),
        pytest.param((DROP, RESET_HIT), 0, 0, DROP, id="the-first"),
        pytest.param((FORGOTTEN,), 0, 6, FORGOTTEN, id="forgotten-before-the-block"),
        pytest.param((FORGOTTEN,), 6, 6, None, id="forgotten-and-judged"),
        pytest.param((FORGOTTEN, AGAIN), 6, 6, AGAIN, id="another-flow-is-forgotten"),
        pytest.param((LOST,), 0, 0, None, id="nothing-to-notice"),
        pytest.param((LOST, LATER), 0, 0, LATER, id="nothing-to-notice-and-then-something"),
    ],
)
def test_the_hit_that_a_block_could_notice(
    events: tuple[Event, ...], judged: int, begun: int, hit: Event | None
) -> None:
    assert find_hit(events, judged=judged, begun=begun, once=NEWS_ONCE) is hit
