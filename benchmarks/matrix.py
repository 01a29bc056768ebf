"""How long a matrix of 48 cells takes, and whether its verdicts are those of single cells.

``python -m benchmarks.matrix`` runs 6 faults × 8 clients at once, ``--rounds`` times, and with
``--alone`` each cell by itself too, which takes some minutes. The limit is the longest
window and one second. The exit status is 1 where that, or a verdict, is not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import pytest
import trio

from pytest_tcpresilience import Client, Keepalive, Link, Matrix, MatrixResult, RecordingServer
from pytest_tcpresilience.matrix.selection import Selection
from pytest_tcpresilience.tcp.windows import idle_window

KEEPALIVE = Keepalive(idle=1, interval=1, probes=2)
LONGEST_S = idle_window(KEEPALIVE).latest
BESIDES_S = 1.0
FAULTS = ("silent_drop", "evict_reset", "evict_drop", "stall", "reset", "hang_up")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Verdict = tuple[bool, str, str] | list[Any]


def connect(link: Link) -> socket.socket:
    sock = socket.create_connection((link.host, link.port))
    KEEPALIVE.apply(sock)
    return sock


def connect_bare(link: Link) -> socket.socket:
    return socket.create_connection((link.host, link.port))


def connect_timed(link: Link) -> socket.socket:
    return socket.create_connection((link.host, link.port), 2.0)


def ask(sock: socket.socket) -> None:
    sock.sendall(b"hello\n")
    assert sock.recv(100)


def wait(sock: socket.socket) -> None:
    if not sock.recv(1):
        raise EOFError("the server hung up")


def select(sock: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        if selector.select(0.5):
            wait(sock)


async def open_streams(link: Link) -> Streams:
    reader, writer = await asyncio.open_connection(link.host, link.port)
    KEEPALIVE.apply(writer.get_extra_info("socket"))
    return reader, writer


async def ask_streams(streams: Streams) -> None:
    streams[1].write(b"hello\n")
    await streams[0].readline()


async def wait_streams(streams: Streams) -> None:
    await streams[0].readexactly(1)


async def wait_streams_timed(streams: Streams) -> None:
    await asyncio.wait_for(streams[0].readexactly(1), 2.0)


async def close_streams(streams: Streams) -> None:
    streams[1].close()


async def open_trio(link: Link) -> trio.SocketStream:
    stream = await trio.open_tcp_stream(link.host, link.port)
    KEEPALIVE.apply(stream.socket)
    return stream


async def ask_trio(stream: trio.SocketStream) -> None:
    await stream.send_all(b"hello\n")
    await stream.receive_some()


async def wait_trio(stream: trio.SocketStream) -> None:
    if not await stream.receive_some():
        raise EOFError("the server hung up")


async def wait_trio_timed(stream: trio.SocketStream) -> None:
    with trio.fail_after(2.0):
        await wait_trio(stream)


CLIENTS: tuple[Client[Any], ...] = (
    Client("socket", connect, warm_up=ask, wait=wait),
    Client("bare socket", connect_bare, warm_up=ask, wait=wait),
    # Sooner than keepalive can be, so these fail where keepalive is promised.
    Client("socket, timeout", connect_timed, warm_up=ask, wait=wait),
    Client("selectors", connect, warm_up=ask, wait=select),
    Client("asyncio", open_streams, warm_up=ask_streams, wait=wait_streams, close=close_streams),
    Client(
        "asyncio, timeout",
        open_streams,
        warm_up=ask_streams,
        wait=wait_streams_timed,
        close=close_streams,
        within=LONGEST_S,
    ),
    Client("trio", open_trio, warm_up=ask_trio, wait=wait_trio, runner="trio"),
    Client(
        "trio, timeout",
        open_trio,
        warm_up=ask_trio,
        wait=wait_trio_timed,
        runner="trio",
        within=LONGEST_S,
    ),
)
UNAWARE = ("stall and not timeout", "bare and (drop or evict)")


def _run(
    matrix: Matrix, server: RecordingServer, clients: tuple[Client[Any], ...], *faults: str
) -> MatrixResult:
    names = [f"{client.name} × {fault}" for client in clients for fault in faults]
    unaware = [Selection(each, "benchmark") for each in UNAWARE]
    return matrix(
        server.address,
        clients=clients,
        faults=faults,
        within=KEEPALIVE,
        activity="wait",
        unaware=[each.text for each in unaware if any(name in each for name in names)],
    )


# Where the tests below, which a pytest of its own runs, leave their figures.
FIGURES = "MATRIX_FIGURES"
ROUNDS = "MATRIX_ROUNDS"


def _verdicts(result: MatrixResult) -> dict[str, Verdict]:
    found: dict[str, Verdict] = {}
    for cell in result:
        # Its times differ from run to run.
        summary = re.sub(r"[\d.]+", "…", str(cell.error).partition("\n")[0]) if cell.error else ""
        by = str(cell.detection.mechanism) if cell.noticed else ""
        found[f"{cell.client} × {cell.fault}"] = cell.passed, by, summary
    return found


def _tell(kind: str, seconds: float, verdicts: Mapping[str, Verdict]) -> None:
    with open(os.environ[FIGURES], "a") as file:
        print(json.dumps([kind, seconds, verdicts]), file=file)


@pytest.mark.parametrize("_round", range(int(os.environ.get(ROUNDS, "1"))))
def test_together(tcp_matrix: Matrix, recording_server: RecordingServer, _round: int) -> None:
    begun = time.monotonic()
    result = _run(tcp_matrix, recording_server, CLIENTS, *FAULTS)
    _tell("together", time.monotonic() - begun, _verdicts(result))


def test_alone(tcp_matrix: Matrix, recording_server: RecordingServer) -> None:
    begun = time.monotonic()
    found: dict[str, Verdict] = {}
    for client in CLIENTS:
        for fault in FAULTS:
            found |= _verdicts(_run(tcp_matrix, recording_server, (client,), fault))
    _tell("alone", time.monotonic() - begun, found)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matrix", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often, all at once (3)")
    parser.add_argument("--alone", action="store_true", help="each cell by itself as well")
    parsed = parser.parse_args(arguments)
    wanted = "together or alone" if parsed.alone else "together"
    with tempfile.NamedTemporaryFile("r") as figures:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-k",
                wanted,
                __file__,
            ],
            env={**os.environ, FIGURES: figures.name, ROUNDS: str(parsed.rounds)},
            # Failures that belong to the table.
            stdout=subprocess.DEVNULL,
            check=False,
        )
        found = [json.loads(line) for line in figures]
    return _judge(found)


def _judge(found: list[tuple[str, float, dict[str, Verdict]]]) -> int:
    first = found[0][2]
    different = {
        name: (verdict, other[name])
        for _, _, other in found[1:]
        for name, verdict in first.items()
        if other[name] != verdict
    }
    passed = sum(verdict[0] for verdict in first.values())
    print(f"{len(first)} cells, {passed} as promised; longest window {LONGEST_S:.2f} s")
    for kind, seconds, _ in found:
        print(f"{kind}: {seconds:.2f} s")
    for name, verdicts in different.items():
        print(f"differs: {name}: {verdicts}")
    slow = any(kind == "together" and s > LONGEST_S + BESIDES_S for kind, s, _ in found)
    return int(slow or bool(different))


if __name__ == "__main__":
    sys.exit(main())
