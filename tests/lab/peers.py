"""Connections across a lab, in the hands of the test."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_tcpresilience import Keepalive, Lab
from pytest_tcpresilience.lab.segment import Segment
from tests.groundtruth.ends import exchange

WAIT_S = 10.0
OFF = Keepalive(1, 1, 1, enabled=False)


@dataclass(frozen=True)
class Ends:
    client: socket.socket
    server: socket.socket

    def exchange(self) -> None:
        exchange(self.client, self.server)


@contextlib.contextmanager
def connected(lab: Lab, *, client: Keepalive = OFF, server: Keepalive = OFF) -> Iterator[Ends]:
    """A connection that has carried a byte each way, with nothing unacknowledged."""
    with (
        lab.server.listen() as listener,
        lab.client.connect(listener.getsockname()) as near,
        listener.accept()[0] as far,
    ):
        client.apply(near)
        server.apply(far)
        ends = Ends(near, far)
        ends.exchange()
        yield ends


def ending(sock: socket.socket, limit_s: float = WAIT_S) -> tuple[str, float]:
    """How a read ends, and when: an errno's name, ``EOF``, ``data`` or ``nothing``."""
    sock.settimeout(limit_s)
    try:
        got = sock.recv(100)
    except OSError as error:
        name = errno.errorcode[error.errno] if error.errno else "nothing"
        return name, time.monotonic()
    return "data" if got else "EOF", time.monotonic()


def after(segments: tuple[Segment, ...], since: float) -> list[Segment]:
    return [each for each in segments if each.at >= since]
