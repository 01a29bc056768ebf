"""A close that never arrives: the client is gone, and its server does not know.

Owns the trap on one connection, which waits for the client's close, FIN or RST, and keeps it
from the server. The client's kernel gets the answers of an ordinary close. The upstream's
socket falls silent in the same moment, or the engine's own kernel would answer the server's
keepalive for a client that is gone.

A client that ends its own stream only (half-close) sends the same FIN, and counts as one
that closes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from pytest_tcpresilience.engine import record
from pytest_tcpresilience.engine.legs import Leg, is_settled
from pytest_tcpresilience.engine.record import Ending, Hit
from pytest_tcpresilience.kernel import cuts

if TYPE_CHECKING:
    from pytest_tcpresilience.engine.connection import Connection

POLL_S = 0.005


async def _delivered(leg: Leg) -> bool:
    """Wait until the peer has acknowledged everything, or has gone.

    :returns: whether it has acknowledged.
    """
    while True:
        try:
            leg.sock.getpeername()
            if not cuts.unacknowledged(leg.sock):
                return True
        except OSError:
            return False
        await trio.sleep(POLL_S)


class LostClose:
    """The traps on one connection, each by the name of a fault. The first one takes it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._traps: dict[str, Callable[[Hit], None]] = {}
        self._taken_by: str | None = None

    @property
    def armed(self) -> bool:
        """Whether the next close is to be lost."""
        return bool(self._traps) and self._connection.closed is None

    def trap(self, name: str, tell: Callable[[Hit], None]) -> None:
        """:param tell: is called when the close has been lost."""
        self._traps[name] = tell
        self._connection.carriage.look_again()

    def let_go(self, name: str) -> None:
        """Take the trap away.

        What it has taken stays lost. The way is free again, so the server's next segment
        reaches a host that does not know the connection, and is answered with RST.
        """
        self._traps.pop(name, None)
        if self._taken_by == name:
            self._connection.be_unknown()
        else:
            self._connection.carriage.look_again()

    async def take_fin(self, upstream: Leg) -> None:
        """The client has ended its stream, and all of it has been passed on."""
        hit = self._connection.hit()
        # The close is lost, and not the data before it, however slowly the server reads.
        delivered = await _delivered(upstream)
        if self.armed:
            self._take(record.by_peer("client"), replace(hit, settled=delivered))

    def take_reset(self, error: OSError) -> None:
        """The client reset its connection, or the kernel gave it up."""
        hit = self._connection.hit(settled=is_settled(self._connection.legs()))
        self._take(record.by_peer("client", error), hit)

    def _take(self, ending: Ending, hit: Hit) -> None:
        self._taken_by = next(iter(self._traps))
        tell = self._traps[self._taken_by]
        self._connection.part(self._taken_by, ending)
        tell(hit)
