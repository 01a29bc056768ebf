"""Carries the API and all proxies on one listening socket, until something ends it.

Owns what the session's engine and the one of the command line have in common. Who
starts it, and what its end is, are its callers'.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import trio

from pytest_tcpresilience._version import __version__
from pytest_tcpresilience.engine import descriptors
from pytest_tcpresilience.engine.api import Api
from pytest_tcpresilience.engine.carrier import carry
from pytest_tcpresilience.engine.farewell import delete_all
from pytest_tcpresilience.engine.http import Server
from pytest_tcpresilience.engine.neighbour import Neighbour
from pytest_tcpresilience.engine.tenants import Tenants


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
    descriptors.raise_limit()
    failure: Exception | None = None
    seed = secrets.randbits(32) if options.seed is None else options.seed
    # Who asks for no secret starts no programs.
    neighbour = None if options.secret is None else Neighbour()
    async with trio.open_nursery() as nursery:
        scope = nursery.cancel_scope

        async def until(end: Callable[[], Awaitable[None]]) -> None:
            await end()
            await delete_all(tenants.end())
            scope.cancel()

        def make() -> Api:
            return Api(
                nursery,
                __version__,
                seed=seed,
                proxy_metrics=options.proxy_metrics,
                neighbour=neighbour,
            )

        nursery.start_soon(carry)
        tenants = Tenants(nursery, make)
        for each in ends:
            nursery.start_soon(until, each)
        try:
            await tenants.common.make_all(options.proxies)
            ready(tenants.common)
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
            # Without a secret there is nobody to believe a name of.
            handle = tenants.common.handle if options.secret is None else tenants.handle
            await Server(handle, options.secret).serve(listener)
        except Exception as error:
            # Past the nursery, which would wrap it into a group.
            failure = error
            scope.cancel()
    if neighbour is not None:
        neighbour.end()
    if failure is not None:
        raise failure
