"""What a user reads: each outcome's template, and each cause with its cure."""

from __future__ import annotations

import pytest

from pytest_tcpresilience.evidence.diagnosis import CAUSES, diagnose
from pytest_tcpresilience.evidence.verdict import Observation, Outcome, judge
from pytest_tcpresilience.evidence.wording import WORDS, explain
from tests.unit.sightings import END, OTHER, OWN_TIMEOUT, RESET, TIMED_OUT, look, observation

ARMED = (-0.5, "toxic_added", {"type": "stall", "toxic": "stall-1"})
ACTED = (-0.4, "fault_active", {"type": "stall", "toxic": "stall-1", "connections": 0})

# Outcome, whose mistake, summary, the first line of what happened, and the advice's gist.
TEMPLATES: dict[str, tuple[Outcome, Observation, str, str, str, str]] = {
    "unaware": (
        Outcome.UNAWARE,
        observation(),
        "client",
        "the client did not notice the silent_drop: the block ended without an error",
        "the block ended unaware",
        "let the block use the connection after the fault",
    ),
    "rescued": (
        Outcome.RESCUED,
        observation(rescued=4.0, noticed=4.1, error=RESET),
        "client",
        "the client did not notice the silent_drop",
        "it was still waiting 4.00 s after the fault and had to be woken",
        "give the client a way to notice",
    ),
    "before-fault": (
        Outcome.BEFORE_FAULT,
        observation(noticed=-0.25, error=OTHER),
        "client",
        "the block raised before the fault",
        "LibraryError: lost came 0.250 s before the silent_drop hit",
        "make sure that the client works on a healthy link",
    ),
    "before-any-fault": (
        Outcome.BEFORE_FAULT,
        observation(fault=None, noticed=0.0),
        "client",
        "the block raised before the fault",
        "detection.mark() came before any fault hit",
        "make sure that the client works on a healthy link",
    ),
    "too-early": (
        Outcome.TOO_EARLY,
        observation(noticed=1.0, error=OWN_TIMEOUT),
        "client",
        "the client noticed the silent_drop 1.00 s after it, sooner than its settings can",
        "noticed by own_timeout (a TimeoutError without errno is the client's own timeout, not "
        "the kernel's): TimeoutError: timed out",
        "give the limit in seconds",
    ),
    "too-late": (
        Outcome.TOO_LATE,
        observation(noticed=9.0, error=TIMED_OUT),
        "client",
        "the client noticed the silent_drop too late: 9.00 s after it",
        "noticed by kernel_timeout: TimeoutError: [Errno 110]",
        "lower the client's timers",
    ),
    "wrong-error": (
        Outcome.WRONG_ERROR,
        observation(noticed=3.1, error=END, expected_error=False),
        "client",
        "the client noticed the silent_drop with another error than expected",
        "noticed by fin: EOFError",
        "name the error in raises=",
    ),
    "not-connected": (
        Outcome.NOT_CONNECTED,
        observation(fault=None, opened=False),
        "test",
        "no connection was there to break",
        "no client has connected through this link",
        "connect to link.host and link.port, and use the connection once, before the fault; "
        "to test a connect timeout, use link.ignore_connections()",
    ),
    "never-hit": (
        Outcome.NEVER_HIT,
        observation(ARMED, fault=None),
        "test",
        "no fault hit while the block ran",
        "stall was armed and never hit",
        "when_idle= counts from the last byte",
    ),
    "never-hit-empty": (
        Outcome.NEVER_HIT,
        observation(ARMED, ACTED, fault=None),
        "test",
        "no fault hit while the block ran",
        "stall acted while no connection was open",
        "garbage-collected",
    ),
    "never-started": (
        Outcome.NEVER_HIT,
        observation(fault=None),
        "test",
        "no fault hit while the block ran",
        "no fault was started on this link",
        "call one of the link's faults",
    ),
}


@pytest.mark.parametrize(
    ("outcome", "seen", "blame", "summary", "happened", "advice"),
    TEMPLATES.values(),
    ids=TEMPLATES,
)
def test_templates(
    outcome: Outcome, seen: Observation, blame: str, summary: str, happened: str, advice: str
) -> None:
    assert judge(seen) is outcome
    words = explain(outcome, seen)
    assert (words.blame, words.summary) == (blame, summary)
    assert words.happened.splitlines()[0] == happened
    assert advice in words.advice


