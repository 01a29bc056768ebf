"""Both ends of a connection through a link, in the hands of the test."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import struct
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pytest_tcpresilience.kernel.sockdiag import SockDiag, SocketState
from pytest_tcpresilience.tcp.keepalive import Keepalive

# For what must happen at once, or not much later than that; reached only by a failure.
WAIT_S = 10.0
# Idle, interval, probes: a cut is noticed after two seconds.
QUICK = Keepalive(idle=1, interval=1, probes=1)


class RawServer:
    """A listener from which the test itself accepts."""

    def __init__(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self._listener.settimeout(WAIT_S)
        self._accepted: list[socket.socket] = []
        self.host = host
        self.port = int(self._listener.getsockname()[1])

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def accept(self) -> socket.socket:
        sock, _ = self._listener.accept()
        sock.settimeout(WAIT_S)
        self._accepted.append(sock)
        return sock

    def has_a_client_waiting(self) -> bool:
        self._listener.setblocking(False)
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return False
        finally:
            self._listener.settimeout(WAIT_S)
        self._accepted.append(sock)
        return True

    def close(self) -> None:
        self._listener.close()
        for sock in self._accepted:
            sock.close()


@dataclass(frozen=True)
class Pair:
    """The client's socket and the upstream's of one connection through a link."""

    client: socket.socket
    server: socket.socket

    @property
    def ends(self) -> tuple[socket.socket, socket.socket]:
        return self.client, self.server

    def exchange(self) -> None:
        """Something in each direction; the connection is carried from end to end."""
        for sender, receiver in (self.ends, self.ends[::-1]):
            sender.sendall(b"ping")
            assert receive(receiver, 4) == b"ping"


@dataclass(frozen=True)
class Seen:
    """How a blocking read ended.

    :param what: ``"data"``, ``"EOF"``, an errno's name, or ``"nothing"`` when the
        test's own limit ended it.
    :param at: CLOCK_MONOTONIC, seconds.
    """

    what: str
    at: float
    data: bytes = b""


def see(sock: socket.socket, limit_s: float = WAIT_S) -> Seen:
    """Read once, and say how that ended."""
    sock.settimeout(limit_s)
    try:
        data = sock.recv(65536)
    except OSError as error:
        # Only the kernel's verdict carries an errno; settimeout's TimeoutError does not.
        name = errno.errorcode[error.errno] if error.errno else "nothing"
        return Seen(name, time.monotonic())
    return Seen("data" if data else "EOF", time.monotonic(), data)


def receive(sock: socket.socket, count: int) -> bytes:
    """Exactly ``count`` bytes, or fewer at the end of the stream."""
    sock.settimeout(WAIT_S)
    data = bytearray()
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            break
        data += more
    return bytes(data)


def receive_all(sock: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    sock.settimeout(WAIT_S)
    data = bytearray()
    while more := sock.recv(65536):
        data += more
    return bytes(data)


def send_in_chunks(sock: socket.socket, payload: bytes, seed: int) -> None:
    """All of it, in pieces from one byte to more than a socket's buffer takes at once."""
    sizes = random.Random(seed)
    sock.settimeout(WAIT_S)
    left = memoryview(payload)
    while left:
        size = int(2 ** sizes.uniform(0, 18))
        sock.sendall(left[:size])
        left = left[size:]


def close_with_reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_quiet(sock: socket.socket) -> bool:
    """Whether nothing has come so far: no byte, no end, no error."""
    sock.setblocking(False)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        sock.settimeout(WAIT_S)
    return False


def with_keepalive(pair: Pair) -> Pair:
    for sock in pair.ends:
        QUICK.apply(sock)
    return pair


def watch(pool: ThreadPoolExecutor, *pairs: Pair) -> list[Future[Seen]]:
    """How a read ends, at both ends of each pair, at the same time."""
    return [pool.submit(see, sock) for pair in pairs for sock in pair.ends]


def what(seen: list[Future[Seen]]) -> list[str]:
    return [each.result().what for each in seen]


def is_alive(process_id: int) -> bool:
    """Whether a process runs; one that has ended and is not yet waited for does not."""
    with contextlib.suppress(OSError), open(f"/proc/{process_id}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] not in "ZX"
    return False


def look(sock: socket.socket) -> SocketState | None:
    """What the kernel says of a connected socket, by its 4-tuple."""
    local, peer = sock.getsockname(), sock.getpeername()
    with SockDiag() as diag:
        return diag.lookup(local[:2], peer[:2])


def unacknowledged_for_good(sock: socket.socket) -> int:
    """As below, once a retransmission has gone unanswered: no ACK is delayed for so long."""
    give_up_at = time.monotonic() + WAIT_S
    while time.monotonic() < give_up_at:
        state = look(sock)
        if state is None or not state.unacknowledged:
            return 0
        if state.timer == "retransmit" and state.unanswered:
            return state.unacknowledged
        time.sleep(0.01)
    raise AssertionError("neither acknowledged nor retransmitted")


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that the kernel of this end still holds, for want of an acknowledgement."""
    state = look(sock)
    assert state is not None
    return state.unacknowledged
