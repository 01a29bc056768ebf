"""What the kernel says about the TCP sockets of any process: sock_diag over netlink.

Owns the exact lookup of a 4-tuple, and lists of all connections or of those with one
port, unprivileged, for this network namespace. A lookup costs some 12 µs whatever the
number of sockets; a list is filtered by the kernel. The module does not poll and does
not judge.

Source of the layouts: uapi/linux/inet_diag.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from typing import Final

from pytest_tcpresilience.kernel import netlink
from pytest_tcpresilience.kernel.tcpinfo import TcpInfo

NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_ALL_STATES: Final = 0xFFFFFFFF
_NO_COOKIE: Final = 0xFFFFFFFF
# Extension and attribute INET_DIAG_INFO: an extension is asked for by a bit, 1 << (n - 1).
_INFO: Final = 2
_INFO_BIT: Final = 1 << (_INFO - 1)
_NO_ADDRESS: Final = bytes(16)
_MAPPED: Final = bytes(10) + b"\xff\xff"
# One answer is some 500 bytes long; a dump comes in pieces as long as they may be.
_ANSWER: Final = 2048
_PIECE: Final = 65536

_REQUEST = struct.Struct("=BBBBI")
_SOCKID_TAIL = struct.Struct("=III")
_MESSAGE_TAIL = struct.Struct("=IIIII")
_MESSAGE_SIZE: Final = 72

# include/net/tcp_states.h
STATES: Final = (
    "unknown",
    "established",
    "syn-sent",
    "syn-recv",
    "fin-wait-1",
    "fin-wait-2",
    "time-wait",
    "closed",
    "close-wait",
    "last-ack",
    "listen",
    "closing",
    "new-syn-recv",
)
# net/ipv4/inet_diag.c, inet_sk_diag_fill
TIMERS: Final = {0: "off", 1: "retransmit", 2: "keepalive", 3: "time-wait", 4: "persist"}

Address = tuple[str, int]


@dataclass(frozen=True)
class SocketState:
    """One answer of the kernel.

    :param state: TCP state, in lower case with dashes.
    :param timer: which timer is armed: ``off``, ``retransmit``, ``keepalive``,
        ``time-wait`` or ``persist``. ``off`` on an idle connection means that
        ``SO_KEEPALIVE`` is off.
    :param expires: seconds until that timer fires.
    :param unanswered: probes or retransmissions that went unanswered so far.
    :param unacknowledged: bytes written and not acknowledged.
    :param unread: bytes received that the application has not read.
    :param uid: owner.
    :param inode: of the socket; 0 once the application has closed it.
    :param info: what the kernel counts, where it was asked for.
    """

    state: str
    timer: str
    expires: float
    unanswered: int
    unacknowledged: int
    unread: int
    uid: int
    inode: int
    info: TcpInfo | None = None


@dataclass(frozen=True)
class Listed:
    """A socket in a list. An IPv4 address is written as one, also on an IPv6 socket."""

    local: Address
    remote: Address
    seen: SocketState


# What counts as a connection that both of its ends may still believe in.
CONNECTED: Final = ("established", "fin-wait-1", "fin-wait-2", "close-wait", "closing", "last-ack")


def _parse(body: bytes) -> SocketState:
    _family, state, timer, retrans = body[:4]
    expires, rqueue, wqueue, uid, inode = _MESSAGE_TAIL.unpack_from(body, 52)
    return SocketState(
        state=STATES[state] if state < len(STATES) else "unknown",
        timer=TIMERS.get(timer, "unknown"),
        expires=expires / 1000,
        unanswered=retrans,
        unacknowledged=wqueue,
        unread=rqueue,
        uid=uid,
        inode=inode,
        info=_info(body),
    )


def _info(body: bytes) -> TcpInfo | None:
    if len(body) == _MESSAGE_SIZE:
        return None
    data = netlink.attribute(body, _MESSAGE_SIZE, _INFO)
    return None if data is None else TcpInfo.parse(data)


def text_of_address(family: int, packed: bytes) -> str:
    """An address as text; an IPv4 one as such, also where IPv6 carries it."""
    if family == socket.AF_INET:
        return socket.inet_ntop(family, packed[:4])
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)


def _listed(body: bytes) -> Listed:
    local_port, remote_port = struct.unpack_from("!HH", body, 4)
    return Listed(
        (text_of_address(body[0], body[8:24]), local_port),
        (text_of_address(body[0], body[24:40]), remote_port),
        _parse(body),
    )


def _request(
    family: int, states: int, extensions: int, ports: tuple[int, int], addresses: bytes
) -> bytes:
    return b"".join(
        (
            _REQUEST.pack(family, socket.IPPROTO_TCP, extensions, 0, states),
            struct.pack("!HH", *ports),
            addresses,
            _SOCKID_TAIL.pack(0, _NO_COOKIE, _NO_COOKIE),
        )
    )


class SockDiag:
    """A netlink socket for exact lookups. Not for use by several threads at once.

    :raises OSError: where the kernel or a sandbox refuses netlink.
    """

    def __init__(self) -> None:
        self._sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG
        )
        # The kernel answers within send(); the limit is for a kernel that does not.
        self._sock.settimeout(1.0)
        self._sequence = 0

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> SockDiag:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def lookup(self, local: Address, remote: Address, *, info: bool = False) -> SocketState | None:
        """The socket whose own address is ``local`` and whose peer is ``remote``.

        :param info: whether to bring :class:`.TcpInfo` along.
        :returns: ``None`` when there is none (any more).
        :raises OSError: for any other answer of the kernel.
        """
        self._send(local, remote, _INFO_BIT if info else 0)
        kind, body = self._answer()
        if kind != netlink.ERROR:
            return _parse(body)
        error = netlink.error_of(body)
        if error is None or error.errno == errno.ENOENT:
            return None
        raise error

    def connections(
        self, *, local_port: int = 0, remote_port: int = 0, info: bool = False
    ) -> list[Listed]:
        """Every connection of this network namespace, IPv4 and IPv6.

        :param local_port: only those with this port of their own; 0 for any.
        :param remote_port: only those whose peer has this port; 0 for any.
        :param info: as for :meth:`lookup`.
        :raises OSError: for a refusal by the kernel.
        """
        ports = local_port, remote_port
        found = self._dump(socket.AF_INET, ports, info)
        try:
            found += self._dump(socket.AF_INET6, ports, info)
        except OSError as error:
            # ENOENT is the answer of a kernel without IPv6.
            if error.errno != errno.ENOENT:
                raise
        return found

    def _dump(self, family: int, ports: tuple[int, int], info: bool) -> list[Listed]:
        states = sum(1 << STATES.index(name) for name in CONNECTED)
        body = _request(family, states, _INFO_BIT if info else 0, ports, 2 * _NO_ADDRESS)
        self._sequence += 1
        self._sock.send(
            netlink.frame(
                _SOCK_DIAG_BY_FAMILY, netlink.REQUEST | netlink.DUMP, self._sequence, body
            )
        )
        found: list[Listed] = []
        while True:
            for kind, sequence, answer in netlink.messages(self._sock.recv(_PIECE)):
                if sequence != self._sequence:
                    continue
                if kind in (netlink.ERROR, netlink.DONE):
                    error = netlink.error_of(answer)
                    if error is not None:
                        raise error
                    return found
                found.append(_listed(answer))

    def _answer(self) -> tuple[int, bytes]:
        """Kind and body of the answer to the last lookup, which is a message by itself."""
        while True:
            datagram = self._sock.recv(_ANSWER)
            length, kind, _flags, sequence, _port = netlink.HEADER.unpack_from(datagram)
            # Another is the late answer to a request that was interrupted.
            if sequence == self._sequence:
                return kind, datagram[netlink.HEADER.size : length]

    def _send(self, local: Address, remote: Address, extensions: int = 0) -> None:
        self._sequence += 1
        family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
        addresses = b"".join(
            (
                socket.inet_pton(family, local[0].partition("%")[0]).ljust(16, b"\0"),
                socket.inet_pton(family, remote[0].partition("%")[0]).ljust(16, b"\0"),
            )
        )
        body = _request(family, _ALL_STATES, extensions, (local[1], remote[1]), addresses)
        self._sock.send(netlink.frame(_SOCK_DIAG_BY_FAMILY, netlink.REQUEST, self._sequence, body))