def test_every_outcome_but_success_has_words() -> None:
    assert set(WORDS) == set(Outcome) - {Outcome.NOTICED}
    assert {row[0] for row in TEMPLATES.values()} == set(WORDS)


def test_the_timeline_follows_relative_to_the_hit() -> None:
    seen = observation(look(1.0, "client_unanswered", unanswered=1), noticed=3.1)
    assert explain(Outcome.WRONG_ERROR, seen).happened.splitlines()[1:] == [
        "   -1.000 s  connection 1: opened by 127.0.0.1 port 9",
        "   +0.000 s  connection 1: silent_drop hit, 0.00 s after the last byte",
        "   +1.000 s  connection 1: keepalive 1 went unanswered",
    ]


def test_without_a_hit_the_timeline_begins_with_itself() -> None:
    seen = observation(ARMED, fault=None)
    assert explain(Outcome.NEVER_HIT, seen).happened.splitlines()[1:] == [
        "   +0.000 s  connection 1: opened by 127.0.0.1 port 9",
        "   +0.500 s  stall armed",
    ]


def test_without_events_there_is_no_timeline() -> None:
    seen = observation(fault=None, opened=False)
    happened = explain(Outcome.NOT_CONNECTED, seen).happened
    assert happened == "no client has connected through this link"


def test_an_upstream_that_failed_is_named_once() -> None:
    failed = {"connection": 1, "error": "connection refused"}
    seen = observation((-0.9, "upstream_failed", failed), (-0.8, "upstream_failed", failed))
    happened = explain(Outcome.UNAWARE, seen).happened
    assert happened.count("\nthe upstream failed: connection refused\n") == 1


# --- why ---------------------------------------------------------------------------------

REOPENED = (0.75, "opened", {"connection": 2, "client": ["127.0.0.1", 10]})

# The cause's name, what establishes it, why, and the cure's gist.
DIAGNOSES: dict[str, tuple[str, Observation, str, str]] = {
    "stall": (
        "stalled_peer",
        observation(fault="stall", rescued=4.0),
        "the peer's kernel answered every probe: this was a stall, and a stalled peer looks "
        "alive to keepalive for ever",
        "a read timeout or an application heartbeat",
    ),
    "time-out": (
        "stalled_peer",
        observation(fault="time_out", rescued=4.0),
        "the peer's kernel answered every probe: this was a stall, and a stalled peer looks "
        "alive to keepalive for ever",
        "a read timeout or an application heartbeat",
    ),
    "swallowed": (
        "told_but_silent",
        observation(look(3.02, "client_gone", unanswered=2), rescued=4.0),
        "the kernel gave the connection up 3.02 s after the fault and told the application, "
        "which did not act on it",
        "an except clause that swallows the error",
    ),
    "reconnected": (
        "reconnected",
        observation(REOPENED, rescued=4.0),
        "the client opened a new connection 0.75 s after the fault and said nothing",
        "assert on the result of the operation",
    ),
    "evicted-and-silent": (
        "evicted",
        observation(look(0.0, "client_socket", timer="off"), fault="evict_reset", rescued=4.0),
        "the flow was evicted: only the client's next segment is answered, with RST, and it sent "
        "none; SO_KEEPALIVE is off on this socket",
        "set SO_KEEPALIVE with TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT",
    ),
    "evicted-and-slow": (
        "evicted",
        observation(look(0.0, "client_socket", expires=60.0), fault="evict_reset", rescued=4.0),
        "the flow was evicted: only the client's next segment is answered, with RST, and it sent "
        "none in time",
        "lower TCP_KEEPIDLE or the application's heartbeat",
    ),
    "evicted-and-told": (
        "evicted",
        observation(look(1.02, "client_gone"), fault="evict_reset", rescued=4.0),
        "the flow was evicted, and the client's next segment, 1.02 s after the fault, was "
        "answered with RST; the application did not act on it",
        "swallows ECONNRESET",
    ),
    # What the rescue did is no evidence.
    "evicted-and-rescued": (
        "evicted",
        observation(look(4.01, "client_gone"), fault="evict_reset", rescued=4.0),
        "the flow was evicted: only the client's next segment is answered, with RST, and it sent "
        "none in time",
        "lower TCP_KEEPIDLE",
    ),
    "ignored": (
        "connect_unanswered",
        observation(fault="ignore_connections", rescued=4.0),
        "nobody answered the client's SYN, which Linux repeats for about two minutes",
        "give the client a connect timeout",
    ),
    "refused": (
        "connect_refused",
        observation(fault="refuse_connections", rescued=4.0),
        "each attempt to connect was refused at once, and the client kept it to itself",
        "limit the client's retries",
    ),
    "closed": (
        "closed_by_client",
        observation(look(1.0, "client_socket", state="fin-wait-1", timer="retransmit")),
        "the client closed its socket by itself and raised nothing",
        "call detection.mark()",
    ),
    "unacknowledged": (
        "unacknowledged",
        observation(look(0.1, "client_socket", timer="retransmit", unacknowledged=2), rescued=4.0),
        "2 bytes were unacknowledged, so keepalive did not run; without TCP_USER_TIMEOUT Linux "
        "gives up after about 15 minutes",
        "set TCP_USER_TIMEOUT",
    ),
    "unacknowledged-one": (
        "unacknowledged",
        observation(look(0.1, "client_socket", timer="retransmit", unacknowledged=1)),
        "1 byte was unacknowledged, so keepalive did not run; without TCP_USER_TIMEOUT Linux "
        "gives up after about 15 minutes",
        "set TCP_USER_TIMEOUT",
    ),
    "keepalive-off": (
        "keepalive_off",
        observation(look(0.0, "client_socket", timer="off"), rescued=4.0),
        "SO_KEEPALIVE is off on this socket: the kernel had no timer running, so it would never "
        "have found out",
        "set SO_KEEPALIVE with TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT",
    ),
    "first-probe-not-due": (
        "keepalive_too_slow",
        observation(look(0.25, "client_socket", expires=7199.5), rescued=4.0),
        "keepalive is on but slower than promised: the first probe was due 7199.8 s after the "
        "fault",
        "lower TCP_KEEPIDLE",
    ),
    "next-probe-not-due": (
        "keepalive_too_slow",
        observation(look(3.0, "client_unanswered", unanswered=2, expires=5.0), rescued=4.0),
        "keepalive is on but slower than promised: after 2 unanswered, the next probe was due "
        "8.0 s after the fault",
        "lower TCP_KEEPIDLE",
    ),
}


