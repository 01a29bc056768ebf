"""Who has the bytes of a connection at the moment: the carrier, or its own pumps.

Owns the hand-over between the two, in both directions. Whoever puts something on a
connection that acts on its bytes or its sockets says so by :meth:`Carriage.look_again`, and
the carrier has let go of it when that returns. How bytes cross is :mod:`.way`'s and
:mod:`.pump`'s; what becomes of a connection whose socket failed is its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from pytest_tcpresilience.engine import carrier
from pytest_tcpresilience.engine.legs import Leg
from pytest_tcpresilience.engine.pump import Pump
from pytest_tcpresilience.engine.toxics import STREAMS
from pytest_tcpresilience.engine.way import Broken, Way

if TYPE_CHECKING:
    from pytest_tcpresilience.engine.connection import Connection


class Carriage:
    """:param connection: whose bytes these are."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._carrier = carrier.current()
        # While the carrier has both ways, and how its end is waited for.
        self._ride: carrier.Ride | None = None
        self._alighted = trio.Event()
        # Made when first needed: few connections ever meet a fault.
        self._pumps: tuple[Pump, ...] = ()
        self._pumping_on = trio.CancelScope()

    @property
    def riding(self) -> bool:
        """Whether the carrier has the connection."""
        return self._ride is not None

    async def run(self, client: Leg, upstream: Leg) -> None:
        """Until both directions have ended, each time in the way that the faults allow."""
        ways = (
            Way(self._connection, "upstream", client, upstream),
            Way(self._connection, "downstream", upstream, client),
        )
        # One that was aborted has no sockets any more, and nothing to be cancelled for.
        while not (all(way.ended for way in ways) or self._connection.aborted):
            await trio.lowlevel.checkpoint_if_cancelled()
            if not (self._is_plain() and await self._ride_along(ways)):
                await self._pump(ways)

    def _is_plain(self) -> bool:
        """Whether nothing acts on the bytes or the sockets, so that the carrier may have them."""
        connection = self._connection
        return (
            self._carrier is not None
            and connection.is_pumping
            and not any(connection.halted(stream) for stream in STREAMS)
            and not connection.cutter
            and not connection.lost_close.armed
            and not connection.mourner.mourns
            and not connection.counts_bytes
            and not any(connection.shapes(stream) for stream in STREAMS)
            and all(pump.at_rest for pump in self._pumps)
        )

    async def _ride_along(self, ways: tuple[Way, Way]) -> bool:
        """Let the carrier have it, until a fault wants it or it ends. Whether it could."""
        assert self._carrier is not None
        alighted = self._alighted = trio.Event()
        failure: Exception | None = None

        def done(ride: carrier.Ride) -> None:
            nonlocal failure
            failure = self._over(ride)
            alighted.set()

        # It hears of errors itself, and the error must not be told twice.
        self._connection.mourner.forget()
        try:
            ride = self._carrier.take(ways, done)
        except OSError:  # no room for more in its epoll
            self._carrier = None
            self._connection.watch()
            return False
        if not ride.over:
            self._ride = ride
        try:
            await alighted.wait()
        finally:
            self.alight()
        if failure is not None:
            raise failure
        return True

    def _over(self, ride: carrier.Ride) -> Exception | None:
        """A ride has come to its end by itself. What is wrong with us, if something is.

        In the carrier's own turn: no fault comes between an error and its being passed on.
        """
        self._ride = None
        try:
            if isinstance(ride.failure, Broken):
                self._connection.broke(ride.failure.leg, ride.failure.error)
                return None
            if not all(way.ended for way in ride.ways):
                # For good: with a socket that has failed the connection is about to end.
                self._carrier = None
                self._connection.watch()
        except Exception as error:
            return error
        return ride.failure

    def alight(self) -> None:
        """Have the bytes and the sockets back from the carrier."""
        if self._ride is not None:
            assert self._carrier is not None
            self._carrier.dismiss(self._ride)
            self._ride = None
            self._alighted.set()
            self._connection.watch()

    async def _pump(self, ways: tuple[Way, Way]) -> None:
        if not self._pumps:
            self._pumps = tuple(Pump(self._connection, way) for way in ways)
        with trio.CancelScope() as self._pumping_on:
            async with trio.open_nursery() as nursery:
                for pump in self._pumps:
                    nursery.start_soon(pump.run, nursery)

    def look_again(self) -> None:
        """What acts on the connection has changed."""
        if not self._is_plain():
            self.alight()
        for pump in self._pumps:
            pump.wake()
        self.came_to_rest()

    def came_to_rest(self) -> None:
        """What kept the connection from the carrier may be over: then that has it again."""
        if self._pumps and self._is_plain():
            self._pumping_on.cancel()

    def forget(self, name: str) -> None:
        """A stream toxic was removed."""
        for pump in self._pumps:
            pump.forget(name)
