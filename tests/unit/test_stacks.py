"""Stacks as data: native tunables in, moments out."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tcpresilience import Keepalive, UsageError
from pytest_tcpresilience.tcp.provenance import Confidence
from pytest_tcpresilience.tcp.stacks import (
    AIX,
    FACTS,
    HPUX,
    PROFILES,
    STACKS,
    FreeBSD,
    Linux,
    MacOS,
    NetBSD,
    OpenBSD,
    Schedule,
    Solaris,
    Stack,
    Textbook,
    Windows,
    WindowsRegistry,
    stack_named,
)
from pytest_tcpresilience.tcp.windows import idle_window, unacknowledged_window

# --- keepalive: what the documents and captures say ---------------------------------------

# Seconds of the capture after the last segment: nine probes, and the RST.
TRACE = (119.63, 194.63, 269.63, 344.63, 419.63, 494.63, 569.63, 644.63, 719.63)
TRACE_RST = 794.64


def test_aix_is_the_capture_of_the_pulled_cable() -> None:
    """240 half-seconds, 150 half-seconds and 8 gave nine probes and then RST."""
    server = AIX(tcp_keepidle=240, tcp_keepintvl=150, tcp_keepcnt=8)
    assert server.probe_times() == pytest.approx(TRACE, abs=0.5)  # its clock ticks so often
    assert server.abort_at == pytest.approx(TRACE_RST, abs=0.5)
    assert server.probe_times() == (120, 195, 270, 345, 420, 495, 570, 645, 720)
    assert server.abort_at == 795
    assert server.rst_at_abort
    assert server.probe_payload == 1


@pytest.mark.parametrize(
    ("stack", "probes", "first", "last", "abort"),
    [
        (Linux(), 9, 7200, 7800, 2 * 3600 + 11 * 60 + 15),
        (AIX(), 9, 7200, 7800, 7875),
        (FreeBSD(), 8, 7200, 7725, 7800),
        (NetBSD(), 8, 7200, 7725, 7800),
        (OpenBSD(), 8, 7200, 7725, 7800),
        (MacOS(), 8, 7200, 7725, 7800),
        (WindowsRegistry(), 5, 7200, 7204, 7205),
        (WindowsRegistry(TcpMaxDataRetransmissions=10), 10, 7200, 7209, 7210),
        (Windows(), 10, 7200, 7209, 7210),
        (HPUX(), 60, 7200, 7790, 7800),
        (Textbook(), 10, 7200, 7875, 7200 + 10 * 75),
    ],
    ids=lambda value: str(value) if isinstance(value, Stack) else "",
)
def test_defaults(stack: Stack, probes: int, first: float, last: float, abort: float) -> None:
    times = stack.probe_times()
    assert (len(times), times[0], times[-1], stack.abort_at) == (probes, first, last, abort)
    assert stack.probes == probes


def test_solaris_spaces_its_probes_like_retransmissions() -> None:
    solaris = Solaris()
    offsets = [round(at - 7200, 3) for at in solaris.probe_times()]
    doubling = [0, 0.4, 1.2, 2.8, 6.0, 12.4, 25.2, 50.8, 102.0]  # 51.2 s, then 60 s each
    assert offsets == [*doubling, 162.0, 222.0, 282.0, 342.0, 402.0, 462.0]
    # Both intervals are over at 7680, which is looked at when the next probe is due.
    assert solaris.abort_at == 7722
    assert solaris.keepalive() is None


def test_solaris_spaces_them_evenly_where_an_application_says_so() -> None:
    schedule = Solaris().schedule(Keepalive(60, 10, 3))
    assert schedule == Schedule((60, 70, 80), 90)


@pytest.mark.parametrize("endless", [NetBSD(keepcnt=0), Solaris(keepalive_abort_interval=0)])
def test_a_stack_without_a_limit_probes_for_ever(endless: Stack) -> None:
    assert endless.probes == 0
    assert endless.abort_at == math.inf
    assert endless.probe_times(until=7201)[0] == 7200
    assert len(endless.probe_times(until=100_000)) > 1000
    with pytest.raises(UsageError, match="with these settings probes for ever"):
        endless.probe_times()
    with pytest.raises(UsageError, match="with these settings probes for ever"):
        endless.schedule()


def test_probe_times_stop_where_they_are_told_to() -> None:
    assert Linux().probe_times(until=7280) == (7200, 7275)


def test_native_units() -> None:
    assert (AIX(tcp_keepidle=3).idle, AIX(tcp_keepintvl=1).interval) == (1.5, 0.5)
    assert (NetBSD(keepidle=3).idle, NetBSD(keepintvl=1).interval) == (1.5, 0.5)
    assert (FreeBSD(keepidle=1500).idle, FreeBSD(keepintvl=20).interval) == (1.5, 0.02)
    assert (OpenBSD(keepidle=3).idle, OpenBSD(keepintvl=2).interval) == (3, 2)
    assert (Windows(KeepAliveTime=1500).idle, Windows(KeepAliveInterval=100).interval) == (1.5, 0.1)
    assert HPUX(tcp_keepalive_interval=60_000).idle == 60
    assert Solaris(keepalive_interval=60_000).idle == 60
    assert AIX().settings() == {"tcp_keepidle": 14400, "tcp_keepintvl": 150, "tcp_keepcnt": 8}


# --- as Keepalive -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stack", "same"),
    [
        (Linux(), Keepalive.linux_defaults()),
        (AIX(tcp_keepidle=240), Keepalive(120, 75, 9)),
        (FreeBSD(), Keepalive(7200, 75, 8)),
        (Windows(), Keepalive(7200, 1, 10)),
        (HPUX(), Keepalive(7200, 10, 60)),
        (AIX(tcp_keepidle=241), None),  # half a second
        (Linux(tcp_keepalive_time=40_000), None),  # more than TCP_KEEPIDLE takes
        (NetBSD(keepcnt=0), None),
        (Solaris(), None),
    ],
)
def test_the_same_moments_by_the_rule_of_linux(stack: Stack, same: Keepalive | None) -> None:
    assert stack.keepalive() == same
    if same is not None:
        assert idle_window(same).nominal == stack.abort_at
        off = stack.keepalive(enabled=False)
        assert off is not None
        assert not off.enabled


# --- settings of an application -----------------------------------------------------------


@pytest.mark.parametrize(
    ("keepalive", "answered"),
    [
        (Keepalive(5, 2, 3), False),
        (Keepalive(5, 2, 3, user_timeout=3), False),
        (Keepalive(5, 2, 3, user_timeout=8), False),
        (Keepalive(5, 2, 3, user_timeout=20), False),
        (Keepalive(1, 2, 2), True),
        (Keepalive(1, 2, 2, user_timeout=10), True),
    ],
)
def test_linux_agrees_with_its_windows(keepalive: Keepalive, answered: bool) -> None:
    schedule = Linux().schedule(keepalive, answered_probe=answered)
    assert schedule.abort_at == idle_window(keepalive, answered_probe=answered).nominal


def test_the_user_timeout_of_linux_replaces_the_count() -> None:
    """As measured: 8 probes with a count of 3, and one where the timeout is short."""
    long = Linux().schedule(Keepalive(5, 2, 3, user_timeout=20))
    assert (len(long.times), long.abort_at) == (8, 21)
    assert Linux().schedule(Keepalive(5, 2, 3, user_timeout=3)) == Schedule((5,), 7)


def test_an_answered_probe_waits_for_the_longer_of_both_on_linux_only() -> None:
    assert Linux().schedule(Keepalive(1, 2, 2), answered_probe=True).times == (2, 4)
    assert FreeBSD().schedule(Keepalive(1, 2, 2), answered_probe=True).times == (1, 3)


def test_an_application_on_aix_gets_one_probe_more_too() -> None:
    assert AIX().schedule(Keepalive(10, 5, 2)) == Schedule((10, 15, 20), 25)


@pytest.mark.parametrize(
    ("stack", "keepalive", "missing"),
    [
        (OpenBSD(), Keepalive(60, 10, 3), "TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT"),
        (OpenBSD(), Keepalive(60, 75, 8), "TCP_KEEPIDLE"),
        (WindowsRegistry(), Keepalive(60, 10, 3), "TCP_KEEPCNT"),
        (AIX(), Keepalive(60, 10, 3, user_timeout=5), "TCP_USER_TIMEOUT"),
    ],
)
def test_what_a_stack_has_no_option_for_is_refused(
    stack: Stack, keepalive: Keepalive, missing: str
) -> None:
    with pytest.raises(UsageError) as caught:
        stack.schedule(keepalive)
    assert caught.value.summary == f"an application on {stack} cannot set {missing}"
    assert "give the profile the system's tunables instead" in str(caught.value)


def test_the_systems_own_settings_need_no_option() -> None:
    assert OpenBSD().schedule(Keepalive(7200, 75, 8)).abort_at == 7800
    assert WindowsRegistry().schedule(Keepalive(60, 10, 5)).abort_at == 110


def test_what_is_called_otherwise_is_offered_all_the_same() -> None:
    assert MacOS().schedule(Keepalive(60, 10, 3)).abort_at == 90
    assert "TCP_USER_TIMEOUT" in MacOS().offered
    assert "TCP_USER_TIMEOUT" not in AIX().offered


# --- data that nobody acknowledges --------------------------------------------------------

LOOPBACK = {"rto": 0.21, "tail_loss_probe": 0.2}


@pytest.mark.parametrize(
    ("retries2", "measured"),
    [(1, 1.66), (2, 3.33), (3, 6.82), (4, 6.82), (5, 13.43), (15, 938.66)],
)
def test_linux_gives_data_up_as_measured(retries2: int, measured: float) -> None:
    """tcp_retries2 is a time: 3 and 4 end together. Real timers are late."""
    nominal = Linux(tcp_retries2=retries2).retransmissions(**LOOPBACK).abort_at
    assert nominal * 0.99 <= measured <= nominal * 1.125


def test_retries2_is_the_documented_time() -> None:
    assert Linux().retries2_limit == pytest.approx(924.6)
    assert unacknowledged_window(Keepalive(5, 2, 3)).latest > (
        Linux().retransmissions(**LOOPBACK).abort_at
    )


@pytest.mark.parametrize(("timeout", "measured"), [(0.5, 0.92), (1.5, 1.92), (3, 3.42)])
def test_the_user_timeout_of_linux_begins_with_the_first_retransmission(
    timeout: float, measured: float
) -> None:
    given = Linux().retransmissions(user_timeout=timeout, **LOOPBACK)
    assert given.abort_at == pytest.approx(measured, abs=0.02)


def test_a_user_timeout_needs_a_stack_that_has_one() -> None:
    assert MacOS().retransmissions(user_timeout=5).abort_at == 5
    assert Solaris().retransmissions(user_timeout=5).abort_at == 5
    with pytest.raises(UsageError, match="AIX has no user timeout"):
        AIX().retransmissions(user_timeout=5)


def test_others_count_or_have_a_limit() -> None:
    bsd = NetBSD().retransmissions(1.0)
    assert [round(at) for at in bsd.times] == [1, 3, 7, 15, 31, 63, 127, 191, 255, 319, 383, 447]
    assert bsd.abort_at == 511
    assert NetBSD().retransmissions(0.1).times[0] == 1.0  # the least
    assert MacOS().retransmissions().abort_at < FreeBSD().retransmissions().abort_at
    windows = Windows().retransmissions(0.3)
    assert windows.times == pytest.approx((0.3, 0.9, 2.1, 4.5, 9.3))
    assert windows.abort_at == pytest.approx(18.9)
    assert Solaris().retransmissions().abort_at == 480
    assert Solaris(rexmit_interval_min=1000).retransmissions().times[:3] == (1, 3, 7)
    assert HPUX().retransmissions().abort_at == 600
    assert Textbook().retransmissions().abort_at == 100


# --- connect ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retries", "times", "measured"),
    [
        (1, (1, 2), 3.07),
        (2, (1, 2, 3, 4, 5), 7.13),
        (3, (1, 2, 3, 4, 5, 7, 11), 19.36),
        (4, (1, 2, 3, 4, 5, 7, 11, 19), 35.49),
        (6, (1, 2, 3, 4, 5, 7, 11, 19, 35, 67), 134.81),
    ],
)
def test_linux_repeats_its_syn_as_captured(
    retries: int, times: tuple[float, ...], measured: float
) -> None:
    schedule = Linux(tcp_syn_retries=retries).syn_schedule()
    assert schedule.times == times
    assert schedule.abort_at <= measured <= schedule.abort_at * 1.04


def test_linux_before_the_even_timeouts() -> None:
    schedule = Linux(tcp_syn_linear_timeouts=0).syn_schedule()
    assert schedule == Schedule((1, 3, 7, 15, 31, 63), 127)


def test_others_give_connect_up() -> None:
    assert Windows().syn_schedule() == Schedule((3, 9), 21)
    assert FreeBSD().syn_schedule().abort_at == 75
    assert AIX().syn_schedule().abort_at == 75
    assert HPUX().syn_schedule().abort_at == 75
    assert Solaris().syn_schedule().abort_at == 180
    assert Textbook().syn_schedule().abort_at == 180


# --- every profile ------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_is_found_by_name_and_says_where_it_is_from(profile: type[Stack]) -> None:
    assert type(stack_named(profile.key)) is type(stack_named(profile.key.upper())) is profile
    stack = profile()
    assert str(stack) == profile.name
    assert stack.sources.keys() == set(FACTS)
    assert all(each.where and Confidence(each.confidence) for each in stack.sources.values())
    assert {each.field for each in stack.tunables} == {
        each.name for each in dataclasses.fields(stack)
    }
    assert all(each.source.where for each in stack.tunables)
    assert "SO_KEEPALIVE" in stack.socket_options
    assert stack.probe_payload in (0, 1)
    assert stack.rto_min <= stack.rto_near < stack.rto_max
    assert 0 < stack.msl < stack.time_wait
    # What was neither measured nor read must be admitted.
    unsure = {"keepalive", "rst_at_abort", "retransmission"} & {
        fact for fact, found in stack.sources.items() if found.confidence is Confidence.KNOWLEDGE
    }
    assert stack.doubts or not unsure


@pytest.mark.parametrize(
    ("wrong", "advice"), [("linus", "'linux'"), ("free-bsd", "'freebsd'"), (None, "pass one of")]
)
def test_an_unknown_stack_is_refused_with_the_nearest(wrong: Any, advice: str) -> None:
    with pytest.raises(UsageError, match=f"stack={wrong!r} is not known") as caught:
        stack_named(wrong)
    assert advice in str(caught.value)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("wrong", [-1, 2**40, 1.5, "7", True, None])
def test_an_impossible_tunable_is_refused(profile: type[Stack], wrong: Any) -> None:
    for tunable in profile.tunables:
        with pytest.raises(UsageError, match=f"{tunable.field}={wrong!r} cannot be set") as caught:
            profile(**{tunable.field: wrong})
        text = str(caught.value)
        assert f"from {tunable.low} to {tunable.high}" in text
        assert tunable.unit in text
        what = "a value outside" if type(wrong) is int else f"a {type(wrong).__name__}"
        assert what in text


@pytest.mark.parametrize("profile", PROFILES)
def test_the_bounds_of_a_tunable_are_possible(profile: type[Stack]) -> None:
    for tunable in profile.tunables:
        below = {tunable.field: tunable.low - 1}
        with pytest.raises(UsageError, match="cannot be set"):
            profile(**below)
        profile(**{tunable.field: tunable.low})
        profile(**{tunable.field: tunable.high})


def test_a_native_unit_is_explained_to_who_mistakes_it() -> None:
    with pytest.raises(UsageError, match=r"one is worth 0\.5 s here: convert from seconds first"):
        AIX(tcp_keepidle=0)


# --- properties ---------------------------------------------------------------------------

SECONDS = st.integers(1, 5000)
STACKS_WITH_OPTIONS = [Linux(), AIX(), FreeBSD(), NetBSD(), MacOS(), Windows(), Solaris()]


@given(st.sampled_from(STACKS_WITH_OPTIONS), SECONDS, SECONDS, st.integers(1, 20), st.booleans())
def test_probes_rise_and_the_abort_comes_after_the_last(
    stack: Stack, idle: int, interval: int, probes: int, answered: bool
) -> None:
    keepalive = Keepalive(idle, interval, probes)
    schedule = stack.schedule(keepalive, answered_probe=answered)
    grid = (*schedule.times, schedule.abort_at)
    assert len(schedule.times) == stack.unanswered(probes)
    assert grid[0] >= idle
    assert all(after - before == interval for before, after in itertools.pairwise(grid))
    longer = stack.schedule(Keepalive(idle + 1, interval, probes), answered_probe=answered)
    assert longer.abort_at >= schedule.abort_at
    more = stack.schedule(Keepalive(idle, interval, probes + 1), answered_probe=answered)
    assert more.abort_at == schedule.abort_at + interval


@given(st.integers(10_000, 10_000_000), st.integers(1, 10_000_000), st.integers(1, 60_000))
def test_solaris_ends_at_the_first_probe_past_its_limit(idle: int, limit: int, first: int) -> None:
    solaris = Solaris(
        keepalive_interval=idle, keepalive_abort_interval=limit, rexmit_interval_min=first
    )
    times = solaris.probe_times()
    end = (idle + limit) / 1000
    assert times[-1] <= end < solaris.abort_at
    assert round(solaris.abort_at - end, 6) <= 60.0
    assert list(times) == sorted(set(times))


@given(
    st.sampled_from([profile() for profile in PROFILES]),
    st.floats(0.001, 500, allow_nan=False),
)
def test_retransmissions_rise_and_spread(stack: Stack, rto: float) -> None:
    schedule = stack.retransmissions(rto)
    times = schedule.times
    assert schedule.abort_at < math.inf
    assert all(time < schedule.abort_at for time in times)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(after >= before - 1e-6 for before, after in itertools.pairwise(gaps))
    assert all(gap <= stack.rto_max + 1e-6 for gap in gaps)


@given(st.integers(1, 60), st.integers(0, 30))
def test_more_syn_retries_never_end_sooner(retries: int, linear: int) -> None:
    fewer = Linux(tcp_syn_retries=retries, tcp_syn_linear_timeouts=linear).syn_schedule()
    more = Linux(tcp_syn_retries=retries + 1, tcp_syn_linear_timeouts=linear).syn_schedule()
    assert fewer.abort_at <= more.abort_at
    assert more.times[: len(fewer.times)] == fewer.times


def test_the_table_of_stacks_is_complete() -> None:
    assert list(STACKS) == [
        "linux", "aix", "freebsd", "netbsd", "openbsd", "macos", "windows", "windows-registry",
        "solaris", "hp-ux", "textbook",
    ]  # fmt: skip
