"""The four clocks of a connection, as ladders of moments.

Owns which timer runs when, and what its ladder looks like; the numbers are the stack
profile's (:mod:`pytest_tcpresilience.tcp.stacks`). It sends nothing.

How to think about it. A timer of TCP is a ladder: moments at which something is sent once
more, and at its end the moment at which the stack gives up. The peer's answer takes the
connection off the ladder. Which ladder a connection stands on follows from what is
outstanding:

* a SYN: the ladder of ``connect``;
* data or a FIN that nobody has acknowledged: retransmission. *Keepalive does not run then*;
* data that the peer has no window for: the persist timer, which has no end for as long as
  the peer answers (:mod:`.window`);
* nothing at all, with SO_KEEPALIVE: keepalive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.stacks import Linux, Stack

# An orphan is a connection whose application has closed it. Linux repeats its FIN eight
# times (tcp_orphan_retries) and then forgets it: 107 s on loopback, as measured.
ORPHAN_RETRIES = 8
# Linux's tcp_fin_timeout, the BSDs' finwait2_timeout. RFC 9293 has no such limit.
FIN_WAIT_2_S = 60.0
# The clock of a 250 Hz kernel.
TICK_S = 0.004
# tcp_synack_retries of Linux: how often the answer to a SYN is repeated.
SYN_ACK_RETRIES = 5


@dataclass(frozen=True)
class Ladder:
    """Moments in seconds after the ladder's foot.

    :param times: at each, something is sent once more.
    :param abort_at: the stack gives up; infinite where it never does.
    """

    times: tuple[float, ...]
    abort_at: float = math.inf

    def due(self, step: int) -> float:
        """When the next thing happens, ``step`` things having happened."""
        return self.times[step] if step < len(self.times) else self.abort_at

    def is_end(self, step: int) -> bool:
        return step >= len(self.times)


NEVER = Ladder((), math.inf)


@dataclass
class Options:
    """What an application has set on its socket; ``None`` is the system's own setting.

    :param idle: TCP_KEEPIDLE, seconds. :param interval: TCP_KEEPINTVL, seconds.
    :param probes: TCP_KEEPCNT. :param user_timeout: TCP_USER_TIMEOUT, seconds, 0 for off.
    :param syn_count: TCP_SYNCNT. :param linger: SO_LINGER's seconds, if on.
    """

    keepalive: bool = False
    idle: int | None = None
    interval: int | None = None
    probes: int | None = None
    user_timeout: float = 0.0
    syn_count: int | None = None
    linger: int | None = None


@lru_cache(maxsize=1024)
def _keepalive(
    stack: Stack,
    own: tuple[int | None, int | None, int | None],
    user_timeout: float,
    answered_probe: bool,
) -> Ladder:
    idle, interval, probes = own
    if own == (None, None, None) and not user_timeout:
        plan = stack.schedule(answered_probe=answered_probe)
    else:
        plan = stack.schedule(
            Keepalive(
                idle=round(stack.idle) if idle is None else idle,
                interval=round(stack.interval) if interval is None else interval,
                probes=own_count(stack) if probes is None else probes,
                user_timeout=user_timeout if stack.user_timeout_ends_idle else 0.0,
            ),
            answered_probe=answered_probe,
        )
    return Ladder(plan.times, plan.abort_at)


def own_count(stack: Stack) -> int:
    """The number that an application would have to set to get the system's own."""
    return next(n for n in (stack.probes, stack.probes - 1) if stack.unanswered(n) == stack.probes)


def keepalive_ladder(stack: Stack, options: Options, *, answered_probe: bool) -> Ladder:
    """Probes on an idle connection, from the last segment received.

    RFC 1122, section 4.2.3.6, and each stack's own rule.
    """
    own = (options.idle, options.interval, options.probes)
    return _keepalive(stack, own, options.user_timeout, answered_probe)


@lru_cache(maxsize=1024)
def retransmission_ladder(stack: Stack, rto: float, user_timeout: float, orphaned: bool) -> Ladder:
    """Data that nobody acknowledges, from its first transmission: RFC 6298, section 5.

    :param rto: the retransmission timeout that the round trips so far have led to.
    :param orphaned: nobody waits for the outcome any more.
    """
    # Linux sends its last segment once more before the first timeout counts.
    probe = rto if isinstance(stack, Linux) else 0.0
    limit = user_timeout if stack.user_timeout_option else 0.0
    plan = stack.retransmissions(rto, tail_loss_probe=probe, user_timeout=limit)
    times, abort_at = plan.times, plan.abort_at
    if orphaned and len(times) > ORPHAN_RETRIES:
        times, abort_at = times[:ORPHAN_RETRIES], times[ORPHAN_RETRIES]
    return Ladder((probe, *times) if probe else times, abort_at)


@lru_cache(maxsize=1024)
def syn_ladder(stack: Stack, user_timeout: float, syn_count: int | None) -> Ladder:
    """A SYN that nobody answers, from its first transmission."""
    if syn_count is not None and isinstance(stack, Linux):
        stack = replace(stack, tcp_syn_retries=syn_count)
    plan = stack.syn_schedule()
    if user_timeout and stack.user_timeout_option:
        # Looked at when the timer fires, hence not before the first SYN was repeated.
        limit = min(plan.abort_at, max(user_timeout, plan.times[0]))
        return Ladder(tuple(at for at in plan.times if at < limit) or plan.times[:1], limit)
    return Ladder(plan.times, plan.abort_at)


@lru_cache(maxsize=64)
def syn_ack_ladder(stack: Stack) -> Ladder:
    """A SYN+ACK that nobody acknowledges."""
    times = doubled(stack.rto_initial, stack.rto_max, SYN_ACK_RETRIES + 1)
    return Ladder(times[:-1], times[-1])


def doubled(first: float, most: float, count: int) -> tuple[float, ...]:
    """``count`` moments whose distance doubles up to ``most``: exponential backoff."""
    moments, at, wait = [], 0.0, first
    for _ in range(count):
        at += wait
        moments.append(at)
        wait = min(wait * 2, most)
    return tuple(moments)


class RoundTrips:
    """The retransmission timeout, from the round trips seen: RFC 6298, section 2.

    Only segments that were sent once are timed (Karn's rule, section 3).
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._smoothed: float | None = None
        self._variation = 0.0
        self.rto = stack.rto_initial

    def sample(self, seconds: float) -> None:
        if self._smoothed is None:
            self._smoothed, self._variation = seconds, seconds / 2
        else:
            self._variation += (abs(self._smoothed - seconds) - self._variation) / 4
            self._smoothed += (seconds - self._smoothed) / 8
        self.rto = _timeout(self._stack, self._smoothed, self._variation)


def _timeout(stack: Stack, smoothed: float, variation: float) -> float:
    """RFC 6298, rule 2.3, in whole ticks, so that equal timeouts share one ladder.

    Linux bounds the variation from below and not the sum, and a timer fires in the tick
    after the one that it is set to: 208 ms on loopback, as measured.
    """
    if isinstance(stack, Linux):
        ticks = math.ceil((smoothed + max(4 * variation, stack.rto_min)) / TICK_S - 1e-9) + 1
        return min(ticks * TICK_S, stack.rto_max)
    seconds = math.ceil((smoothed + max(4 * variation, TICK_S)) / TICK_S - 1e-9) * TICK_S
    return min(max(seconds, stack.rto_min), stack.rto_max)
