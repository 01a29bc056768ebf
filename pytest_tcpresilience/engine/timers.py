"""Work that goes on beside a connection, most of it for a toxic and by its name.

Owns which of it is running. What the work is, is :mod:`.strikes`' or the proxy's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from pytest_tcpresilience.engine.connection import Connection


class Timers:
    """:param connection: with which all of it ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._scopes: dict[str, trio.CancelScope] = {}
        # Of all that runs, whether it has a name or not.
        self._running: list[trio.CancelScope] = []
        self._ended = False

    def start_soon(self, work: Callable[[], Awaitable[None]]) -> None:
        """Work that ends with the connection at the latest; none when that is ending.

        It is the proxy's nursery that takes it. One for each connection would cost memory,
        and few connections need one.
        """
        if self._connection.is_ending or self._ended:
            return
        scope = trio.CancelScope()
        self._running.append(scope)

        async def run() -> None:
            with scope:
                await work()
            self._running.remove(scope)

        self._connection.proxy.start_soon(partial(self._connection.guard, run))

    def end(self) -> None:
        """The connection ends, and with it all that goes on beside it."""
        self._ended = True
        for scope in self._running:
            scope.cancel()

    def after(self, name: str, delay_s: float, action: Callable[[], object]) -> None:
        """Call ``action()`` in ``delay_s`` seconds, unless :meth:`disarm` comes first."""

        async def timer() -> None:
            await trio.sleep(delay_s)
            action()

        self.beside(name, timer)

    def beside(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work()`` until it ends, the connection ends, or :meth:`disarm` comes."""
        if self._connection.closed:
            return
        scope = self._scopes[name] = trio.CancelScope()

        async def scoped() -> None:
            with scope:
                await work()

        self.start_soon(scoped)

    def disarm(self, name: str) -> None:
        scope = self._scopes.pop(name, None)
        if scope is not None:
            scope.cancel()
