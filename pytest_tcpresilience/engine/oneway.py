"""One-way loss on a connection: what is sent in one direction vanishes, unacknowledged.

Owns which direction is lost, for which faults, and what that means for the two sockets of
the engine. With the loss of what the client sends, its own socket goes deaf, so that the
client's segments vanish and the server's still come; and the upstream's goes mute, so that
the server is neither sent anything nor acknowledged, and what it sends still comes. The
other direction is the mirror image. Everything else goes on: bytes that arrive are passed on.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from pytest_tcpresilience.engine.legs import Leg, Side
from pytest_tcpresilience.kernel import oneway

Direction = Literal["to_server", "to_client"]
DIRECTIONS: tuple[Direction, ...] = ("to_server", "to_client")

# What becomes of each socket.
_EFFECTS: Mapping[Direction, Mapping[Side, Callable[..., None]]] = {
    "to_server": {"client": oneway.deafen, "upstream": oneway.mute},
    "to_client": {"client": oneway.mute, "upstream": oneway.deafen},
}


class OneWay:
    """The directions of one connection that are lost, each by the name of a fault."""

    def __init__(self) -> None:
        self._lost: dict[str, Direction] = {}

    def __bool__(self) -> bool:
        return bool(self._lost)

    def lose(self, name: str, direction: Direction, legs: Iterable[Leg]) -> None:
        """:raises OSError: ENOTCONN when a leg's peer is gone already."""
        for leg in legs:
            _EFFECTS[direction][leg.side](leg.sock)
        self._lost[name] = direction

    def join(self, leg: Leg) -> None:
        """A leg that came to the connection while a direction is lost."""
        for direction in self._lost.values():
            _EFFECTS[direction][leg.side](leg.sock)

    def restore(self, name: str, legs: Iterable[Leg]) -> None:
        """Undo one fault; another one's loss goes on."""
        if self._lost.pop(name, None) is None:
            return
        for leg in legs:
            oneway.restore(leg.sock)
            self.join_if_connected(leg)

    def join_if_connected(self, leg: Leg) -> None:
        try:
            self.join(leg)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EINVAL):
                raise

    def let_speak(self, leg: Leg) -> None:
        """Before a leg says its last word, which would be lost too."""
        if self._lost:
            oneway.restore(leg.sock)
