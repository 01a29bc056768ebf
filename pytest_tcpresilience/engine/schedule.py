"""When a scheduled link toxic is due. Pure: times in, a decision out.

Idle is meant as an application means it: no byte in either direction on any connection.
Keepalive probes carry none and do not count.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """``when_idle`` and ``after``, in seconds; 0 is "not given"."""

    when_idle: float = 0.0
    after: float = 0.0

    @property
    def immediate(self) -> bool:
        return not (self.when_idle or self.after)


@dataclass(frozen=True)
class Due:
    """Now."""


@dataclass(frozen=True)
class SleepUntil:
    """Ask again at this time, or when a connection opens."""

    at: float


@dataclass(frozen=True)
class AwaitConnection:
    """Ask again when a connection opens: without one there is nothing to be idle."""


def due(
    schedule: Schedule, *, now: float, armed_at: float, last_byte_at: float | None
) -> Due | SleepUntil | AwaitConnection:
    """Whether the toxic acts now.

    :param armed_at: when it was asked for.
    :param last_byte_at: the last byte, or opening, on any open connection; ``None``
        when none is open.
    """
    if schedule.after and now < armed_at + schedule.after:
        return SleepUntil(armed_at + schedule.after)
    if not schedule.when_idle:
        return Due()
    if last_byte_at is None:
        return AwaitConnection()
    if now < last_byte_at + schedule.when_idle:
        return SleepUntil(last_byte_at + schedule.when_idle)
    return Due()
