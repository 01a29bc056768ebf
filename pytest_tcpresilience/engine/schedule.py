"""When a scheduled link toxic is due. Pure: times and counts in, a decision out.

Idle is meant as an application means it: no byte in either direction on any connection
that the toxic acts on. Keepalive probes carry none and do not count.

Bytes are counted once they have crossed: when they were written to the other side, in
both directions together, on all connections that the toxic acts on, from when it was
armed. What a stream toxic holds back has not crossed yet.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """``when_idle`` and ``after``, in seconds, and ``after_bytes``; 0 is "not given"."""

    when_idle: float = 0.0
    after: float = 0.0
    after_bytes: int = 0

    @property
    def immediate(self) -> bool:
        return not (self.when_idle or self.after or self.after_bytes)

    def room(self, crossed: int) -> int:
        """Bytes that may still cross before the toxic acts, of a schedule by bytes."""
        return max(self.after_bytes - crossed, 0)


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


@dataclass(frozen=True)
class AwaitBytes:
    """Ask again when all bytes have crossed that may."""


def due(
    schedule: Schedule,
    *,
    now: float,
    armed_at: float,
    last_byte_at: float | None,
    crossed: int = 0,
) -> Due | SleepUntil | AwaitConnection | AwaitBytes:
    """Whether the toxic acts now.

    :param armed_at: when it was asked for.
    :param last_byte_at: the last byte, or opening, on any open connection; ``None``
        when none is open.
    :param crossed: bytes since it was armed.
    """
    if schedule.room(crossed):
        return AwaitBytes()
    if schedule.after and now < armed_at + schedule.after:
        return SleepUntil(armed_at + schedule.after)
    if not schedule.when_idle:
        return Due()
    if last_byte_at is None:
        return AwaitConnection()
    if now < last_byte_at + schedule.when_idle:
        return SleepUntil(last_byte_at + schedule.when_idle)
    return Due()