@pytest.mark.parametrize(("name", "seen", "why", "cure"), DIAGNOSES.values(), ids=DIAGNOSES)
def test_causes(name: str, seen: Observation, why: str, cure: str) -> None:
    cause = diagnose(seen)
    assert cause is not None
    assert (cause.name, cause.why) == (name, why)
    assert cure in cause.cure


def test_every_cause_is_reached() -> None:
    # One row has two: which, depends on the fault.
    assert len({name for name, *_ in DIAGNOSES.values()}) == len(CAUSES) + 1


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(observation(rescued=4.0), id="no-witness"),
        pytest.param(observation(look(4.1, "client_socket", timer="off"), rescued=4.0), id="late"),
        pytest.param(observation(look(1.0, "client_socket", timer="persist")), id="other-timer"),
        pytest.param(observation(look(-0.5, "client_gone")), id="an-earlier-faults-end"),
        pytest.param(observation(fault=None), id="no-hit"),
        pytest.param(observation(fault="ignore_connections"), id="did-not-connect"),
        pytest.param(observation(fault="refuse_connections"), id="did-not-connect-either"),
    ],
)
def test_without_evidence_nothing_is_claimed(seen: Observation) -> None:
    """What the rescue did to the socket is no evidence either."""
    assert diagnose(seen) is None


def test_what_is_certain_comes_first() -> None:
    seen = observation(
        look(0.0, "client_socket", timer="off"),
        look(0.1, "client_socket", timer="retransmit", unacknowledged=3),
        look(2.0, "client_gone", timer="retransmit", unanswered=3),
        REOPENED,
    )
    cause = diagnose(seen)
    assert cause is not None
    assert cause.name == "told_but_silent"


@pytest.mark.parametrize(
    ("outcome", "explained"),
    [
        (Outcome.UNAWARE, True),
        (Outcome.RESCUED, True),
        (Outcome.TOO_LATE, True),
        (Outcome.WRONG_ERROR, False),
        (Outcome.TOO_EARLY, False),
    ],
)
def test_where_the_cause_takes_the_place_of_the_advice(outcome: Outcome, explained: bool) -> None:
    seen = observation(look(0.0, "client_socket", timer="off"), noticed=9.0, rescued=4.0)
    words = explain(outcome, seen)
    assert ("\nwhy: SO_KEEPALIVE is off" in words.happened) is explained
    assert ("set SO_KEEPALIVE" in words.advice) is explained
