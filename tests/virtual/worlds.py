"""A virtual network with an echo server, and programs for it."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from pytest_tcpresilience import Keepalive
from pytest_tcpresilience.virtual.run import VirtualTcp

PORT = 7


async def echo(stream: trio.SocketStream) -> None:
    try:
        async for data in stream:
            await stream.send_all(data)
    except trio.BrokenResourceError:
        return


@asynccontextmanager
async def serving(
    virtual: VirtualTcp,
    handler: Callable[[trio.SocketStream], Awaitable[object]] = echo,
    *,
    host: str = "server",
    port: int = PORT,
) -> Any:
    """A server on a host of its own, for as long as the block."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        with virtual.host(host):
            await nursery.start(trio.serve_tcp, handler, port)
        try:
            yield nursery
        except (Exception, trio.Cancelled) as error:
            failure = error  # as itself, and not in the nursery's group
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def connected(
    keepalive: Keepalive | None = None, *, host: str = "server", port: int = PORT
) -> trio.SocketStream:
    """A client that has had one answer."""
    stream = await trio.open_tcp_stream(host, port)
    if keepalive is not None:
        keepalive.apply(stream.socket)
    await stream.send_all(b"hello")
    assert await stream.receive_some() == b"hello"
    return stream


def keep_alive(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
