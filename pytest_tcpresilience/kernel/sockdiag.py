"""What the kernel says about one TCP socket of any process: sock_diag over netlink.

Owns the exact lookup of a 4-tuple, unprivileged, for this network namespace. One
lookup costs some 10 µs whatever the number of sockets. The module does not poll and
does not judge.

Source of the layouts: uapi/linux/netlink.h, uapi/linux/inet_diag.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_NLMSG_ERROR: Final = 2
_ALL_STATES: Final = 0xFFFFFFFF
_NO_COOKIE: Final = 0xFFFFFFFF

_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI")
_SOCKID_TAIL = struct.Struct("=III")
_MESSAGE_TAIL = struct.Struct("=IIIII")

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
    """

    state: str
    timer: str
    expires: float
    unanswered: int
    unacknowledged: int
    unread: int
    uid: int
    inode: int


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

    def lookup(self, local: Address, remote: Address) -> SocketState | None:
        """The socket whose own address is ``local`` and whose peer is ``remote``.

        :returns: ``None`` when there is none (any more).
        :raises OSError: for any other answer of the kernel.
        """
        self._send(local, remote)
        while True:
            answer = self._sock.recv(8192)
            length, kind, _flags, sequence, _pid = _HEADER.unpack_from(answer)
            if sequence != self._sequence:
                continue  # the late answer to a lookup that was interrupted
            if kind == _NLMSG_ERROR:
                code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
                if code == errno.ENOENT:
                    return None
                raise OSError(code, os.strerror(code))
            return _parse(answer[_HEADER.size : length])

    def _send(self, local: Address, remote: Address) -> None:
        self._sequence += 1
        family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
        request = b"".join(
            (
                _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES),
                struct.pack("!HH", local[1], remote[1]),
                socket.inet_pton(family, local[0].partition("%")[0]).ljust(16, b"\0"),
                socket.inet_pton(family, remote[0].partition("%")[0]).ljust(16, b"\0"),
                _SOCKID_TAIL.pack(0, _NO_COOKIE, _NO_COOKIE),
            )
        )
        header = _HEADER.pack(
            _HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, self._sequence, 0
        )
        self._sock.send(header + request)
