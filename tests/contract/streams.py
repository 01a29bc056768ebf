"""Toxics on a link, and transfers that must arrive whole."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pytest_tcpresilience.link import Link
from tests.contract.peers import Pair, receive_all, send_in_chunks

MEGABYTE = 1024 * 1024


def more_than_buffers_hold() -> int:
    """So many bytes, one way, that whoever writes them is held up when nobody reads.

    On both legs of a link a send buffer and a receive buffer, as large as the kernel lets them
    grow by themselves (32 MB each to receive, on recent ones), and the engine's pipe between.
    """
    most = [int(Path(f"/proc/sys/net/ipv4/tcp_{kind}mem").read_text().split()[2]) for kind in "rw"]
    return 2 * sum(most) + 4 * MEGABYTE


def add_toxic(link: Link, type_: str, stream: str = "downstream", **attributes: int) -> str:
    body = {"type": type_, "stream": stream, "attributes": attributes}
    return str(link.call("POST", "/toxics", body)["name"])


def remove_toxic(link: Link, name: str) -> None:
    link.call("DELETE", f"/toxics/{name}")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def cross(
    pair: Pair,
    pool: ThreadPoolExecutor,
    size: int,
    meanwhile: Callable[[], Any] = lambda: None,
    at_least: int = 1,
) -> None:
    """Random bytes in both directions at once, to the end of both streams.

    :param meanwhile: called again and again until all is written.
    :param at_least: how often, however fast the bytes cross: the last ones wait for it.
    """
    payloads = [random.Random(seed).randbytes(size) for seed in (1, 2)]
    enough = threading.Event()
    reading = [pool.submit(receive_all, sock) for sock in pair.ends[::-1]]

    def send(sock: socket.socket, payload: bytes, seed: int) -> None:
        send_in_chunks(sock, payload[:-1], seed)
        enough.wait()
        sock.sendall(payload[-1:])
        sock.shutdown(socket.SHUT_WR)

    writing = [
        pool.submit(send, sock, payload, seed)
        for seed, (sock, payload) in enumerate(zip(pair.ends, payloads, strict=True))
    ]
    try:
        for _ in range(at_least):
            meanwhile()
    finally:
        enough.set()
    while not all(each.done() for each in writing):
        meanwhile()
    for each in writing:
        each.result()
    arrived = [each.result() for each in reading]
    assert [digest(each) for each in arrived] == [digest(each) for each in payloads]
