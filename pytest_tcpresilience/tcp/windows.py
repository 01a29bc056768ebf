"""When a client with given settings must notice: the kernel's arithmetic.

Owns the formulas and the lateness bounds. It opens no socket and reads no clock:
settings in, a :class:`Window` out. The numbers were measured on Linux 6.18 (250 Hz)
in 360 connections at a time, and hold on 6.1 and 6.12; ``tests/unit/test_windows.py``
replays the measured table.

How to think about it. Three clocks can end a silent connection, and which one runs
depends on what is outstanding when the silence begins:

* nothing outstanding: keepalive. It waits ``idle`` since the last segment received,
  then sends a probe each ``interval``. ``TCP_USER_TIMEOUT``, if set, takes the place of
  the probe count.
* data unacknowledged: retransmission. Keepalive does not run at all. It ends after
  ``TCP_USER_TIMEOUT``, or else after ``tcp_retries2``.
* a probe was answered before: its answer restarts the keepalive clock, which then
  waits max(idle, interval), because the timer that sent the probe was re-armed with
  the interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.tcp.keepalive import Keepalive

# Timers are late and hardly ever early. The first probe was never seen more than 3 ms
# early; 20 ms leaves room for the clocks' granularity.
EARLY_S = 0.020
# The timer wheel (kernel/time/timer.c) rounds each expiry up by as much as one part in
# eight of its distance.
WHEEL_SHARE = 0.125
# Largest excess over that share in the measured table, rounded up.
WHEEL_FLOOR_S = 0.060
# For the test process to be woken, on a loaded machine with two cores.
SCHEDULING_S = 0.100

# The user timeout is looked at when the retransmission timer fires. The tail loss probe
# at 0.2 s does not start its clock; the first retransmission on loopback does.
FIRST_RETRANSMISSION_S = 0.42
# tcp_retries2 = 15 on loopback, n = 5, spread below 15 ms (924.6 s by the formula of
# Documentation/networking/ip-sysctl.rst for an RTO of exactly 200 ms).
RETRIES2_DEFAULT_S = 938.66


@dataclass(frozen=True)
class Part:
    """One reason for a window's length.

    ``seconds`` is what it adds to the nominal time, or to a bound.
    """

    label: str
    seconds: float
    reason: str


@dataclass(frozen=True)
class Window:
    """The time in which a break must be noticed, in seconds.

    :param nominal: what the settings say.
    :param earliest: the lower bound that a test may hold a client to.
    :param latest: the upper one.
    :param parts: what adds up to ``nominal``, each with its reason.
    :param slacks: what the bounds allow on top.
    """

    nominal: float
    earliest: float
    latest: float
    parts: tuple[Part, ...] = ()
    slacks: tuple[Part, ...] = ()

    def explain(self) -> str:
        """A line for each part of the window, as failure messages show it."""
        rows = [f"{part.seconds:8.2f} s  {part.label}: {part.reason}" for part in self.parts]
        rows += [f"{part.seconds:+8.2f} s  {part.label}: {part.reason}" for part in self.slacks]
        return "\n".join(rows)

    def __str__(self) -> str:
        if self.earliest <= 0:
            return f"within {self.latest:.2f} s"
        return f"between {self.earliest:.2f} s and {self.latest:.2f} s"


def _bounded(parts: tuple[Part, ...]) -> Window:
    nominal = sum(part.seconds for part in parts)
    slacks = (
        Part("early", -EARLY_S, "granularity of the clocks"),
        Part(
            "late",
            WHEEL_SHARE * nominal + WHEEL_FLOOR_S,
            "the kernel's timer wheel rounds each timer up by as much as 12.5 %",
        ),
        Part("scheduling", SCHEDULING_S, "for this process to be woken"),
    )
    return Window(
        nominal=nominal,
        earliest=max(nominal - EARLY_S, 0.0),
        latest=nominal + slacks[1].seconds + slacks[2].seconds,
        parts=parts,
        slacks=slacks,
    )


def first_probe_s(keepalive: Keepalive, *, answered_probe: bool = False) -> float:
    """Seconds from the last segment received to the first probe."""
    if answered_probe:
        return float(max(keepalive.idle, keepalive.interval))
    return float(keepalive.idle)


def unanswered_probes(keepalive: Keepalive, *, answered_probe: bool = False) -> int:
    """How many probes go out before the kernel gives up.

    Without a user timeout that is the probe count. With one, the count is ignored: the
    kernel gives up at the first probe tick that is at least the user timeout after the
    last segment, and never before one probe has gone unanswered (``net/ipv4/tcp_timer.c``,
    ``tcp_keepalive_timer``; measured).
    """
    if not keepalive.user_timeout:
        return keepalive.probes
    first = first_probe_s(keepalive, answered_probe=answered_probe)
    # As the kernel stores it: a fraction of a millisecond must not cost a probe.
    user_timeout = keepalive.user_timeout_ms / 1000
    return max(1, math.ceil((user_timeout - first) / keepalive.interval))


def idle_window(keepalive: Keepalive, *, answered_probe: bool = False) -> Window:
    """When an idle connection is found dead, from the last segment received.

    :raises UsageError: when keepalive is off, for then nothing ever finds it.
    """
    if not keepalive.enabled:
        raise UsageError(
            "no window: SO_KEEPALIVE is off",
            expected="settings with which the kernel looks for a dead peer",
            happened="with SO_KEEPALIVE off an idle connection is never found dead",
            advice="turn keepalive on, or give the window in seconds: within=5.0",
        )
    first = first_probe_s(keepalive, answered_probe=answered_probe)
    count = unanswered_probes(keepalive, answered_probe=answered_probe)
    why_first = "keepalive idle" if not answered_probe else "max(idle, interval) after an answer"
    why_count = f"{count} unanswered probe{'s' if count > 1 else ''}"
    if keepalive.user_timeout:
        why_count += f" (TCP_USER_TIMEOUT {keepalive.user_timeout:g} s replaces the probe count)"
    return _bounded(
        (
            Part("first probe", first, why_first),
            Part("probes", float(keepalive.interval * count), why_count),
        )
    )


def first_probe_window(keepalive: Keepalive) -> Window:
    """When an idle connection's next probe comes, from the last segment received.

    It is what a middlebox that has forgotten the flow answers with RST.

    :raises UsageError: when keepalive is off, for then none ever comes.
    """
    idle_window(keepalive)  # which says so
    longest = first_probe_s(keepalive, answered_probe=True)
    return _bounded((Part("first probe", longest, "keepalive idle, or interval if longer"),))


def unacknowledged_window(keepalive: Keepalive) -> Window:
    """When a connection with unacknowledged data is found dead, from the first send.

    Keepalive is not consulted on this path, so ``enabled`` does not matter.
    """
    if keepalive.user_timeout:
        return _bounded(
            (
                Part("user timeout", keepalive.user_timeout, "TCP_USER_TIMEOUT"),
                Part(
                    "retransmission",
                    FIRST_RETRANSMISSION_S,
                    "its clock starts with the first retransmission",
                ),
            )
        )
    return _bounded(
        (
            Part(
                "retransmissions",
                RETRIES2_DEFAULT_S,
                "tcp_retries2 = 15 on loopback; TCP_USER_TIMEOUT is off and keepalive "
                "does not run while data is unacknowledged",
            ),
        )
    )


def _keepalive_after_cut(keepalive: Keepalive, idle_for: float) -> Window:
    fresh = idle_window(keepalive)
    answered = idle_window(keepalive, answered_probe=True)
    if idle_for < first_probe_s(keepalive):
        earliest = fresh.earliest - idle_for
    else:
        # A probe may have been answered at any moment before the cut: all that is sure
        # is that every probe that counts comes after it.
        earliest = answered.parts[1].seconds - EARLY_S
    return replace(
        fresh,
        earliest=max(earliest, 0.0),
        latest=max(fresh.latest, answered.latest),
    )


def within(promise: float | Keepalive | Window, *, idle_for: float = 0.0) -> Window:
    """What a test gives as ``within=``, as a window that starts with the cut.

    :param promise: seconds, which bound the detection from above only; or a
        :class:`Keepalive`, for the idle path; or a :class:`Window`, taken as it is.
    :param idle_for: seconds between the connection's last byte and the cut. The client's
        clock has run since then, so it may notice that much sooner. It can be late by
        the whole idle time all the same, because probes may have been answered.
    :raises UsageError: for zero, a negative or an infinite time, or another type.
    """
    if isinstance(promise, Window):
        return promise
    if isinstance(promise, Keepalive):
        return _keepalive_after_cut(promise, max(idle_for, 0.0))
    seconds: object = promise
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, (int, float))
        or not math.isfinite(seconds)
        or seconds <= 0
    ):
        raise UsageError(
            f"within={seconds!r} is no window",
            expected="seconds greater than 0, a Keepalive, or a Window",
            happened=f"got {seconds!r}",
            advice="give the longest time in which the client may notice, e.g. within=5.0",
        )
    return Window(
        nominal=float(seconds),
        earliest=0.0,
        latest=float(seconds),
        parts=(Part("limit", float(seconds), "within= in seconds"),),
    )
