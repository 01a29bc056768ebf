"""What inner suites with matrices have in common: clients, good and bad ones, and a witness."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.inner import Inner

CLIENTS = """
    import asyncio
    import json
    import socket
    import sys
    import threading
    import time

    import pytest
    import trio

    from pytest_tcpresilience import Client, Keepalive, MatrixFault, UsageError

    KEEPALIVE = Keepalive(1, 1, 1)

    def connect(link):
        return socket.create_connection((link.host, link.port))

    def connect_alive(link):
        sock = connect(link)
        KEEPALIVE.apply(sock)
        return sock

    def ask(sock):
        sock.sendall(b"hello\\n")
        if sock.recv(100) != b"hello\\n":
            raise EOFError("the server hung up")

    def wait(sock):
        if not sock.recv(1):
            raise EOFError("the server hung up")

    async def open_streams(link):
        return await asyncio.open_connection(link.host, link.port)

    async def ask_streams(streams):
        streams[1].write(b"hello\\n")
        if await streams[0].readline() != b"hello\\n":
            raise EOFError("the server hung up")

    async def wait_streams(streams):
        await streams[0].readexactly(1)

    def close_streams(streams):
        streams[1].close()

    async def open_trio(link):
        return await trio.open_tcp_stream(link.host, link.port)

    async def ask_trio(stream):
        await stream.send_all(b"hello\\n")
        if await stream.receive_some() != b"hello\\n":
            raise EOFError("the server hung up")

    async def wait_trio(stream):
        if not await stream.receive_some():
            raise EOFError("the server hung up")

    SOCKET = Client("socket", connect, read=ask, wait=wait)
    ASYNCIO = Client(
        "asyncio", open_streams, read=ask_streams, wait=wait_streams, close=close_streams
    )
    TRIO = Client("trio", open_trio, read=ask_trio, wait=wait_trio, runner="trio")
"""

# Notes what is on each report, and whose it is.
WITNESS = """
    import json

    def pytest_runtest_logreport(report):
        luggage = getattr(report, "tcpresilience", None)
        if luggage is not None:
            context = getattr(report, "context", None)
            note = [context and context.msg, report.when, json.loads(luggage)]
            with open({notes!r}, "a") as file:
                print(json.dumps(note), file=file)
"""


@dataclass(frozen=True)
class Kept:
    """What one report has carried."""

    subtest: str | None
    when: str
    records: list[dict[str, Any]]
    deselected: list[str]


def witness(inner: Inner) -> Path:
    """Have the inner suite note its records; where."""
    notes = inner.pytester.path / "reports.jsonl"
    inner.pytester.makeconftest(WITNESS.format(notes=str(notes)))
    return notes


def kept(notes: Path) -> list[Kept]:
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [
        Kept(subtest, when, luggage["records"], luggage["deselected"])
        for subtest, when, luggage in map(json.loads, lines)
    ]
