"""Carries the API and all proxies on one listening socket, until something ends it.

Owns what the session's engine and the one of the command line have in common. Who
starts it, and what its end is, are its callers'.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import trio

from pytest_tcpresilience._version import __version__
from pytest_tcpresilience.engine.api import Api
from pytest_tcpresilience.engine.http import Server


@dataclass(frozen=True)
class Options:
    """How an engine differs from another.

    :param secret: what each request must show; ``None`` lets everybody in.
    :param seed: of all that is random; drawn if not given.
    :param proxy_metrics: whether ``/metrics`` is there.
    :param proxies: made before the first request, as ``POST /populate`` takes them.
    """

    secret: str | None
    seed: int | None = None
    proxy_metrics: bool = False
    proxies: object = field(default_factory=list)


async def serve(
    sock: socket.socket,
    options: Options,
    ends: Iterable[Callable[[], Awaitable[None]]],
    ready: Callable[[Api], None] = lambda api: None,
) -> None:
    """Serve until the first of ``ends`` returns.

    :param ready: called when the proxies of ``options`` are there.
    :raises ApiError: for a proxy that cannot be made.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        scope = nursery.cancel_scope

        async def until(end: Callable[[], Awaitable[None]]) -> None:
            await end()
            scope.cancel()

        for end in ends:
            nursery.start_soon(until, end)
        api = Api(nursery, __version__, seed=options.seed, proxy_metrics=options.proxy_metrics)
        try:
            await api.make_all(options.proxies)
            ready(api)
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
            await Server(api.handle, options.secret).serve(listener)
        except Exception as error:
            # Past the nursery, which would wrap it into a group.
            failure = error
            scope.cancel()
    if failure is not None:
        raise failure
