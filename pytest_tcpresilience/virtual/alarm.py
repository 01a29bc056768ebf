"""The one timer of a connection that runs at a time: which, since when, and how far.

Owns the place on a ladder (:mod:`.timers`) or in a spell of a closed window
(:mod:`.window`). Which timer is due, and what happens when it fires, is the machine's.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from pytest_tcpresilience.tcp.stacks import Stack
from pytest_tcpresilience.virtual.timers import (
    FIN_WAIT_2_S,
    NEVER,
    Ladder,
    Options,
    keepalive_ladder,
    retransmission_ladder,
    syn_ack_ladder,
    syn_ladder,
)
from pytest_tcpresilience.virtual.window import Persist


class Timer(str, Enum):
    """What a connection is waiting for. There is one timer at a time."""

    OFF = "off"
    CONNECT = "connect"
    RETRANSMISSION = "retransmission"
    PERSIST = "persist"
    KEEPALIVE = "keepalive"
    FIN_WAIT_2 = "fin_wait_2"
    TIME_WAIT = "time_wait"

    def __str__(self) -> str:
        return self.value


class Alarm:
    """The armed timer of one connection.

    :param heard_at: when the peer was last heard of.
    """

    def __init__(self, stack: Stack, options: Options) -> None:
        self._stack = stack
        self._options = options
        self.timer = Timer.OFF
        self.heard_at = 0.0
        self.keepalive_since = 0.0
        self._ladder = NEVER
        self._foot = 0.0
        self._step = 0
        self._answered = False
        self._persist: Persist | None = None

    @property
    def deadline(self) -> float:
        """When it fires; infinite if it is off."""
        if self._persist is not None:
            return self._persist.due
        return self._foot + self._ladder.due(self._step)

    @property
    def unanswered(self) -> int:
        """Probes or retransmissions sent since the peer was last heard of."""
        return self._persist.unanswered if self._persist is not None else self._step

    def hear(self, now: float) -> None:
        """The peer is alive: keepalive and persist begin anew."""
        self._answered = self.timer is Timer.KEEPALIVE and self._step > 0
        self.heard_at = now
        if self._persist is not None:
            self._persist.answered()

    def off(self) -> None:
        self.timer, self._ladder, self._persist = Timer.OFF, NEVER, None

    def arm(
        self, timer: Timer, now: float, *, rto: float, restart: bool, answering: bool, orphan: bool
    ) -> None:
        """Let this timer run, if it does not; or let it begin again.

        :param rto: the retransmission timeout of now.
        :param answering: what a handshake waits for is an answer to our SYN+ACK.
        :param orphan: the application has closed the connection.
        """
        changed = timer is not self.timer
        if not changed and not restart:
            return
        self.timer = timer
        if timer is Timer.PERSIST:
            if changed or self._persist is None:
                limit = self._options.user_timeout if self._stack.user_timeout_option else 0.0
                self._persist = Persist(now, rto, self._stack.rto_max, limit)
            return
        self._persist, self._step, self._foot = None, 0, now
        self._ladder = self._ladder_of(rto, answering, orphan)
        if timer is Timer.KEEPALIVE:
            self._foot = max(self.heard_at, self.keepalive_since)

    def _ladder_of(self, rto: float, answering: bool, orphan: bool) -> Ladder:
        stack, options, timer = self._stack, self._options, self.timer
        if timer is Timer.CONNECT:
            if answering:
                return syn_ack_ladder(stack)
            return syn_ladder(stack, options.user_timeout, options.syn_count)
        if timer is Timer.RETRANSMISSION:
            return retransmission_ladder(stack, rto, options.user_timeout, orphan)
        if timer is Timer.KEEPALIVE:
            return keepalive_ladder(stack, options, answered_probe=self._answered)
        return Ladder((), WAITS[timer](stack)) if timer in WAITS else NEVER

    def fire(self, now: float) -> bool:
        """The deadline has come. Whether to send once more; if not, it is the end."""
        if self._persist is not None:
            if self._persist.is_over(now):
                return False
            self._persist.probed(now)
            return True
        if self._ladder.is_end(self._step):
            return False
        self._step += 1
        return True


# Timers at whose end a connection is over, and nothing is said.
WAITS: dict[Timer, Callable[[Stack], float]] = {
    Timer.TIME_WAIT: lambda stack: stack.time_wait,
    Timer.FIN_WAIT_2: lambda stack: FIN_WAIT_2_S,
}
