"""Errors on sockets that nobody reads at the moment.

Owns one epoll instance, which sleeps inside of trio's, and a callback for each socket. A
connection that is held, half-closed or still being dialled has no reader, so a reset would
be noticed with the next write only, which may never come. It does not know what a
connection is, nor what becomes of it then. Of those that :mod:`.carrier` has, that one hears
itself.

Why not a task for each socket: trio allows one reader for each, and an idle connection is
to cost a few kilobytes. Registered for no event at all, a socket still reports EPOLLERR
(epoll_ctl(2)), and nothing is called when data comes.
"""

from __future__ import annotations

import contextlib
import select
import sys
from collections.abc import Callable

import trio

MOST_AT_ONCE = 256


class Vigil:
    """:meth:`run` must be running for anything to be reported."""

    def __init__(self) -> None:
        self._callbacks: dict[int, Callable[[], None]] = {}
        # Elsewhere there is no epoll, and resets wait for their reader.
        self._epoll = select.epoll() if sys.platform == "linux" else None

    def watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the socket has an error, or if it has one already."""
        if self._epoll is None or self._epoll.closed:
            return
        self._callbacks[descriptor] = callback
        # Edge-triggered, or a socket that is closed both ways would report it for ever.
        self._epoll.register(descriptor, select.EPOLLET)

    def forget(self, descriptor: int, callback: Callable[[], None]) -> None:
        """No longer wanted. The number may belong to another socket by now."""
        if self._callbacks.get(descriptor) is callback:
            self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        del self._callbacks[descriptor]
        if self._epoll is not None and not self._epoll.closed:
            with contextlib.suppress(OSError):  # a socket that was closed has left by itself
                self._epoll.unregister(descriptor)

    async def run(self) -> None:
        """Until cancelled."""
        if self._epoll is None:
            return
        with self._epoll:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                for descriptor, events in self._epoll.poll(0, MOST_AT_ONCE):
                    # Closed both ways is no error (EPOLLHUP), and nothing to report.
                    callback = self._callbacks.get(descriptor)
                    if events & select.EPOLLERR and callback is not None:
                        self._drop(descriptor)
                        callback()
