"""The port of a proxy: open, silent, or refusing.

Owns the listening socket and the promise that the port stays the proxy's for as long as
it is not closed, also while nobody listens on it. It does not accept: whoever made it is
told when there is a socket to accept from, and when to take what waits on it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import trio

from pytest_tcpresilience.engine.endpoints import BACKLOG
from pytest_tcpresilience.kernel import capabilities, cuts

# The name for which a disabled proxy keeps its port; no toxic can have it.
_KEPT = ""


def _beside(other: socket.socket) -> socket.socket:
    """A socket bound to the address of another that allows it (SO_REUSEPORT)."""
    sock = socket.socket(other.family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if other.family == socket.AF_INET6:
            only = other.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.bind(other.getsockname())
    except OSError:
        sock.close()
        raise
    return sock


class Door:
    """:param serve: accepts from a listening socket until :attr:`listener` is another.

    :param drain: accepts at once whatever waits on a listening socket.
    """

    def __init__(
        self,
        serve: Callable[[socket.socket], None],
        drain: Callable[[socket.socket], None],
    ) -> None:
        self._serve = serve
        self._drain = drain
        self.listener: socket.socket | None = None
        # Bound and never listening: it holds the port while connections are refused.
        self._reservation: socket.socket | None = None
        # The toxics that keep the door silent, and shut.
        self._silent: set[str] = set()
        self._shut: set[str] = set()

    def open(self, listener: socket.socket) -> None:
        """Take over a listening socket. What is in force stays so."""
        self.listener = listener
        if self._silent:
            cuts.silence_listener(listener)
        if self._shut:
            self._reserve(listener)
        else:
            self._serve(listener)

    def keep(self, listener: socket.socket | None = None) -> None:
        """Stop listening, and hold the port, until :meth:`open_again` or :meth:`close`.

        Clients that wait to be accepted are reset.

        :param listener: to be closed, where the door has not been open.
        """
        self._shut.add(_KEPT)
        self.listener = listener or self.listener
        if self.listener is not None:
            self._hold_port(self.listener)
        self._stop_listening()

    @property
    def kept(self) -> bool:
        return _KEPT in self._shut

    def open_again(self) -> None:
        """After :meth:`keep`; a toxic may still have the door refuse."""
        self.let_go(_KEPT)

    def close(self) -> None:
        """Give the port up. Does nothing the second time."""
        self._shut.discard(_KEPT)
        self._stop_listening()
        if self._reservation is not None:
            self._reservation.close()
            self._reservation = None

    def _stop_listening(self) -> None:
        if self.listener is not None:
            trio.lowlevel.notify_closing(self.listener)
            self.listener.close()
            self.listener = None

    def silence(self, name: str) -> None:
        """Leave every SYN unanswered, until :meth:`let_go` of ``name``."""
        self._silent.add(name)
        if self.listener is not None:
            cuts.silence_listener(self.listener)

    def refuse(self, name: str) -> None:
        """Have every SYN answered with RST, until :meth:`let_go` of ``name``."""
        self._shut.add(name)
        if self.listener is not None:
            self._reserve(self.listener)

    def _hold_port(self, listener: socket.socket) -> None:
        self._reservation = _beside(listener)
        # Not for others. (Linux remembers it: one of the same user that asks to share the
        # port may still have it.)
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)

    def _reserve(self, listener: socket.socket) -> None:
        self._hold_port(listener)
        # To their clients they are connected, and closing the listener would reset them.
        self._drain(listener)
        self._stop_listening()

    def let_go(self, name: str) -> None:
        """The toxic is removed."""
        self._silent.discard(name)
        self._shut.discard(name)
        if not self._silent:
            self.heal()
        if self._reservation is not None and not self._shut:
            self._listen_again(self._reservation)

    def heal(self) -> None:
        """Answer SYNs again, whatever is in force."""
        if self.listener is not None and not capabilities.probe().lacks(("silence_listener",)):
            cuts.heal_listener(self.listener)

    def _listen_again(self, reservation: socket.socket) -> None:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener = _beside(reservation)
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._silent:  # before the first SYN can be answered
            cuts.silence_listener(listener)
        listener.listen(BACKLOG)
        self._reservation = None
        reservation.close()
        self.open(listener)
