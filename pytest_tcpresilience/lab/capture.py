"""Every segment that passes one interface of the lab, with the kernel's time.

Owns the packet socket and the thread that empties it. What the bytes mean is
:mod:`.segment`'s, and how they are shown is :mod:`.listing`'s.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping

from pytest_tcpresilience.errors import HarnessError
from pytest_tcpresilience.lab.listing import listing
from pytest_tcpresilience.lab.segment import Address, Segment, parse

# include/uapi/linux/if_ether.h, if_packet.h, asm-generic/socket.h
_ETH_P_ALL = 0x0003
_ETH_P_IP = 0x0800
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_OUTGOING = 4
_SO_TIMESTAMPNS = 35
# Enough for the headers of TCP and of an ICMP error.
_SNAP_BYTES = 256
_TIMESPEC = struct.Struct("@qq")
_BUFFER_BYTES = 4 << 20
# Reading a clock takes far less than this, unless the process is interrupted meanwhile.
_AT_ONCE_S = 20e-6
_MOST_READINGS = 50


def clock_offset(
    wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
) -> float:
    """How far the wall clock is ahead of CLOCK_MONOTONIC, in seconds.

    The two cannot be read at once. On a busy machine milliseconds may pass in between, and
    each segment would seem that much later; so the closest of several readings counts.
    """
    closest = float("inf"), 0.0
    for _ in range(_MOST_READINGS):
        before = steady()
        now = wall()
        after = steady()
        closest = min(closest, (after - before, now - (before + after) / 2))
        if closest[0] <= _AT_ONCE_S:
            break
    return closest[1]


class Capture:
    """What an interface has seen since the capture was made. Made by ``host.capture()``.

    As a context manager it stops at the end of the block; what it has stays.

    :param sock: a packet socket of the host's namespace, the capture's from now on.
    """

    def __init__(self, sock: socket.socket, interface: str, names: Mapping[str, str]) -> None:
        self._sock = sock
        self._names = names
        self._seen: list[Segment] = []
        self._lost = 0
        self._lock = threading.Lock()
        # Stamps are of the wall clock, and are told on the clock that nobody turns.
        self._offset = clock_offset()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.bind((interface, _ETH_P_ALL))
        sock.setblocking(False)
        self._wake, self._stop = socket.socketpair()
        self._thread = threading.Thread(
            target=self._follow, name="tcpresilience-capture", daemon=True
        )
        self._thread.start()

    def _follow(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while all(fd != self._wake.fileno() for fd, _ in poll.poll()):
            with self._lock:
                self._drain()

    def _drain(self) -> None:
        while self._sock.fileno() >= 0:
            try:
                packet, stamps, _, address = self._sock.recvmsg(_SNAP_BYTES, 64)
            except BlockingIOError:
                return
            except OSError:
                # The interface went away: a cable that was pulled for good.
                return
            if address[1] == _ETH_P_IP and stamps:
                seconds, nanoseconds = _TIMESPEC.unpack(stamps[0][2])
                at = seconds + nanoseconds / 1e9 - self._offset
                segment = parse(packet, at, address[2] == _PACKET_OUTGOING)
                if segment is not None:
                    self._seen.append(segment)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All so far, in the order of the wire.

        :raises HarnessError: when there were more than could be kept.
        """
        with self._lock:
            self._drain()
            if self._sock.fileno() >= 0:
                counts = self._sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
                self._lost += struct.unpack("II", counts)[1]
            if self._lost:
                raise HarnessError(
                    f"the capture lost {self._lost} segment(s)",
                    expected="every segment",
                    happened="they came faster than this process could take them",
                    advice="capture less: begin later, or send less",
                )
            return tuple(self._seen)

    def between(self, one: Address, other: Address) -> tuple[Segment, ...]:
        """Those of one connection, in either direction."""
        ends = {one, other}
        return tuple(each for each in self.segments if {each.source, each.destination} == ends)

    def listing(self, *, since: float | None = None) -> str:
        """A line for each segment, as tcpdump would write it.

        :param since: CLOCK_MONOTONIC, seconds, at which the listing's time begins; the
            first segment's if not given. Those before are left out.
        """
        return listing(self.segments, self._names, since=since)

    def stop(self) -> None:
        """Capture no more. Twice is once."""
        if not self._thread.is_alive() and self._sock.fileno() < 0:
            return
        self._stop.send(b"x")
        self._thread.join()
        with self._lock:
            self._drain()
            self._sock.close()
        self._stop.close()
        self._wake.close()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def __str__(self) -> str:
        return self.listing()
