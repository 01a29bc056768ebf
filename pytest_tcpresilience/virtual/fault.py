"""A fault on a virtual link: the same handle as on a real one.

Owns reading its times and lifting it. What it does is :mod:`.strikes`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.faults import FaultRow
from pytest_tcpresilience.virtual.strikes import Active

if TYPE_CHECKING:
    from pytest_tcpresilience.virtual.link import VirtualLink
    from pytest_tcpresilience.virtual.network import Network


def whole_bytes(value: object) -> int:
    """``after_bytes``, if it is one.

    :raises UsageError: for what is no whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(
            f"after_bytes={value!r} is no number of bytes",
            expected="after_bytes as a whole number of at least 1",
            happened=f"got {value!r}",
            advice="leave it out for a fault that acts now",
        )
    return value


def check_start(network: Network, name: str, given: Mapping[str, object]) -> None:
    """Whether a fault can begin now, with these schedules.

    :raises UsageError: when the run is over, or there are several.
    """
    if network.over:
        raise UsageError(
            f"{name}: the run is over",
            expected="a fault before the run, or in it",
            happened="virtual time has ended with virtual_tcp.run(...)",
            advice="call it in the async function that runs",
        )
    if len(given) > 1:
        raise UsageError(
            f"{name}: {' and '.join(f'{key}=' for key in given)} together",
            expected="one schedule",
            happened="got " + " and ".join(f"{key}={value!r}" for key, value in given.items()),
            advice="drop one of them",
        )


class VirtualFault:
    """A fault that is active, or scheduled. As a context manager it is lifted at the end.

    Its times are seconds since the run began.
    """

    def __init__(
        self, link: VirtualLink, row: FaultRow, active: Active, *, scheduled: bool
    ) -> None:
        self._link = link
        self._row = row
        self.state = active
        self.scheduled = scheduled
        # The number of the only connection that it acts on; 0 for all.
        self.connection = active.only

    @property
    def name(self) -> str:
        """As in the fault table: ``"silent_drop"`` and so on."""
        return self._row.name

    @property
    def hits(self) -> tuple[Event, ...]:
        """One ``fault_hit`` event for each connection that it took hold of."""
        return tuple(
            event
            for event in self._link.events
            if event.kind == "fault_hit" and event["toxic"] == self.state.toxic
        )

    @property
    def hit_at(self) -> float | None:
        """When it first took hold of a connection; ``None`` if it has not."""
        hits = self.hits
        return hits[0].at if hits else None

    @property
    def active(self) -> bool:
        """Whether it is scheduled or in force."""
        return not self.state.lifted and not (self._row.once and self.hit_at is not None)

    @property
    def called_off(self) -> bool:
        return self.state.lifted

    async def until_hit(self, timeout: float | None = None) -> float:
        """Wait until it has hit, and return ``hit_at``.

        :param timeout: virtual seconds; for ever if not given.
        :raises UsageError: when it does not hit in time.
        """
        news = trio.Event()
        stop = self._link.listen(lambda event: news.set() if event.kind == "fault_hit" else None)
        try:
            with trio.move_on_after(float("inf") if timeout is None else timeout):
                while self.hit_at is None:
                    await news.wait()
                    news = trio.Event()
        finally:
            stop()
        if self.hit_at is None:
            raise self._unhit(f"it had not hit after {timeout:g} s of virtual time")
        return self.hit_at

    def wait_until_hit(self, timeout: float | None = None) -> float:
        """``hit_at``, if it has hit. Here nothing can block: await :meth:`until_hit`.

        :raises UsageError: when it has not hit.
        """
        hit_at = self.hit_at
        if hit_at is None:
            raise self._unhit("to wait here would block the thread, and time would stand still")
        return hit_at

    def _unhit(self, happened: str) -> UsageError:
        return UsageError(
            f"the {self.name} has not hit",
            expected="a connection for it to act on, idle for long enough if when_idle= was given",
            happened=happened,
            advice="connect first, stop talking, and wait with `await fault.until_hit()`",
        )

    def lift(self) -> None:
        """Undo it. What a silent drop or a stall has held up then arrives.

        A scheduled fault that has not hit is called off. Lifting twice does nothing.

        :raises UsageError: for a fault that cannot be undone and has hit.
        """
        if self.state.lifted:
            return
        if self._row.once and self.hit_at is not None:
            raise UsageError(
                f"the {self.name} cannot be lifted",
                expected="a fault that lasts, such as silent_drop or stall",
                happened=f"the {self.name} has hit: the connections are closed",
                advice="open a new connection through the link",
            )
        self._link.lift(self.state)

    def __enter__(self) -> VirtualFault:
        return self

    def __exit__(self, *exc: object) -> None:
        if not self.state.lifted and not self._link.ended:
            self._link.lift(self.state)

    def __repr__(self) -> str:
        return f"<VirtualFault {self.name} on {self._link.name}>"
