"""Addresses as Toxiproxy writes them, listening sockets, and dialling.

Owns the way from ``host:port`` to a socket. It does not know what the socket is for.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
from collections.abc import Sequence
from typing import Any

import trio

from pytest_tcpresilience.engine import descriptors
from pytest_tcpresilience.engine.errors import ApiError

BACKLOG = 4096
# What socket.getaddrinfo() returns for each address.
_Found = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]


def split_address(address: str, what: str) -> tuple[str, int]:
    """``host:port``, ``[::1]:port`` or ``:port``, as Toxiproxy takes it.

    :raises ApiError: 400 for anything else.
    """
    host, colon, port = address.rpartition(":")
    # The length first: Python refuses to read a number of thousands of digits.
    if not colon or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise ApiError(f"{what} {address!r}: want host:port", 400)
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in host and not address.startswith("["):
        raise ApiError(f"{what} {address!r}: too many colons, write [address]:port", 400)
    return host, int(port)


def address_of(name: tuple[Any, ...]) -> tuple[str, int]:
    """Host and port of a socket name, without IPv6's flow and scope."""
    return (str(name[0]), int(name[1]))


async def listen(address: str) -> socket.socket:
    """A non-blocking listening socket. Without a host it is on loopback.

    Toxiproxy listens on every interface then; a fault injector in a test should not.

    :raises ApiError: when the address cannot be resolved or bound.
    """
    host, port = split_address(address, "listen")
    try:
        found = await trio.socket.getaddrinfo(
            host or "127.0.0.1", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, name = found[0]
        listener = socket.create_server(
            address_of(name), family=socket.AddressFamily(family), backlog=BACKLOG
        )
    except OSError as error:
        reason = error.strerror or error
        status = 503 if error.errno in descriptors.FULL else 400
        raise ApiError(f"listen tcp {address}: {reason}", status) from error
    except UnicodeError as error:  # a host that no encoding of names can carry
        raise ApiError(f"listen tcp {address!r}: {error}", 400) from error
    listener.setblocking(False)
    # Only now, so that binding was exclusive. It lets sockets of this engine take the port
    # beside the listener.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return listener


# An upstream is dialled for each connection, and its address stays the same.
@functools.lru_cache(maxsize=256)
def _numeric(address: str) -> Sequence[_Found]:
    """What ``getaddrinfo`` finds for an address without a name in it; nothing for others."""
    host, port = split_address(address, "upstream")
    try:
        return socket.getaddrinfo(
            host or "127.0.0.1", port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except (OSError, UnicodeError):
        return []


async def dial(address: str) -> socket.socket:
    """A connected, non-blocking socket to the first address that answers.

    :raises OSError: the last address's error.
    """
    found: Sequence[_Found] = _numeric(address)
    if not found:
        host, port = split_address(address, "upstream")
        try:
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # a host that no encoding of names can carry
            raise OSError(errno.EINVAL, f"malformed host name: {error}") from error
    failure: OSError | None = None
    for family, kind, protocol, _, name in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await _connect(sock, name)
        except OSError as error:
            failure = error
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or OSError(errno.EADDRNOTAVAIL, "no address")


async def _connect(sock: socket.socket, name: Any) -> None:
    code = sock.connect_ex(name)
    if code == errno.EINPROGRESS:
        # On loopback the handshake is over by now, and asking again says so.
        code = sock.connect_ex(name)
    if code == errno.EALREADY:
        await trio.lowlevel.wait_writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code not in (0, errno.EISCONN):
        raise OSError(code, os.strerror(code))
