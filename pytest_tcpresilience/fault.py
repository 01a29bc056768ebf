"""What a fault method of a link returns: a fault that is active, or scheduled.

Owns :class:`Fault` and the reading of its times. How a fault is carried out is the
engine's, and what it is called is :mod:`pytest_tcpresilience.faults`'.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.faults import FAULTS, FaultRow
from pytest_tcpresilience.waiting import follow, limit_of

if TYPE_CHECKING:
    from pytest_tcpresilience.link import Link


def seconds(name: str, value: float | None) -> int:
    """A time argument as the engine's whole milliseconds; ``None`` is 0.

    :raises UsageError: for a negative, infinite or non-numeric time, or one that is too
        short to be told from "now".
    """
    if value is None:
        return 0
    number: object = value
    if (
        isinstance(number, bool)
        or not isinstance(number, (int, float))
        or not math.isfinite(number)
        or number < 0.001
    ):
        raise UsageError(
            f"{name}={value!r} is no time",
            expected=f"{name} in seconds, at least 0.001",
            happened=f"got {value!r}",
            advice=f"leave {name} out for a fault that acts now",
        )
    return round(number * 1000)


def byte_count(name: str, value: int) -> int:
    """An argument in bytes.

    :raises UsageError: for what is no whole number of at least 1.
    """
    number: object = value
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UsageError(
            f"{name}={value!r} is no number of bytes",
            expected=f"{name} as a whole number of at least 1",
            happened=f"got {value!r}",
            advice=f"leave {name} out for a fault that acts now",
        )
    return number


class Fault:
    """A fault on a link, or on one connection of it.

    It is active, or scheduled, as soon as it exists. As a context manager it is lifted at
    the end of the block.
    """

    def __init__(
        self, link: Link, row: FaultRow, name: str, scheduled: bool, connection: int = 0
    ) -> None:
        self._link = link
        self._row = row
        self._toxic = name
        self._lifted = False
        self.scheduled = scheduled
        # The number of the only connection that it acts on; 0 for all.
        self.connection = connection

    @property
    def name(self) -> str:
        """As in the fault table: ``"silent_drop"`` and so on."""
        return self._row.name

    @property
    def hits(self) -> tuple[Event, ...]:
        """One ``fault_hit`` event for each connection that it took hold of.

        ``refuse_connections`` and ``ignore_connections`` act on whoever connects. They have
        one hit, of connection 0, from the moment when they are in force.
        """
        return tuple(
            event
            for event in self._link.events
            if event.kind == "fault_hit" and event["toxic"] == self._toxic
        )

    @property
    def hit_at(self) -> float | None:
        """When it first took hold of a connection; ``None`` if it has not.

        CLOCK_MONOTONIC, seconds, to be compared with ``time.monotonic()``.
        """
        hits = self.hits
        return hits[0].at if hits else None

    @property
    def waits_for_client(self) -> bool:
        """Whether it hits by what a client does, and never by itself."""
        return self._row.must_hit

    @property
    def active(self) -> bool:
        """Whether it is scheduled or in force."""
        if self._lifted or (self._row.once and self.hit_at is not None):
            return False
        # With its only connection, a fault is over.
        return not self.connection or self._link.is_open(self.connection)

    def wait_until_hit(self, timeout: float | None = None) -> float:
        """Block until the fault has hit, and return ``hit_at``.

        :param timeout: seconds; the setting ``hit_timeout`` if not given.
        :raises UsageError: when it does not hit in time.
        """
        limit_s = limit_of(self._link, timeout)
        for event in follow(self._link, limit_s):
            if event.kind == "fault_hit" and event["toxic"] == self._toxic:
                return event.at
        raise UsageError(
            f"{self.name} did not hit in {limit_s:g} s",
            expected="a connection for it to act on, idle for long enough if when_idle= "
            "was given, or that carries enough if after_bytes= was",
            happened=self._link.describe_connections(),
            advice="connect first, stop talking, or wait longer",
        )

    def lift(self) -> None:
        """Undo it. What a silent drop or a stall has held up then arrives.

        A scheduled fault that has not hit is called off. Lifting twice does nothing.

        :raises UsageError: for a fault that cannot be undone and has hit.
        """
        if self._lifted:
            return
        if self._row.once and self.hit_at is not None:
            raise UsageError(
                f"the {self.name} cannot be lifted",
                expected="a fault that lasts: " + ", ".join(_lasting()),
                happened=f"the {self.name} has hit: the connections are closed",
                advice="open a new connection through the link",
            )
        self._remove()

    def never_hit(self, hit: set[str]) -> bool:
        """Whether it was scheduled and neither hit nor called off.

        :param hit: names of the toxics that hit.
        """
        return self.scheduled and not self._lifted and self._toxic not in hit

    def _remove(self) -> None:
        self._lifted = True
        self._link.call("DELETE", f"/toxics/{self._toxic}")

    def __enter__(self) -> Fault:
        return self

    def __exit__(self, *exc: object) -> None:
        # What cannot be undone has had its effect; calling off a scheduled one, and
        # lifting one that lasts, are both a removal.
        if not self._lifted and not self._link.ended and self._link.engine_alive:
            self._remove()

    def __repr__(self) -> str:
        where = f"connection {self.connection} of " if self.connection else ""
        return f"<Fault {self.name} on {where}{self._link.name}>"


def _lasting() -> list[str]:
    return [row.call or name for name, row in FAULTS.items() if not row.once]
