"""The watched end, whichever network it is on: what it does, and how its read ends."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import termios
import time
from dataclasses import dataclass

from tests.groundtruth.scenarios import NEVER_S, WRITES, Scenario

# For what must happen at once; reached only by a failure.
WAIT_S = 15.0
LATE = b"late"
_TCP_QUICKACK = 12
TCP_SYNCNT = 7


@dataclass(frozen=True)
class Ended:
    """How a read ended: an errno's name, ``EOF``, ``data``, or None for not at all.

    :param own_timeout: whether a timeout of the socket's own ended it.
    """

    error: str | None
    at: float
    own_timeout: bool = False


def exchange(client: socket.socket, server: socket.socket) -> None:
    """One byte each way, acknowledged, with no acknowledgement pending."""
    for sender, receiver in ((client, server), (server, client)):
        sender.sendall(b"x")
        receiver.settimeout(WAIT_S)
        assert receiver.recv(1) == b"x"
    for sock in (client, server):
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, 1)
    deadline = time.monotonic() + WAIT_S
    while any(_unacknowledged(sock) for sock in (client, server)):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _unacknowledged(sock: socket.socket) -> int:
    answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    return int(struct.unpack("i", answer)[0])


def act(sock: socket.socket, scenario: Scenario) -> None:
    if scenario.does == WRITES:
        sock.sendall(LATE)


def name_of(error: OSError) -> str | None:
    # Only the kernel's verdict carries an errno; settimeout's TimeoutError does not.
    return errno.errorcode[error.errno] if error.errno else None


def read_to_the_end(sock: socket.socket, since: float) -> Ended:
    """Wait until the read ends, or as long as a row waits that never ends."""
    sock.settimeout(max(since + NEVER_S - time.monotonic(), 0.001))
    try:
        got = sock.recv(65536)
    except OSError as error:
        return Ended(name_of(error), time.monotonic(), own_timeout=not error.errno)
    return Ended("data" if got else "EOF", time.monotonic())


def connect(sock: socket.socket, address: tuple[str, int], attempts: int) -> Ended:
    """How connecting ended. ``attempts`` as in :class:`Scenario`."""
    if attempts:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, attempts)
    sock.settimeout(None if attempts else 1.0)
    try:
        sock.connect(address)
    except OSError as error:
        return Ended(name_of(error), time.monotonic(), own_timeout=not error.errno)
    return Ended("data", time.monotonic())
