"""What our clients do when a connection dies: each client with each fault, all at once."""

from __future__ import annotations

import asyncio
import socket

import trio

from pytest_tcpresilience import (
    Client,
    Keepalive,
    Link,
    Matrix,
    MatrixFault,
    Middlebox,
    RecordingServer,
)

KEEPALIVE = Keepalive(idle=1, interval=1, probes=1)
FIREWALL = Middlebox(idle_timeout=0.5, then="reset", name="our firewall")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


# --- a client that blocks, with keepalive and a timeout of its own ---------------------------


def connect(link: Link, timeout: float | None = None) -> socket.socket:
    sock = socket.create_connection((link.host, link.port), timeout)
    KEEPALIVE.apply(sock)
    return sock


def ask(sock: socket.socket) -> bytes:
    sock.sendall(b"hello\n")
    return read(sock)


def read(sock: socket.socket) -> bytes:
    data = sock.recv(100)
    if not data:
        raise EOFError("the server hung up")
    return data


# --- on asyncio, and on trio -----------------------------------------------------------------


async def open_streams(link: Link) -> Streams:
    reader, writer = await asyncio.open_connection(link.host, link.port)
    KEEPALIVE.apply(writer.get_extra_info("socket"))
    return reader, writer


async def ask_streams(streams: Streams) -> bytes:
    streams[1].write(b"hello\n")
    return await streams[0].readline()


async def read_streams(streams: Streams) -> bytes:
    return await streams[0].readexactly(1)


async def close_streams(streams: Streams) -> None:
    streams[1].close()


async def open_trio(link: Link) -> trio.SocketStream:
    stream = await trio.open_tcp_stream(link.host, link.port)
    KEEPALIVE.apply(stream.socket)
    return stream


async def ask_trio(stream: trio.SocketStream) -> None:
    await stream.send_all(b"hello\n")
    await stream.receive_some()


async def read_trio(stream: trio.SocketStream) -> None:
    if not await stream.receive_some():
        raise EOFError("the server hung up")


CLIENTS: list[Client[socket.socket] | Client[Streams] | Client[trio.SocketStream]] = [
    Client("socket", connect, warm_up=ask, wait=read),
    Client("socket, timeout", lambda link: connect(link, 1.5), warm_up=ask, wait=read, within=1.8),
    Client("asyncio", open_streams, warm_up=ask_streams, wait=read_streams, close=close_streams),
    Client("trio", open_trio, warm_up=ask_trio, wait=read_trio, runner="trio"),
]


def test_what_our_clients_do(tcp_matrix: Matrix, recording_server: RecordingServer) -> None:
    result = tcp_matrix(
        recording_server.address,  # put your own server in its place
        clients=CLIENTS,
        faults=[
            "silent_drop",
            MatrixFault("reset", within=0.5),
            MatrixFault("hang_up", within=0.5),
            MatrixFault(FIREWALL, within=1.5),
            "stall",
        ],
        within=KEEPALIVE,
        activity="wait",
        unaware=["stall and not timeout"],  # the stalled server's kernel answers keepalive
    )
    assert result["socket", "silent_drop"].detection.mechanism == "keepalive"
