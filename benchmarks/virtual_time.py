"""How long virtual time takes: the two-hour default, and many connections for a day."""

from __future__ import annotations

import socket
import sys
import time

import trio

from pytest_tcpresilience import Keepalive, detects_break
from pytest_tcpresilience.virtual.run import VirtualTcp

PORT = 7
DAY_S = 86_400.0
CONNECTIONS = 1000
JUDGED_LIMIT_S = 0.050
DAY_LIMIT_S = 30.0


async def answer(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    await stream.send_all(await stream.receive_some())
    await stream.receive_some()


def judge_the_default() -> float:
    """A client on 7200/75/9 behind a silent drop, judged by ``detects_break``."""
    begun = time.perf_counter()
    virtual = VirtualTcp()
    server = virtual.host("server")
    link = virtual(f"server:{PORT}")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            with server:
                await nursery.start(trio.serve_tcp, answer, PORT)
            stream = await trio.open_tcp_stream("server", PORT)
            Keepalive.linux_defaults().apply(stream.socket)
            await stream.send_all(b"hello")
            await stream.receive_some()
            with detects_break(link, within=Keepalive.linux_defaults()) as detection:
                link.silent_drop()
                await stream.receive_some()
            assert detection.after > 7000
            nursery.cancel_scope.cancel()

    virtual.run(main)
    return time.perf_counter() - begun


def hold_many(keepalive: Keepalive) -> tuple[float, int]:
    """Real seconds, and segments, of :data:`CONNECTIONS` connections for a day."""
    begun = time.perf_counter()
    virtual = VirtualTcp()
    server = virtual.host("server")

    async def one(started: float) -> None:
        await trio.sleep(started)
        stream = await trio.open_tcp_stream("server", PORT)
        keepalive.apply(stream.socket)
        await stream.send_all(b"hello")
        await stream.receive_some()
        await stream.receive_some()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            with server:
                await nursery.start(trio.serve_tcp, answer, PORT)
            for number in range(CONNECTIONS):
                nursery.start_soon(one, number * 0.618)
            await trio.sleep(DAY_S)
            assert len(server.endpoints) == CONNECTIONS
            nursery.cancel_scope.cancel()

    virtual.run(main)
    return time.perf_counter() - begun, virtual.trace.sent


def main() -> int:
    judge_the_default()  # imports
    times = sorted(judge_the_default() for _ in range(20))
    print(f"two-hour default, judged: {times[10] * 1000:.1f} ms (median of 20)")
    slow = times[10] > JUDGED_LIMIT_S
    for keepalive in (Keepalive.linux_defaults(), Keepalive(300, 30, 3)):
        seconds, segments = hold_many(keepalive)
        what = f"{CONNECTIONS} connections for 24 h, {keepalive}"
        print(f"{what}: {seconds:.1f} s, {segments} segments")
        # The limit is for the default; the other one has twelve times the segments.
        slow = slow or (keepalive.idle == 7200 and seconds > DAY_LIMIT_S)
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
