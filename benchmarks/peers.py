"""Both ends of what is measured: servers in a process of their own, and clients.

They are cheap on purpose, so that what is measured is what is between them. The server of
a bulk transfer takes the bytes without copying them (MSG_TRUNC).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import select
import socket
import statistics
import struct
import time
from collections.abc import Iterator

Address = tuple[str, int]

CHUNK_BYTES = 1024 * 1024
_SIZE = struct.Struct("=Q")
TIMEOUT_S = 60.0


def _echo(listener: socket.socket) -> None:
    """Echoes on any number of connections."""
    epoll = select.epoll()
    listener.setblocking(False)
    epoll.register(listener.fileno(), select.EPOLLIN)
    socks: dict[int, socket.socket] = {}
    while True:
        for descriptor, _ in epoll.poll():
            if descriptor == listener.fileno():
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(TIMEOUT_S)
                socks[sock.fileno()] = sock
                epoll.register(sock.fileno(), select.EPOLLIN)
                continue
            sock = socks[descriptor]
            with contextlib.suppress(OSError):
                data = sock.recv(65536)
                if data:
                    sock.sendall(data)
                    continue
            del socks[descriptor]
            sock.close()


def _sink(listener: socket.socket) -> None:
    """Takes as many bytes as the first eight say, then answers with one."""
    buffer = bytearray(CHUNK_BYTES)
    while True:
        sock, _ = listener.accept()
        with sock, contextlib.suppress(OSError):
            head = sock.recv(_SIZE.size, socket.MSG_WAITALL)
            left = _SIZE.unpack(head)[0] if len(head) == _SIZE.size else 0
            while left:
                count = sock.recv_into(buffer, min(left, CHUNK_BYTES), socket.MSG_TRUNC)
                if not count:
                    break
                left -= count
            sock.sendall(b"k")
            sock.recv(1)


def _silent(listener: socket.socket) -> None:
    """Accepts and never reads."""
    kept = []
    while True:
        kept.append(listener.accept()[0])


KINDS = {"echo": _echo, "sink": _sink, "silent": _silent}


@contextlib.contextmanager
def servers() -> Iterator[dict[str, Address]]:
    """The address of each kind of server."""
    context = multiprocessing.get_context("fork")  # no thread runs yet
    listeners = {kind: socket.create_server(("127.0.0.1", 0), backlog=4096) for kind in KINDS}
    processes = [
        context.Process(target=KINDS[kind], args=[listener], daemon=True)
        for kind, listener in listeners.items()
    ]
    for process in processes:
        process.start()
    try:
        yield {kind: listener.getsockname() for kind, listener in listeners.items()}
    finally:
        for listener in listeners.values():
            listener.close()
        for process in processes:
            process.kill()
            process.join()


def connect(address: Address) -> socket.socket:
    sock = socket.create_connection(address, timeout=TIMEOUT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def bulk(address: Address, megabytes: int) -> float:
    """MB (1,000,000 bytes) per second, one way, to a ``sink``."""
    chunk = bytes(CHUNK_BYTES)
    with connect(address) as sock:
        sock.sendall(_SIZE.pack(megabytes * CHUNK_BYTES))
        begun = time.perf_counter()
        for _ in range(megabytes):
            sock.sendall(chunk)
        assert sock.recv(1) == b"k"
        return megabytes * CHUNK_BYTES / 1e6 / (time.perf_counter() - begun)


def round_trip(address: Address, size: int, count: int) -> float:
    """The median in µs, to an ``echo``."""
    message, buffer = bytes(size), bytearray(size)
    times = []
    with connect(address) as sock:
        for _ in range(count):
            begun = time.perf_counter()
            sock.sendall(message)
            got = 0
            while got < size:
                more = sock.recv_into(buffer)
                assert more
                got += more
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


def connects(address: Address, count: int) -> float:
    """Connections per second, one after the other: connect, one byte, its echo, RST."""
    begun = time.perf_counter()
    for _ in range(count):
        sock = connect(address)
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    return count / (time.perf_counter() - begun)


@contextlib.contextmanager
def idle(address: Address, count: int) -> Iterator[None]:
    """So many open connections to an ``echo``, each of which has carried a byte."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(connect(address))
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        yield


def _send_for_ever(address: Address) -> None:
    while True:
        bulk(address, 64)


@contextlib.contextmanager
def busy(address: Address) -> Iterator[None]:
    """Transfers to a ``sink``, one after the other, from a process of their own."""
    process = multiprocessing.get_context("fork").Process(
        target=_send_for_ever, args=[address], daemon=True
    )
    process.start()
    time.sleep(0.2)  # until the transfer is in full swing
    try:
        yield
    finally:
        process.kill()
        process.join()


@contextlib.contextmanager
def blocked(address: Address) -> Iterator[socket.socket]:
    """A connection to a ``silent``, with every buffer on the way full."""
    with connect(address) as sock:
        sock.settimeout(0.3)  # no progress for so long: it is full
        with contextlib.suppress(TimeoutError):
            while True:
                sock.send(bytes(65536))
        yield sock
