"""The connections of this network namespace from ``/proc/net/tcp``, where sock_diag is not.

Owns the reading of that table. It tells the same as :mod:`.sockdiag`, without tcp_info and
with timers to 10 ms, but only as a whole and some twenty times slower: it is for kernels and
sandboxes that refuse netlink.

Source: net/ipv4/tcp_ipv4.c, get_tcp4_sock; Documentation/networking/proc_net_tcp.rst.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator

from pytest_tcpresilience.kernel.sockdiag import (
    CONNECTED,
    STATES,
    TIMERS,
    Address,
    Listed,
    SocketState,
    text_of_address,
)

TABLES: dict[int, str] = {socket.AF_INET: "/proc/net/tcp", socket.AF_INET6: "/proc/net/tcp6"}


def connections(*, local_port: int = 0, remote_port: int = 0) -> list[Listed]:
    """As :meth:`.SockDiag.connections`.

    :raises OSError: when there is no such table.
    """
    return [
        each
        for each in _all_rows()
        if each.seen.state in CONNECTED
        and local_port in (0, each.local[1])
        and remote_port in (0, each.remote[1])
    ]


def listening(port: int) -> set[int]:
    """The inodes of the sockets that listen on a port, on whatever address.

    :raises OSError: when there is no such table.
    """
    return {
        each.seen.inode
        for each in _all_rows()
        if each.seen.state == "listen" and each.local[1] == port
    }


def _all_rows() -> list[Listed]:
    found = list(_rows(socket.AF_INET))
    if os.path.exists(TABLES[socket.AF_INET6]):
        found += _rows(socket.AF_INET6)
    return found


def _rows(family: int) -> Iterator[Listed]:
    with open(TABLES[family]) as file:
        next(file, None)  # the names of the columns
        for line in file:
            yield parse(family, line)


def parse(family: int, line: str) -> Listed:
    """One row of the table."""
    _, local, remote, state, queues, timer, unanswered, uid, _, inode, *_ = line.split()
    unacknowledged, _, unread = queues.partition(":")
    kind, _, expires = timer.partition(":")
    return Listed(
        _address(family, local),
        _address(family, remote),
        SocketState(
            state=STATES[int(state, 16)],
            timer=TIMERS.get(int(kind, 16), "unknown"),
            expires=int(expires, 16) / os.sysconf("SC_CLK_TCK"),
            unanswered=int(unanswered, 16),
            unacknowledged=int(unacknowledged, 16),
            unread=int(unread, 16),
            uid=int(uid),
            inode=int(inode),
        ),
    )


def _address(family: int, text: str) -> Address:
    packed, _, port = text.partition(":")
    # Words of 32 bits, each printed as a number of this machine's byte order.
    raw = bytes.fromhex(packed)
    words = struct.unpack(f">{len(raw) // 4}I", raw)
    order = "<" if sys.byteorder == "little" else ">"
    return text_of_address(family, struct.pack(f"{order}{len(words)}I", *words)), int(port, 16)
