"""This process's own TCP sockets, found by whom they are connected to.

Owns the walk through ``/proc/self/fd``. It exists for one emergency: an engine that was
killed while a connection was cut leaves a client that nothing from outside can wake any
more, and only this process can end its own wait.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection

from pytest_tcpresilience.kernel.sockdiag import Address


def shut_down_own(peers: Collection[Address]) -> int:
    """Shut down every TCP socket of this process that is connected to one of ``peers``.

    Whoever is blocked in a read sees the end of the stream.

    :returns: how many there were.
    """
    count = 0
    for name in _descriptors():
        try:
            # A duplicate: shutdown acts on the connection, and the owner's descriptor
            # stays the owner's.
            duplicate = os.dup(int(name))
        except OSError:
            continue
        try:
            sock = socket.socket(fileno=duplicate)
        except OSError:
            os.close(duplicate)
            continue
        # The socket closes the duplicate, and nobody else may: the number can belong to
        # another thread by then.
        with sock, contextlib.suppress(OSError):
            if sock.type == socket.SOCK_STREAM and sock.getpeername()[:2] in peers:
                sock.shutdown(socket.SHUT_RDWR)
                count += 1
    return count


def _descriptors() -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    found.append(name)
    return found


def tcp_retries2() -> int:
    """``net.ipv4.tcp_retries2`` of this network namespace; Linux's 15 if unreadable."""
    try:
        with open("/proc/sys/net/ipv4/tcp_retries2") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 15
