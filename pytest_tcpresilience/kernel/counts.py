"""What ``TCP_INFO`` says about a socket of this process.

Owns the places of the fields in ``struct tcp_info`` (uapi/linux/tcp.h), and reads; it does
not poll and does not judge.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final, NamedTuple

TCP_ESTABLISHED: Final = 1
# The offsets of tcpi_state, tcpi_unacked, tcpi_bytes_acked and _received (64 bits), and
# tcpi_segs_in, which Linux has had since 4.2.
_FIELDS: Final = struct.Struct("=B23xI92xQQ4xI")


class Counts(NamedTuple):
    """:param state: as the kernel numbers it; :data:`TCP_ESTABLISHED` is one.

    :param unacknowledged: segments sent and not acknowledged.
    :param acknowledged: bytes sent and acknowledged.
    :param received: bytes received.
    :param segments_in: segments received, with or without data, keepalive probes included;
        starts anew at 2**32.
    """

    state: int
    unacknowledged: int
    acknowledged: int
    received: int
    segments_in: int


def read(sock: socket.socket) -> Counts | None:
    """``None`` where the kernel does not tell so much.

    :raises OSError: for a socket that is closed.
    """
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return None
    answer = sock.getsockopt(socket.IPPROTO_TCP, option, _FIELDS.size)
    return Counts(*_FIELDS.unpack(answer)) if len(answer) == _FIELDS.size else None


def segments_in(sock: socket.socket) -> int:
    """How many segments have arrived on this connection.

    :raises OSError: for a socket that is closed; ``ENOPROTOOPT`` where the kernel does not
        count them.
    """
    counts = read(sock)
    if counts is None:
        raise OSError(errno.ENOPROTOOPT, "TCP_INFO has no tcpi_segs_in")
    return counts.segments_in
