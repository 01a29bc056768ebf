"""What every TCP stack has, whatever its tunables are called: the arithmetic.

Owns the common shape of a stack and the rules that turn its numbers into moments. A
profile adds native tunables and constants, and changes a rule where its system differs.
Nothing here is late: a real timer is, by what :mod:`pytest_tcpresilience.tcp.windows`
says of Linux.

How to think about it. A connection can end by itself in three ways, and each has a grid
of moments: probes on an idle connection, retransmissions of data, retransmissions of a
SYN. On each grid the stack sends something, doubles its patience or does not, and gives
up either after a count or at the first moment past a limit of time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import ClassVar

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.tcp.keepalive import MAX_IDLE_S, MAX_INTERVAL_S, MAX_PROBES, Keepalive
from pytest_tcpresilience.tcp.provenance import Source

# Sums of many doubled intervals are compared with limits.
_ROUNDING_S = 1e-6
# The coarsest clock of the systems without a better known one: BSD's slow tick, 500 ms.
_SLOW_TICK_S = 0.5
# What a profile must give a source for, beside its tunables.
FACTS = ("keepalive", "probe_payload", "rst_at_abort", "retransmission", "syn", "msl", "options")


@dataclass(frozen=True)
class Tunable:
    """One setting of a system, as its administrator knows it.

    :param field: the profile's argument.
    :param native: the full name, as ``sysctl``, ``no`` or ``ndd`` wants it.
    :param unit: what one is worth, in words.
    :param seconds: what one is worth in seconds; 0 for a count.
    :param low: the least value that makes sense.
    :param high: the greatest.
    """

    field: str
    native: str
    unit: str
    seconds: float
    low: int
    high: int
    source: Source


@dataclass(frozen=True)
class Schedule:
    """What a stack sends into silence, in seconds, and when it gives up.

    :param times: the moments of its probes or retransmissions, in order.
    :param abort_at: when it gives the connection up; infinite where it never does.
    """

    times: tuple[float, ...]
    abort_at: float


@dataclass(frozen=True)
class Stack(ABC):
    """A TCP stack with its settings: when it probes, repeats, gives up, and how.

    All times are in seconds. Idle times count from the last segment received, the others
    from the first transmission.
    """

    # --- what a profile says once ------------------------------------------------------
    key: ClassVar[str]
    name: ClassVar[str]
    tunables: ClassVar[tuple[Tunable, ...]]
    # Whether SO_KEEPALIVE is in force without an application's asking.
    keepalive_by_default: ClassVar[bool] = False
    # An RST to the peer, when keepalive gives up.
    rst_at_abort: ClassVar[bool] = True
    # Bytes of data in a probe, which were acknowledged before: 0 or 1.
    probe_payload: ClassVar[int] = 0
    # What an application can set on its own socket.
    socket_options: ClassVar[frozenset[str]]
    # The option that limits the time for which data may be unacknowledged, if any.
    user_timeout_option: ClassVar[str | None] = None
    # Whether that option also takes the place of the probe count, as on Linux.
    user_timeout_ends_idle: ClassVar[bool] = False
    # The retransmission timeout in seconds: before anything was measured, least, greatest.
    rto_bounds: ClassVar[tuple[float, float, float]]
    # The most that the first RTO is multiplied by, where that is less than rto_max allows.
    backoff_limit: ClassVar[int | None] = None
    msl: ClassVar[float]
    # Seconds in TIME_WAIT, which is 2 MSL where a system follows the standard.
    time_wait: ClassVar[float]
    doubts: ClassVar[tuple[str, ...]] = ()
    sources: ClassVar[dict[str, Source]]

    def __post_init__(self) -> None:
        for tunable in self.tunables:
            _check(self.name, tunable, getattr(self, tunable.field))

    def _seconds(self, field: str) -> float:
        """The value of a tunable in seconds."""
        tunable = next(each for each in self.tunables if each.field == field)
        # Not value * seconds: 75000 * 0.001 is not 75.
        return float(getattr(self, field) / round(1 / tunable.seconds))

    # --- keepalive ---------------------------------------------------------------------

    @property
    @abstractmethod
    def idle(self) -> float:
        """Seconds without a segment from the peer before the first probe."""

    @property
    @abstractmethod
    def interval(self) -> float:
        """Seconds from the first probe to the second."""

    @property
    @abstractmethod
    def probes(self) -> int:
        """Unanswered probes before the stack gives up; 0 where it never does."""

    def unanswered(self, count: int) -> int:
        """The probes really sent for a count that an application or administrator set."""
        return count

    def schedule(
        self, keepalive: Keepalive | None = None, *, answered_probe: bool = False
    ) -> Schedule:
        """The probes on an idle connection whose peer is silent, and the moment of abort.

        :param keepalive: what an application set on its socket, in place of the system's
            settings.
        :param answered_probe: the last segment received was the answer to a probe.
        :raises UsageError: for settings that this stack has no socket options for, or when
            the stack never gives up (then :meth:`probe_times` takes ``until``).
        """
        if keepalive is not None:
            self.check_options(keepalive)
        probes = self._count(keepalive)
        ticks = self._ticks(keepalive, answered_probe)
        if not probes:
            raise self._never_ends()
        times = tuple(next(ticks) for _ in range(probes))
        return Schedule(times, next(ticks))

    def _never_ends(self) -> UsageError:
        return UsageError(
            f"{self.name} with these settings probes for ever",
            expected="a number of probes, or a time to stop at",
            happened="a limit of 0 means no limit",
            advice="give probe_times(until=...) in seconds, or another limit",
        )

    def _count(self, keepalive: Keepalive | None) -> int:
        return self.probes if keepalive is None else self.unanswered(keepalive.probes)

    def _ticks(self, keepalive: Keepalive | None, answered_probe: bool) -> Iterator[float]:
        """The moments at which the stack probes or gives up, without end."""
        idle, interval = self.idle, self.interval
        if keepalive is not None:
            idle, interval = keepalive.idle, keepalive.interval
        at = self._first(idle, interval) if answered_probe else idle
        while True:
            yield at
            at += interval

    def _first(self, idle: float, interval: float) -> float:
        """The first probe after an answer to an earlier one."""
        return idle

    def probe_times(self, *, until: float | None = None) -> tuple[float, ...]:
        """Moments of the unanswered probes, in seconds after the last segment received.

        :param until: leave out the later ones; needed where the stack never gives up.
        :raises UsageError: when it never gives up and ``until`` is missing.
        """
        if self.probes:
            times = self.schedule().times
            return times if until is None else tuple(at for at in times if at <= until)
        if until is None:
            raise self._never_ends()
        return tuple(takewhile(lambda at: at <= until, self._ticks(None, False)))

    @property
    def abort_at(self) -> float:
        """Seconds from the last segment received until an idle connection is given up."""
        return self.schedule().abort_at if self.probes else math.inf

    def keepalive(self, *, enabled: bool = True) -> Keepalive | None:
        """The same moments by Linux's rule, or None where that rule cannot give them."""
        numbers = self.idle, self.interval, self.probes
        fits = all(float(number).is_integer() and number >= 1 for number in numbers)
        within = (MAX_IDLE_S, MAX_INTERVAL_S, MAX_PROBES)
        if not fits or any(number > most for number, most in zip(numbers, within, strict=True)):
            return None
        idle, interval, probes = (int(number) for number in numbers)
        times = tuple(float(idle + interval * each) for each in range(probes))
        if self.schedule() != Schedule(times, float(idle + interval * probes)):
            return None
        return Keepalive(idle, interval, probes, enabled=enabled)

    def check_options(self, keepalive: Keepalive) -> None:
        """Refuse settings that an application cannot make on this stack.

        :raises UsageError: naming the option that is missing.
        """
        wanted = {
            "TCP_KEEPIDLE": keepalive.idle != self.idle,
            "TCP_KEEPINTVL": keepalive.interval != self.interval,
            "TCP_KEEPCNT": self.unanswered(keepalive.probes) != self.probes,
            "TCP_USER_TIMEOUT": bool(keepalive.user_timeout),
        }
        offered = self.offered
        missing = [option for option, needed in wanted.items() if needed and option not in offered]
        if missing:
            raise UsageError(
                f"an application on {self.name} cannot set {', '.join(missing)}",
                expected=f"settings that {self.name} has socket options for: "
                f"{', '.join(sorted(self.socket_options))}",
                happened=f"asked for {keepalive}; the system's own settings are "
                f"{self.idle:g}/{self.interval:g}/{self.probes}",
                advice="give the profile the system's tunables instead: "
                f"{', '.join(each.field for each in self.tunables)}",
            )

    @property
    def offered(self) -> frozenset[str]:
        """Options of a socket by Linux's names, whatever they are called here."""
        also = {"TCP_USER_TIMEOUT"} if self.user_timeout_option else set()
        return self.socket_options | also

    # --- data and SYN ------------------------------------------------------------------

    @property
    def rto_initial(self) -> float:
        """Seconds until the first retransmission of a SYN."""
        return self.rto_bounds[0]

    @property
    def rto_min(self) -> float:
        """The least retransmission timeout, in seconds."""
        return self.rto_bounds[1]

    @property
    def rto_max(self) -> float:
        """The greatest retransmission timeout, in seconds."""
        return self.rto_bounds[2]

    @property
    def rto_near(self) -> float:
        """The retransmission timeout towards a peer with next to no round-trip time."""
        return self.rto_min

    @property
    def data_retries(self) -> int | None:
        """Retransmissions of data before the stack gives up, where it counts them."""
        return None

    @property
    def data_limit(self) -> float | None:
        """Seconds after which data may no longer be unacknowledged, where it is a time."""
        return None

    @property
    def syn_retries(self) -> int | None:
        """Retransmissions of a SYN before ``connect`` fails, where the stack counts them."""
        return None

    @property
    def syn_limit(self) -> float | None:
        """Seconds after which ``connect`` fails, where the stack has a limit of time."""
        return None

    def _doubling(self, rto: float, first: float) -> Iterator[float]:
        most = self.rto_max if self.backoff_limit is None else self.backoff_limit * rto
        at, wait = first, rto
        while True:
            yield at
            wait = min(wait * 2, most, self.rto_max)
            at += wait

    def _given_up(
        self, ticks: Iterator[float], retries: int | None, limit: float | None
    ) -> Schedule:
        times: list[float] = []
        for at in ticks:
            if limit is not None and at >= limit - _ROUNDING_S:
                # A stack whose limit is a time gives up at that time, not at a tick.
                return Schedule(tuple(times), limit)
            if retries is not None and len(times) == retries:
                return Schedule(tuple(times), at)
            times.append(at)
        raise AssertionError("the ticks never end")

    def retransmissions(
        self,
        rto: float | None = None,
        *,
        tail_loss_probe: float = 0.0,
        user_timeout: float = 0.0,
    ) -> Schedule:
        """Retransmissions of data that nobody acknowledges, and the moment of abort.

        :param rto: the retransmission timeout at the first transmission; that of a very
            near peer if none is given. It is brought into the stack's own bounds.
        :param tail_loss_probe: seconds after which a tail loss probe went out and armed the
            timer again (Linux, about 0.2); 0 for none.
        :param user_timeout: the socket's limit, in seconds; 0 for none.
        :raises UsageError: for a user timeout on a stack that has none.
        """
        base = min(max(self.rto_near if rto is None else rto, self.rto_min), self.rto_max)
        first = base + tail_loss_probe
        ticks = self._doubling(base, first)
        if not user_timeout:
            return self._data_schedule(ticks)
        if self.user_timeout_option is None:
            raise UsageError(
                f"{self.name} has no user timeout",
                expected="a stack with TCP_USER_TIMEOUT or its like",
                happened=f"user_timeout={user_timeout!r}",
                advice="leave user_timeout out, or choose another stack",
            )
        return self._given_up(ticks, None, self._user_limit(user_timeout, first))

    def _user_limit(self, user_timeout: float, first: float) -> float:
        return user_timeout

    def _data_schedule(self, ticks: Iterator[float]) -> Schedule:
        return self._given_up(ticks, self.data_retries, self.data_limit)

    def syn_schedule(self) -> Schedule:
        """Retransmissions of a SYN that nobody answers, and when ``connect`` fails."""
        ticks = self._doubling(self.rto_initial, self.rto_initial)
        return self._given_up(ticks, self.syn_retries, self.syn_limit)

    def latest(self, seconds: float) -> float:
        """When a timer that is set for so many seconds has fired at the latest."""
        return seconds + _SLOW_TICK_S

    # --- words -------------------------------------------------------------------------

    def settings(self) -> dict[str, int]:
        """The native tunables by their full names."""
        return {each.native: getattr(self, each.field) for each in self.tunables}

    def __str__(self) -> str:
        return self.name


def _check(stack: str, tunable: Tunable, value: object) -> None:
    if (
        not isinstance(value, bool)
        and isinstance(value, int)
        and tunable.low <= value <= tunable.high
    ):
        return
    raise UsageError(
        f"{stack}: {tunable.field}={value!r} cannot be set",
        expected=f"{tunable.native} as a whole number of {tunable.unit} "
        f"from {tunable.low} to {tunable.high}",
        happened="a value outside that range"
        if isinstance(value, int) and not isinstance(value, bool)
        else f"a {type(value).__name__}",
        advice=f"one is worth {tunable.seconds:g} s here: convert from seconds first"
        if tunable.seconds not in (0, 1)
        else "give a whole number inside the range",
    )
