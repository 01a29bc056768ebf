"""The two sockets of a connection, each a leg, and how they are brought to rest.

Owns a leg from accept or dial on. What is done to a leg is :mod:`.connection`'s.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import trio

from pytest_tcpresilience.kernel import counts, cuts

# Linux holds an acknowledgement back for up to 48 ms on loopback (measured, n = 30);
# after twice that, whatever is still unacknowledged is data in flight.
SETTLE_S = 0.100
SETTLE_POLL_S = 0.001

Side = Literal["client", "upstream"]


@dataclass
class Leg:
    """One of the two sockets of a connection.

    :param peer: the address at the other end, kept because a socket whose connection is
        gone no longer knows it.
    """

    side: Side
    sock: socket.socket
    peer: str


def client_leg(sock: socket.socket, peer: str) -> Leg:
    """The client's leg from an accepted socket.

    :param peer: as accept() named it. A client that has reset its connection while it
        waited there can no longer be asked, but what it had sent can still be read.
    """
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Leg("client", sock, peer)


def upstream_leg(sock: socket.socket) -> Leg:
    """The upstream's leg from a connected socket, which may have been reset since."""
    try:
        peer = str(sock.getpeername()[0])
    except OSError:
        peer = ""  # no cut can be put on it, so none will have to be removed
    return Leg("upstream", sock, peer)


async def readable(leg: Leg) -> None:
    """Wait until there is something to read, be it the end.

    :raises trio.ClosedResourceError: when the socket is closed, meanwhile or already. trio
        itself would take the latter for a file descriptor of -1, and remember the wait for
        the next closed socket to stumble over.
    """
    _check_open(leg)
    await trio.lowlevel.wait_readable(leg.sock)


async def writable(leg: Leg) -> None:
    """Wait until the socket takes more. Errors as :func:`readable`."""
    _check_open(leg)
    await trio.lowlevel.wait_writable(leg.sock)


def _check_open(leg: Leg) -> None:
    if leg.sock.fileno() < 0:
        raise trio.ClosedResourceError("a fault has closed this socket")


async def settle(legs: Iterable[Leg]) -> bool:
    """Wait, for at most 0.1 s, until all peers have acknowledged what was sent.

    A cut in the middle of a delayed acknowledgement would leave the client with
    unacknowledged data, and keepalive does not run then.

    :returns: whether they have.
    """
    socks = [leg.sock for leg in legs]
    with trio.move_on_after(SETTLE_S):
        while True:
            try:
                for sock in socks:
                    cuts.acknowledge_now(sock)
                if not any(cuts.unacknowledged(sock) for sock in socks):
                    return True
            except OSError:
                return False  # gone in the meantime
            await trio.sleep(SETTLE_POLL_S)
    return False


def is_settled(legs: Iterable[Leg]) -> bool:
    """Whether all peers have acknowledged what was sent."""
    try:
        return not any(cuts.unacknowledged(leg.sock) for leg in legs)
    except OSError:
        return False  # gone in the meantime


def segments(legs: Iterable[Leg]) -> int:
    """How many segments the peers have sent, keepalive probes included."""
    return sum(counts.segments_in(leg.sock) for leg in legs)


async def data_after_fin(leg: Leg) -> bool:
    """Wait for what a peer sends after our FIN: data, or else its end."""
    while True:
        try:
            await readable(leg)
            return bool(leg.sock.recv(1))
        except BlockingIOError:
            continue
        except (OSError, trio.ClosedResourceError):
            return False
