"""Resets that nobody reads, on the two sockets of a connection.

Owns what becomes of a leg that has failed while its pump was not reading: the connection is
held, half-closed, left unread, or still being dialled. That there was an error is the
:mod:`.vigil`'s to say; how a connection ends is its own.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from pytest_tcpresilience.engine import record
from pytest_tcpresilience.engine.legs import Leg
from pytest_tcpresilience.kernel import cuts

if TYPE_CHECKING:
    from pytest_tcpresilience.engine.connection import Connection

# How long an upstream that is being dialled may still answer once the client is gone. What
# the client had sent then arrives, as it would without a hop in between.
DIAL_GRACE_S = 1.0
# A direction that has moved nothing for so long, with bytes to read, is held up by its
# receiver. No bytes survive a reset then.
HELD_UP_S = 0.010


def _reset_by(leg: Leg) -> record.Ending:
    """The errno itself is left for the reader, or taken; a reset has no other one."""
    return record.by_peer(leg.side, OSError(errno.ECONNRESET, "reset"))


class Mourner:
    """:param connection: whose legs are watched, from :meth:`watch` to :meth:`forget`.

    :ivar mourns: whether a leg has failed.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._vigil = connection.proxy.vigil
        self.mourns = False
        self._watched: list[tuple[int, Callable[[], None]]] = []

    def watch(self, leg: Leg) -> None:
        descriptor = leg.sock.fileno()
        if descriptor < 0:  # a fault has closed it already
            return

        def failed() -> None:
            self.mourns = True
            self._connection.timers.start_soon(lambda: self._mourn(leg))

        self._watched.append((descriptor, failed))
        self._vigil.watch(descriptor, failed)

    def forget(self) -> None:
        for descriptor, callback in self._watched:
            self._vigil.forget(descriptor, callback)
        self._watched.clear()

    async def _mourn(self, leg: Leg) -> None:
        """A leg has failed. If nobody reads there who could tell, pass it on.

        While the connection is held, nothing crosses, no reset either: a frozen peer
        learns of it when it wakes, and the other end of a dead line never does. A client
        that has gone is recorded all the same, unless its close is to be lost: that one
        comes after what the client had sent.
        """
        connection = self._connection
        heard = leg.side == "client" and not connection.cutter.lets_nothing_in
        if connection.held and heard and not connection.lost_close.armed:
            connection.conclude("reset", _reset_by(leg))
        await connection.released()
        with trio.move_on_after(DIAL_GRACE_S):
            await connection.dialled.wait()
        await self._read_out(leg)
        if leg.sock.fileno() < 0:
            return
        if connection.is_pumping:
            code = leg.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            # EPIPE is Linux's word for a reset that comes after a FIN (tcp_reset()).
            code = code if code not in (0, errno.EPIPE) else errno.ECONNRESET
            connection.broke(leg, OSError(code, "noticed without a reader"))
        else:
            connection.lost(leg, _reset_by(leg))

    async def _read_out(self, leg: Leg) -> None:
        """Wait until what came before the error is read, or nobody reads it."""
        before, left = -1, 0
        while leg.sock.fileno() >= 0 and self._connection.is_pumping:
            left = cuts.unread(leg.sock)
            if left in (0, before):
                return
            before = left
            await trio.sleep(HELD_UP_S)
