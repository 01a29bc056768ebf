"""What a user reads: each outcome's template, and each cause with its cure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_tcpresilience import Health, Keepalive, Window
from pytest_tcpresilience.evidence.diagnosis import CAUSES, diagnose
from pytest_tcpresilience.evidence.health import Counts, Lag, Sample, summarize
from pytest_tcpresilience.evidence.verdict import Observation, Outcome, judge
from pytest_tcpresilience.evidence.wording import WORDS, explain
from pytest_tcpresilience.tcp.middleboxes import Middlebox
from tests.unit.sightings import (
    END,
    HIT_AT,
    OTHER,
    OWN_TIMEOUT,
    RESET,
    TIMED_OUT,
    look,
    observation,
)

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
    "never-forgotten": (
        Outcome.NEVER_HIT,
        observation(
            (-0.5, "toxic_added", {"type": "middlebox", "toxic": "middlebox-1"}),
            (-0.4, "fault_active", {"type": "middlebox", "toxic": "middlebox-1", "connections": 0}),
            fault=None,
        ),
        "test",
        "no fault hit while the block ran",
        "the middlebox did not forget a flow: each carried segments in time",
        "keepalive probes count as traffic",
    ),
    "not-the-clients": (
        Outcome.NOT_THE_CLIENTS,
        observation(
            (-0.5, "toxic_added", {"type": "lose_close", "toxic": "lose_close-1"}), fault=None
        ),
        "test",
        "there is nothing in a lose_close that a client could notice",
        "lose_close tells the server nothing of the client's close; to the client it is an "
        "ordinary one",
        "its keepalive finds the half-open connection",
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

SET = (
    "set SO_KEEPALIVE=1, TCP_KEEPIDLE=1, TCP_KEEPINTVL=1, TCP_KEEPCNT=1 on the client's socket "
    "(Keepalive(idle=1, interval=1, probes=1).socket_options() gives them)"
)
DEFAULTS = Keepalive.linux_defaults()
REPLACED = Keepalive(idle=1, interval=1, probes=3, user_timeout=10.0)
SLOW = Keepalive(idle=30, interval=10, probes=3)


def busy(share: float, seconds: float = 4.0, until: float = 4.0) -> Health:
    """A process that was running for that share of the time."""
    samples = [
        Sample(HIT_AT + until - seconds + at, {(1, 1): (share * at, 0.0)}, {1: share * at})
        for at in (0.0, seconds / 2, seconds)
    ]
    return summarize(samples, None, Counts(1, 1), Counts(1, 1), 1)


def lagging(at: float, seconds: float) -> Health:
    """A loop that did not answer for a while."""
    return replace(busy(0.0), lags=(Lag(HIT_AT + at, seconds),))


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
        "use recovers(link, within=...)",
    ),
    "window-closed": (
        "zero_window",
        observation(look(0.1, "client_socket", timer="persist"), fault="stop_reading"),
        "the peer's window was 0, and 0 bytes were waiting to be sent: its kernel answers every "
        "window probe, so neither keepalive nor retransmission ever gives up",
        "a write timeout",
    ),
    "window-open": (
        "nothing_to_wait_for",
        observation(look(0.1, "client_socket"), fault="stop_reading", rescued=4.0),
        "the peer did not read, and what the client wrote still fitted into the kernels' buffers",
        "have the client write more",
    ),
    "window-unseen": (
        "nothing_to_wait_for",
        observation(fault="stop_reading"),
        "the peer did not read, and what the client wrote still fitted into the kernels' buffers",
        "have the client write more",
    ),
    "forgotten": (
        "forgotten",
        observation(look(0.0, "client_socket", expires=60.0), fault="middlebox", rescued=4.0),
        "the middlebox forgot the flow, 0.00 s after its last byte",
        "set TCP_KEEPIDLE below the box's idle timeout, so that probes keep the flow alive, or "
        "raise the box's timeout",
    ),
    "forgotten-without-keepalive": (
        "forgotten_keepalive_off",
        observation(
            look(0.0, "client_socket", timer="off"), fault="middlebox", then="reset", rescued=4.0
        ),
        "the middlebox forgot the flow, 0.00 s after its last byte, and SO_KEEPALIVE is off on "
        "this socket: no probe kept it alive",
        "with TCP_KEEPIDLE below the box's idle timeout",
    ),
    "forgotten-by-a-proxy": (
        "forgotten_by_proxy",
        observation(look(0.0, "client_socket"), fault="middlebox", counts="bytes", rescued=4.0),
        "the middlebox forgot the flow, 0.00 s after its last byte; it is a proxy, which answers "
        "keepalive probes itself and counts bytes only",
        "send something more often than the box's idle timeout",
    ),
    "forgotten-and-told": (
        "evicted_swallowed",
        observation(look(1.02, "client_gone"), fault="middlebox", then="reset", rescued=4.0),
        "the flow was evicted, and the client's next segment, 1.02 s after the fault, was "
        "answered with RST; the application did not act on it",
        "swallows ECONNRESET",
    ),
    "evicted-and-silent": (
        "evicted_keepalive_off",
        observation(look(0.0, "client_socket", timer="off"), fault="evict_reset", rescued=4.0),
        "the flow was evicted: only the client's next segment is answered, with RST, and it sent "
        "none; SO_KEEPALIVE is off on this socket",
        SET,
    ),
    "evicted-and-slow": (
        "evicted_quiet",
        observation(look(0.0, "client_socket", expires=60.0), fault="evict_reset", rescued=4.0),
        "the flow was evicted: only the client's next segment is answered, with RST, and it sent "
        "none in time",
        "lower TCP_KEEPIDLE or the application's heartbeat",
    ),
    "evicted-and-told": (
        "evicted_swallowed",
        observation(look(1.02, "client_gone"), fault="evict_reset", rescued=4.0),
        "the flow was evicted, and the client's next segment, 1.02 s after the fault, was "
        "answered with RST; the application did not act on it",
        "swallows ECONNRESET",
    ),
    # What the rescue did is no evidence.
    "evicted-and-rescued": (
        "evicted_quiet",
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
        SET,
    ),
    "spinning": (
        "spinning",
        replace(observation(rescued=4.0), health=busy(0.97)),
        "the client was spinning: it kept a CPU busy for 97% of the last 4.00 s",
        "takes ETIMEDOUT (a TimeoutError in Python) for a poll's timeout",
    ),
    "spinning-once-it-was-told": (
        "spinning",
        replace(
            observation(look(3.0, "client_gone", unanswered=2), rescued=4.0), health=busy(1, 1)
        ),
        "the client was spinning: it kept a CPU busy for 100% of the last 1.00 s, after its "
        "kernel had given the connection up 3.00 s after the fault",
        "leave it at any error other than EAGAIN",
    ),
    "loop-blocked": (
        "loop_blocked",
        replace(observation(rescued=4.0), health=lagging(0.5, 2.0)),
        "the event loop was blocked for 2.00 s, from 0.50 s after the fault on: nothing that runs "
        "in it could notice",
        "asyncio.to_thread()",
    ),
    "own-timeout-late": (
        "own_timeout_late",
        observation(noticed=5.0, error=OWN_TIMEOUT),
        "only the client's own timeout ended the wait, 5.00 s after the fault, and it is longer "
        "than the 3.50 s that were promised",
        "shorten the client's own timeout to less than 3.50 s, or set SO_KEEPALIVE=1",
    ),
    "own-timeout-early": (
        "own_timeout_early",
        observation(noticed=1.0, error=OWN_TIMEOUT),
        "only the client's own timeout ended the wait, 1.00 s after the fault, and it is shorter "
        "than the 2.98 s that the kernel would have taken: it also ends waits on a healthy "
        "connection",
        "make the client's own timeout longer than 2.98 s",
    ),
    "zero-window": (
        "zero_window",
        observation(
            look(0.1, "client_socket", timer="persist", unacknowledged=70000),
            fault="stall",
            rescued=4.0,
        ),
        "the peer's window was 0, and 70000 bytes were waiting to be sent: its kernel answers "
        "every window probe, so neither keepalive nor retransmission ever gives up",
        "give the client a write timeout, or set TCP_USER_TIMEOUT=2500",
    ),
    "fin-unread": (
        "fin_unread",
        observation(look(0.01, "client_socket", state="close-wait"), fault="hang_up", rescued=4.0),
        "the FIN arrived 0.01 s after the fault, and the client's socket has been in CLOSE_WAIT "
        "since: nobody reads it",
        "a readable idle socket is one that was closed",
    ),
    "reset-unread": (
        "reset_unread",
        observation(fault="reset", rescued=4.0),
        "the connection was reset at once, and the application did not act on it",
        "swallows ECONNRESET",
    ),
    "reconnected-ghost": (
        "reconnected_ghost",
        observation(REOPENED, (0.76, "ghost", {"connection": 1}), rescued=4.0),
        "the client opened a new connection 0.75 s after the fault, while the server still held "
        "the old one: exclusive queues, locks and registrations stay with that ghost",
        "set keepalive on the server's sockets too",
    ),
    "middlebox": (
        "middlebox_shorter",
        replace(
            observation(fault="evict_drop", rescued=4.0),
            client=SLOW,
            middlebox=Middlebox(idle_timeout=20.0),
        ),
        "the flow was forgotten after 20.0 s without a segment, and TCP_KEEPIDLE is 30.0 s: the "
        "first probe comes too late to keep it alive",
        "set TCP_KEEPIDLE 17 on the client's socket, which costs 424 packets per connection and "
        "hour; or raise the box's idle timeout to",
    ),
    "a-middlebox-of-the-link": (
        "middlebox_shorter",
        replace(
            observation(
                (-1.0, "toxic_added", {"toxic": "middlebox-1", "idle_timeout": 2.0}),
                fault="middlebox",
                rescued=4.0,
            ),
            client=SLOW,
        ),
        "the flow was forgotten after 2.00 s without a segment, and TCP_KEEPIDLE is 30.0 s: the "
        "first probe comes too late to keep it alive",
        "set TCP_KEEPIDLE 1, TCP_KEEPINTVL 1 on the client's socket, which costs 7200 packets per "
        "connection and hour; or raise the box's idle timeout to",
    ),
    "scheduled-eviction": (
        "middlebox_shorter",
        replace(
            observation(
                (-1.0, "toxic_added", {"toxic": "evict_reset-1", "when_idle": 0.5}),
                fault="evict_reset",
                rescued=4.0,
            ),
            client=SLOW,
        ),
        "the flow was forgotten after 0.50 s without a segment, and TCP_KEEPIDLE is 30.0 s: the "
        "first probe comes too late to keep it alive",
        "have the application send something more often than every 0.50 s; or raise the box's idle "
        "timeout to",
    ),
    "evicted-and-noticed": (
        "evicted_noticed_by_reset",
        observation(fault="evict_reset", noticed=3.0, error=RESET, expected_error=False),
        "the flow was evicted, so the client's first segment after it was answered with RST, "
        "3.00 s after the fault: that is what it noticed, and not its own timers",
        "expect ConnectionResetError as well",
    ),
    "user-timeout-too-long": (
        "user_timeout_too_long",
        replace(
            observation(
                look(0.1, "client_socket", timer="retransmit", unacknowledged=2), rescued=4.0
            ),
            client=REPLACED,
        ),
        "2 bytes were unacknowledged, so keepalive did not run; TCP_USER_TIMEOUT=10000 gives up "
        "after 10.4 s, and 3.50 s were promised",
        "set TCP_USER_TIMEOUT=2500",
    ),
    "user-timeout-replaced-the-count": (
        "user_timeout_replaced_count",
        replace(observation(look(0.0, "client_socket"), rescued=4.0), client=REPLACED),
        "TCP_USER_TIMEOUT=10000 replaces the probe count: keepalive 1/1/3 gives up 10.0 s after "
        "the last segment, not 4.00 s",
        "set TCP_USER_TIMEOUT=4000",
    ),
    "linux-defaults": (
        "keepalive_defaults",
        replace(
            observation(look(0.25, "client_socket", expires=7199.5), rescued=4.0), client=DEFAULTS
        ),
        "SO_KEEPALIVE is on with Linux's defaults (7200 s, 75 s, 9 probes), which find a dead "
        "connection after 2 h 11 min 15 s; the first probe was due 2 h after the fault",
        SET,
    ),
    # The settings could not be read, but nobody else waits for two hours.
    "linux-defaults-by-the-timer": (
        "keepalive_defaults",
        observation(look(0.25, "client_socket", expires=7199.5), rescued=4.0),
        "SO_KEEPALIVE is on with Linux's defaults (7200 s, 75 s, 9 probes), which find a dead "
        "connection after 2 h 11 min 15 s; the first probe was due 2 h after the fault",
        SET,
    ),
    "known-and-slow": (
        "keepalive_too_slow",
        replace(observation(look(0.25, "client_socket", expires=29.75), rescued=4.0), client=SLOW),
        "keepalive is on but slower than promised (keepalive 30/10/3, 60.0 s): the first probe "
        "was due 30.0 s after the fault",
        SET,
    ),
    "first-probe-not-due": (
        "keepalive_too_slow",
        observation(look(0.25, "client_socket", expires=99.5), rescued=4.0),
        "keepalive is on but slower than promised: the first probe was due 99.8 s after the fault",
        SET,
    ),
    "next-probe-not-due": (
        "keepalive_too_slow",
        observation(look(3.0, "client_unanswered", unanswered=2, expires=5.0), rescued=4.0),
        "keepalive is on but slower than promised: after 2 unanswered, the next probe was due "
        "8.00 s after the fault",
        SET,
    ),
}


@pytest.mark.parametrize(("name", "seen", "why", "cure"), DIAGNOSES.values(), ids=DIAGNOSES)
def test_causes(name: str, seen: Observation, why: str, cure: str) -> None:
    cause = diagnose(seen)
    assert cause is not None
    assert (cause.name, cause.why) == (name, why)
    assert cure in cause.cure


def test_every_cause_is_reached() -> None:
    assert {name for name, *_ in DIAGNOSES.values()} == {row.name for row in CAUSES}


def test_the_cure_is_what_was_promised() -> None:
    """Where the test gives settings, those are the cure."""
    seen = observation(look(0.0, "client_socket", timer="off"), rescued=4.0)
    cause = diagnose(replace(seen, promise=REPLACED))
    assert cause is not None
    assert "TCP_KEEPIDLE=1, TCP_KEEPINTVL=1, TCP_KEEPCNT=3, TCP_USER_TIMEOUT=10000 on" in cause.cure


def test_where_no_keepalive_is_as_fast() -> None:
    seen = observation(look(0.0, "client_socket", timer="off"), rescued=4.0)
    cause = diagnose(replace(seen, window=Window(0.3, 0.0, 0.3)))
    assert cause is not None
    assert "give the client a read timeout or a heartbeat, or widen within= to 2.41 s" in cause.cure


def test_who_was_told_and_raised_has_not_swallowed_it() -> None:
    """Late, for another reason."""
    gone = look(9.0, "client_gone", unanswered=2)
    prompt = observation(gone, noticed=9.01, error=OTHER)
    told = observation(gone, noticed=11.0, error=TIMED_OUT)
    silent = observation(gone, noticed=11.0, error=OTHER)
    assert diagnose(prompt) is None
    assert diagnose(told) is None
    cause = diagnose(silent)
    assert cause is not None
    assert cause.name == "told_but_silent"


@pytest.mark.parametrize(
    "health",
    [busy(0.7), busy(1.0, seconds=0.1), lagging(0.5, 0.4), lagging(-3.0, 3.1)],
    ids=["working", "for-a-moment", "a-short-lag", "before-the-fault"],
)
def test_a_client_that_works_is_not_ill(health: Health) -> None:
    assert diagnose(replace(observation(rescued=4.0), health=health)) is None


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(observation(rescued=4.0), id="no-witness"),
        pytest.param(observation(look(4.1, "client_socket", timer="off"), rescued=4.0), id="late"),
        pytest.param(observation(look(1.0, "client_socket", timer="time-wait")), id="other-timer"),
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
    assert ("set SO_KEEPALIVE=1" in words.advice) is explained


def test_a_socket_that_the_rescue_reset_was_not_given_up_by_its_kernel() -> None:
    gone = look(4.0, "client_gone", unanswered=1)
    cause = diagnose(observation(gone, rescued=4.0))
    assert cause is None or cause.name != "told_but_silent"
    earlier = diagnose(observation(look(3.9, "client_gone", unanswered=1), rescued=4.0))
    assert earlier is not None
    assert earlier.name == "told_but_silent"
