"""The kernel's arithmetic, held against what was measured on Linux 6.18 (250 Hz).

Each row of the tables is (idle, interval, probes), the user timeout, and the shortest,
median and longest of ten detections in seconds, with 360 connections at a time.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tcpresilience import Keepalive, UsageError, Window
from pytest_tcpresilience.tcp.windows import (
    EARLY_S,
    SCHEDULING_S,
    first_probe_s,
    idle_window,
    unacknowledged_window,
    unanswered_probes,
    within,
)

Settings = tuple[int, int, int]
Measured = tuple[float, float, float]

USER_TIMEOUTS = (0.0, 0.5, 1.5, 3.0, 10.0)
IDLE: dict[Settings, tuple[Measured, ...]] = {
    (1, 1, 1): (
        (2.024, 2.033, 2.044),
        (2.011, 2.038, 2.055),
        (2.004, 2.042, 2.049),
        (3.034, 3.055, 3.078),
        (10.201, 10.224, 10.241),
    ),
    (1, 1, 3): (
        (4.075, 4.083, 4.099),
        (2.016, 2.042, 2.055),
        (2.024, 2.042, 2.054),
        (3.029, 3.050, 3.074),
        (10.203, 10.226, 10.242),
    ),
    (2, 1, 2): (
        (4.050, 4.073, 4.088),
        (3.006, 3.035, 3.056),
        (3.012, 3.031, 3.054),
        (3.009, 3.031, 3.045),
        (10.175, 10.201, 10.218),
    ),
    (1, 2, 2): (
        (5.033, 5.047, 5.060),
        (3.009, 3.031, 3.047),
        (3.007, 3.028, 3.048),
        (3.012, 3.026, 3.045),
        (11.069, 11.096, 11.112),
    ),
}
UNACKNOWLEDGED: dict[float, tuple[float, ...]] = {
    0.0: (938.66,),
    0.5: (0.916, 0.923, 0.924),
    1.5: (1.917, 1.923, 1.948),
    3.0: (3.417, 3.422, 3.424),
    10.0: (10.446, 10.488, 10.489),
}
IDLE_ROWS = [
    pytest.param(settings, timeout, times, id=f"{'/'.join(map(str, settings))}-UT{timeout:g}")
    for settings, columns in IDLE.items()
    for timeout, times in zip(USER_TIMEOUTS, columns, strict=True)
]


def assert_holds(window: Window, times: tuple[float, ...]) -> None:
    """All of them are inside, and the window is not wider than it says."""
    # An idle machine's times do not need the share for a loaded one.
    tight = window.latest - SCHEDULING_S
    outside = [each for each in times if not window.earliest <= each <= tight]
    assert not outside, f"{outside} not in {window}"
    assert window.earliest == pytest.approx(window.nominal - 0.020)
    assert window.latest == pytest.approx(1.125 * window.nominal + 0.060 + 0.100)


@pytest.mark.parametrize(("settings", "timeout", "times"), IDLE_ROWS)
def test_idle(settings: Settings, timeout: float, times: Measured) -> None:
    assert_holds(idle_window(Keepalive(*settings, user_timeout=timeout)), times)


@pytest.mark.parametrize("settings", IDLE, ids=str)
@pytest.mark.parametrize(("timeout", "times"), UNACKNOWLEDGED.items(), ids=str)
def test_unacknowledged(settings: Settings, timeout: float, times: tuple[float, ...]) -> None:
    assert_holds(unacknowledged_window(Keepalive(*settings, user_timeout=timeout)), times)


@pytest.mark.parametrize(
    ("settings", "answered", "measured"),
    [
        ((1, 3, 1), False, 4.07),
        ((1, 3, 1), True, 6.11),
        ((1, 2, 2), False, 5.06),
        ((1, 2, 2), True, 6.05),
        ((3, 1, 1), False, 4.07),
        ((3, 1, 1), True, 4.06),
    ],
)
def test_an_answered_probe_makes_the_first_wait_longer(
    settings: Settings, answered: bool, measured: float
) -> None:
    assert_holds(idle_window(Keepalive(*settings), answered_probe=answered), (measured,))


@pytest.mark.parametrize(
    ("settings", "late"),
    [
        ((3, 1, 1), 0.247),
        ((5, 5, 1), 0.360),
        ((10, 10, 1), 0.467),
        ((20, 1, 1), 1.989),
        ((20, 10, 1), 2.238),
        ((1, 1, 9), 0.241),
    ],
)
def test_the_wheel_at_its_latest(settings: Settings, late: float) -> None:
    idle, interval, probes = settings
    assert_holds(idle_window(Keepalive(*settings)), (idle + interval * probes + late,))


# Times here were noted to a tenth of a second.
TENTH = 0.05


@pytest.mark.parametrize(
    ("settings", "timeout", "probes", "measured"),
    [
        pytest.param((5, 2, 3), 0, 3, 11.0, id="5/2/3"),
        pytest.param((5, 2, 3), 3, 1, 7.0, id="5/2/3-UT3-never-before-one-probe"),
        pytest.param((5, 2, 3), 8, 2, 9.0, id="5/2/3-UT8-fewer-probes"),
        pytest.param((5, 2, 3), 20, 8, 21.1, id="5/2/3-UT20-more-probes"),
        pytest.param((60, 10, 9), 1, 1, 70.2, id="60/10/9-UT1"),
        pytest.param((30, 5, 3), 0, 3, 45.3, id="30/5/3"),
    ],
)
def test_the_user_timeout_replaces_the_probe_count(
    settings: Settings, timeout: float, probes: int, measured: float
) -> None:
    keepalive = Keepalive(*settings, user_timeout=timeout)
    window = idle_window(keepalive)
    assert unanswered_probes(keepalive) == probes
    assert window.earliest - TENTH <= measured <= window.latest + TENTH


@pytest.mark.parametrize(
    ("timeout", "measured"), [(8, 8.4), (1, 1.4)], ids=["UT8-in-flight", "UT1-in-flight"]
)
@pytest.mark.parametrize("enabled", [True, False], ids=["keepalive", "no-keepalive"])
def test_the_user_timeout_with_data_in_flight(
    timeout: float, measured: float, enabled: bool
) -> None:
    keepalive = Keepalive(5, 2, 3, user_timeout=timeout, enabled=enabled)
    window = unacknowledged_window(keepalive)
    assert window.earliest - TENTH <= measured <= window.latest + TENTH


@pytest.mark.parametrize("settings", [(5, 2, 3), (30, 5, 3), (1, 1, 1)], ids=str)
def test_keepalive_does_not_shorten_retransmission(settings: Settings) -> None:
    """The fifteen minutes of tcp_retries2, whatever keepalive says."""
    window = unacknowledged_window(Keepalive(*settings))
    assert window.nominal == pytest.approx(938, abs=1)
    assert "keepalive does not run while data is unacknowledged" in window.explain()


def test_a_fraction_of_a_millisecond_costs_no_probe() -> None:
    """The kernel keeps 3000 ms of it."""
    assert unanswered_probes(Keepalive(1, 1, 9, user_timeout=3.0004)) == 2


@pytest.mark.parametrize(
    ("settings", "answered", "first"),
    [((1, 3, 1), False, 1.0), ((1, 3, 1), True, 3.0), ((3, 1, 1), True, 3.0)],
)
def test_the_first_probe(settings: Settings, answered: bool, first: float) -> None:
    assert first_probe_s(Keepalive(*settings), answered_probe=answered) == first


def test_without_keepalive_nothing_is_ever_found() -> None:
    off = Keepalive(1, 1, 3, enabled=False)
    with pytest.raises(UsageError, match="no window: SO_KEEPALIVE is off"):
        idle_window(off)
    with pytest.raises(UsageError, match="an idle connection is never found dead"):
        within(off)


# --- within= -----------------------------------------------------------------------------


@pytest.mark.parametrize("promise", [5, 0.25])
@pytest.mark.parametrize("idle_for", [0.0, 3.0])
def test_seconds_bound_from_above_only(promise: float, idle_for: float) -> None:
    window = within(promise, idle_for=idle_for)
    assert (window.earliest, window.nominal, window.latest) == (0.0, promise, promise)
    assert str(window) == f"within {promise:.2f} s"


@pytest.mark.parametrize("promise", [0, 0.0, -1, math.nan, math.inf, -math.inf, True, "5", None])
def test_what_is_no_window(promise: Any) -> None:
    with pytest.raises(UsageError, match="is no window") as caught:
        within(promise)
    assert f"within={promise!r}" in caught.value.summary
    assert caught.match("seconds greater than 0, a Keepalive, or a Window")


def test_a_window_is_taken_as_it_is() -> None:
    window = Window(nominal=2, earliest=1, latest=3)
    assert within(window, idle_for=9) is window


@pytest.mark.parametrize(
    ("idle_for", "earliest"),
    [
        pytest.param(-1.0, 5.0, id="negative-is-none"),
        pytest.param(0.0, 5.0, id="fresh"),
        pytest.param(0.5, 4.5, id="clock-has-run"),
        pytest.param(1.99, 3.01, id="just-before-a-probe"),
        pytest.param(2.0, 3.0, id="a-probe-was-answered"),
        pytest.param(3600.0, 3.0, id="many-were"),
    ],
)
def test_idle_time_brings_the_earliest_moment_forward(idle_for: float, earliest: float) -> None:
    """Keepalive 2/1/3: all three probes that count come after the cut."""
    keepalive = Keepalive(2, 1, 3)
    window = within(keepalive, idle_for=idle_for)
    assert window.earliest == pytest.approx(earliest - EARLY_S)
    assert window.latest == idle_window(keepalive).latest


def test_an_answered_probe_may_make_it_late() -> None:
    keepalive = Keepalive(1, 3, 1)
    assert within(keepalive).latest == idle_window(keepalive, answered_probe=True).latest
    assert within(keepalive).nominal == 4.0


def test_a_window_reads_with_its_reasons() -> None:
    window = idle_window(Keepalive(4, 2, 3, user_timeout=8))
    assert str(window) == "between 7.98 s and 9.16 s"
    assert window.explain().splitlines() == [
        "    4.00 s  first probe: keepalive idle",
        "    4.00 s  probes: 2 unanswered probes (TCP_USER_TIMEOUT 8 s replaces the probe count)",
        "   -0.02 s  early: granularity of the clocks",
        "   +1.06 s  late: the kernel's timer wheel rounds each timer up by as much as 12.5 %",
        "   +0.10 s  scheduling: for this process to be woken",
    ]
    answered = idle_window(Keepalive(1, 3, 1), answered_probe=True).explain()
    assert "max(idle, interval) after an answer" in answered
    assert "1 unanswered probe\n" in answered


# --- what holds for all settings ---------------------------------------------------------

numbers = st.integers(1, 40)
timeouts = st.just(0.0) | st.integers(1, 60_000).map(lambda ms: ms / 1000)
keepalives = st.builds(Keepalive, numbers, numbers, st.integers(1, 12), timeouts)
idle_times = st.floats(0, 200)


@given(keepalives, st.booleans())
def test_a_window_encloses_what_the_settings_say(keepalive: Keepalive, answered: bool) -> None:
    for window in (
        idle_window(keepalive, answered_probe=answered),
        unacknowledged_window(keepalive),
    ):
        assert 0 <= window.earliest <= window.nominal <= window.latest
        assert sum(part.seconds for part in window.parts) == pytest.approx(window.nominal)
        slacks = [part.seconds for part in window.slacks]
        assert window.nominal + slacks[0] == pytest.approx(window.earliest, abs=EARLY_S)
        assert window.nominal + sum(slacks[1:]) == pytest.approx(window.latest)


@given(keepalives, idle_times, idle_times)
def test_more_idle_time_never_raises_a_bound(keepalive: Keepalive, one: float, two: float) -> None:
    short = within(keepalive, idle_for=min(one, two))
    long = within(keepalive, idle_for=max(one, two))
    assert long.earliest <= short.earliest + 1e-9
    assert long.latest == short.latest
    assert 0 <= long.earliest <= long.nominal <= long.latest


@given(keepalives)
def test_one_probe_at_least_goes_unanswered(keepalive: Keepalive) -> None:
    """Also a user timeout below idle cannot kill a live idle peer."""
    answered = idle_window(keepalive, answered_probe=True)
    fresh = idle_window(keepalive)
    assert unanswered_probes(keepalive) >= 1
    assert fresh.nominal >= keepalive.idle + keepalive.interval
    assert answered.nominal >= max(keepalive.idle, keepalive.interval) + keepalive.interval


@given(keepalives)
def test_with_a_user_timeout_the_probe_count_does_not_matter(keepalive: Keepalive) -> None:
    other = Keepalive(keepalive.idle, keepalive.interval, 127, user_timeout=keepalive.user_timeout)
    same = idle_window(other) == idle_window(keepalive)
    assert same is bool(keepalive.user_timeout)


@given(keepalives.filter(lambda keepalive: keepalive.user_timeout))
def test_the_abort_is_the_first_probe_tick_past_the_user_timeout(keepalive: Keepalive) -> None:
    """The kernel's rule, told as it runs: tick by tick."""
    tick = keepalive.idle + keepalive.interval
    while tick * 1000 < keepalive.user_timeout_ms:
        tick += keepalive.interval
    assert idle_window(keepalive).nominal == tick
