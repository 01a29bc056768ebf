"""Who has a connection: the carrier, unless something acts on its bytes or sockets."""

from __future__ import annotations

import select
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.testing

from pytest_tcpresilience.engine.carrier import carry
from pytest_tcpresilience.engine.connection import Connection
from pytest_tcpresilience.engine.endpoints import split_address
from pytest_tcpresilience.engine.proxy import Proxy
from pytest_tcpresilience.engine.vigil import Vigil
from pytest_tcpresilience.kernel import capabilities
from tests.contract.peers import WAIT_S, close_with_reset

pytestmark = pytest.mark.skipif(
    not hasattr(select, "epoll"), reason="elsewhere there is no carrier"
)
LONG_MS = 600_000


@dataclass
class Scene:
    """A proxy in this process, and a connection through it."""

    proxy: Proxy
    connection: Connection
    client: trio.SocketStream
    server: trio.SocketStream

    def riding(self) -> bool:
        return self.connection.carriage.riding

    async def echoes(self) -> bool:
        """Whether a byte crosses in each direction."""
        for source, sink in ((self.client, self.server), (self.server, self.client)):
            await source.send_all(b"x")
            if await sink.receive_some() != b"x":
                return False
        return True


def _staged(play: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        vigil = Vigil()
        with socket.create_server(("127.0.0.1", 0)) as listener, trio.fail_after(WAIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(carry)
                nursery.start_soon(vigil.run)
                upstream = "{}:{}".format(*listener.getsockname())
                proxy = Proxy("p", "127.0.0.1:0", upstream, "seed", vigil)
                await nursery.start(proxy.run)
                await proxy.enable()
                client = await trio.open_tcp_stream(*split_address(proxy.listen, "listen"))
                listener.setblocking(False)
                await trio.lowlevel.wait_readable(listener)
                server = trio.SocketStream(trio.socket.from_stdlib_socket(listener.accept()[0]))
                async with client, server:
                    await proxy.has_connections()
                    scene = Scene(proxy, proxy.connections[1], client, server)
                    assert await scene.echoes()
                    assert scene.riding()
                    await play(scene)
                    proxy.end()
                nursery.cancel_scope.cancel()

    trio.run(main)


# Each that acts on bytes or sockets, and that can be lifted without ending the connection.
ACTING: dict[str, dict[str, Any]] = {
    "stall": {},
    "time_out": {"timeout": LONG_MS},
    "silent_drop": {},
    "silent_drop, one way": {"direction": "to_server"},
    "evict_drop": {},
    "evict_drop_inbound": {},
    "stop_reading": {"side": "client"},
    "stop_reading, the server": {"side": "server"},
    "lose_close": {},
    "latency": {"latency": 1},
    "bandwidth": {"rate": 1000},
    "slow_close": {"delay": 1},
    "slicer": {"average_size": 100, "size_variation": 0, "delay": 1},
    "limit_data": {"bytes": LONG_MS},
    "reset_peer": {"timeout": LONG_MS},
    "hang_up, after so many bytes": {"after_bytes": LONG_MS},
}


@pytest.mark.parametrize("name", ACTING)
def test_what_acts_on_a_connection_takes_it_back_at_once(name: str) -> None:
    type_ = name.partition(",")[0]

    async def play(scene: Scene) -> None:
        body = {"name": "it", "type": type_, "attributes": ACTING[name]}
        await scene.proxy.add_toxic(body)
        assert not scene.riding()
        await trio.testing.wait_all_tasks_blocked()
        assert not scene.riding()
        await scene.proxy.remove_toxic("it")
        assert await scene.echoes()
        await trio.testing.wait_all_tasks_blocked()
        assert scene.riding(), "the carrier does not have it back"

    lacking = capabilities.probe().lacks(("silence", "heal", "deafen", "mute"))
    if lacking:
        pytest.skip(lacking)
    _staged(play)


def test_it_is_back_when_the_last_of_two_is_lifted_and_not_before() -> None:
    async def play(scene: Scene) -> None:
        await scene.proxy.add_toxic({"name": "one", "type": "stall"})
        await scene.proxy.add_toxic({"name": "two", "type": "lose_close"})
        await scene.proxy.remove_toxic("one")
        await trio.testing.wait_all_tasks_blocked()
        assert not scene.riding()
        await scene.proxy.remove_toxic("two")
        await trio.testing.wait_all_tasks_blocked()
        assert scene.riding()
        assert await scene.echoes()

    _staged(play)


def test_a_toxic_of_another_connection_leaves_it_to_the_carrier() -> None:
    async def play(scene: Scene) -> None:
        other = await trio.open_tcp_stream(*split_address(scene.proxy.listen, "listen"))
        while len(scene.proxy.connections) < 2:
            await scene.proxy.opened().wait()
        body = {"name": "it", "type": "stall", "attributes": {"connection": 2}}
        await scene.proxy.add_toxic(body)
        assert scene.riding()
        await other.aclose()

    _staged(play)


def test_what_is_counted_and_pending_is_exact_while_the_carrier_has_it() -> None:
    async def play(scene: Scene) -> None:
        client = scene.client.socket
        sent = 2  # both echoes of the stage
        with trio.move_on_after(0.2):  # nobody reads: every buffer on the way fills
            while True:
                sent += await client.send(bytes(65536))
        assert scene.riding()
        counters = scene.connection.counters
        document = scene.connection.document()
        assert counters.upstream > counters.written["upstream"] > 0
        assert document["bytes_upstream"] == counters.upstream
        received = 1
        with trio.move_on_after(0.2):
            while received < sent - 1:
                received += len(await scene.server.receive_some())
        assert received == sent - 1 == counters.upstream == counters.written["upstream"]
        assert scene.connection.document()["pending_upstream"] == 0
        assert scene.riding()

    _staged(play)


def test_an_error_that_no_read_tells_is_left_to_those_who_mourn() -> None:
    """The client has ended its stream and resets; it has one errno, whoever sees it."""

    async def play(scene: Scene) -> None:
        await scene.client.send_eof()
        assert await scene.server.receive_some() == b""
        assert scene.riding()
        close_with_reset(socket.socket(fileno=scene.client.socket.detach()))
        while scene.proxy.connections:
            await scene.proxy.events.wait_since(scene.proxy.events.last, WAIT_S)
            await trio.testing.wait_all_tasks_blocked()
        closed = scene.proxy.history[0]["closed"]
        assert (closed["by"], closed["how"], closed["errno"]) == ("client", "reset", "ECONNRESET")

    _staged(play)
