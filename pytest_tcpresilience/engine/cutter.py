"""What keeps segments of a connection from arriving, on both of its sockets.

Owns which cuts are on a connection, by the names of faults, and that a socket which is to
say its last word can. The recipes are :mod:`pytest_tcpresilience.kernel.cuts`'; when one of
them is wanted is :mod:`.strikes`'.

A fault below the byte stream acts on both sockets, so that client and server each see
it with their own kernel's timers, as with a real cable.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from pytest_tcpresilience.engine import probes
from pytest_tcpresilience.engine.legs import Leg, settle
from pytest_tcpresilience.engine.oneway import Direction, OneWay
from pytest_tcpresilience.engine.record import Hit
from pytest_tcpresilience.kernel import cuts

if TYPE_CHECKING:
    from pytest_tcpresilience.engine.connection import Connection


class Cutter:
    """The cuts on one connection.

    :ivar evicted: whether the next segment is answered with RST, and nothing heals that.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._silences: set[str] = set()
        # To look for a cut that may be on a socket costs a call for each that is reset.
        self._was_silenced = False
        self._one_way = OneWay()
        self.evicted = False

    @property
    def lets_nothing_in(self) -> bool:
        """Whether no segment arrives from either side."""
        return bool(self._silences) or self.evicted

    def __bool__(self) -> bool:
        """Whether a fault keeps segments of this connection from arriving."""
        return self.lets_nothing_in or bool(self._one_way)

    async def silence(self, name: str) -> Hit | None:
        """Cut both sides. ``None`` when the connection ended before it could be cut."""
        self._was_silenced = True  # by half, if it fails
        hit = await self._take_hold(name, lambda leg: cuts.silence(leg.sock))
        if hit is not None:
            self._silences.add(name)
        return hit

    async def evict(self, name: str) -> Hit | None:
        """Have both sides' next segments answered with RST. ``None`` as for a cut.

        The connection is held for good: there is no way out for what would cross.
        """
        hit = await self._take_hold(name, lambda leg: cuts.evict(leg.sock))
        if hit is not None:
            self.evicted = True
        return hit

    async def lose(self, name: str, direction: Direction) -> Hit | None:
        """Have all that is sent in one direction vanish. ``None`` as for a cut.

        The connection is not held: the other direction goes on.
        """
        hit = await self._take_hold(name, lambda leg: self._one_way.lose(name, direction, [leg]))
        self._connection.release(name)
        return hit

    async def _take_hold(self, name: str, recipe: Callable[[Leg], None]) -> Hit | None:
        connection = self._connection
        connection.hold(name)
        settled = await settle(list(connection.legs()))
        try:
            if connection.closed is not None:  # while it settled
                raise OSError(errno.ENOTCONN, connection.closed)
            probes.look(connection)  # what comes from now on is not answered
            for leg in connection.legs():
                recipe(leg)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EBADF, errno.EINVAL):
                raise
            connection.release(name)
            return None
        return connection.hit(settled)

    def heal(self, name: str) -> None:
        """Undo :meth:`silence`; what both sides had sent meanwhile arrives."""
        self._silences.discard(name)
        if not self._silences:
            for leg in self._connection.legs():
                with contextlib.suppress(OSError):
                    cuts.heal(leg.sock, leg.peer)
        self._connection.release(name)

    def restore(self, name: str) -> None:
        """Undo :meth:`lose`; what was not acknowledged meanwhile arrives."""
        self._one_way.restore(name, self._connection.legs())
        self._connection.carriage.look_again()

    def join(self, leg: Leg) -> None:
        """A leg that came to the connection, which may be gone again, while it was cut."""
        with contextlib.suppress(OSError):
            if self._silences:
                cuts.silence(leg.sock)
            if self.evicted:
                cuts.evict(leg.sock)
            self._one_way.join(leg)

    def strand(self, name: str, leg: Leg | None) -> None:
        """Silence one leg at once, whose other one is closed in the same moment."""
        self._was_silenced = True
        if leg is not None:
            with contextlib.suppress(OSError):  # gone in the same moment
                cuts.silence(leg.sock)
        self._silences.add(name)

    def reset(self, leg: Leg) -> None:
        """Close with a RST that arrives, whatever is on the connection."""
        self._connection.carriage.alight()
        if leg.sock.fileno() >= 0:
            trio.lowlevel.notify_closing(leg.sock)
            self._one_way.let_speak(leg)
            if self.evicted:
                cuts.reset_evicted(leg.sock)
            else:
                cuts.reset(leg.sock, leg.peer if self._was_silenced else None)

    def close(self, leg: Leg) -> None:
        """Close as an application does; or with RST, where that could not be heard.

        Closed as it is under a cut, the socket would retry a FIN that nobody can read, or
        say nothing at all.
        """
        if self:
            self.reset(leg)
        elif leg.sock.fileno() >= 0:
            trio.lowlevel.notify_closing(leg.sock)
            leg.sock.close()
