"""Cuts: make the kernel stop, or end, the exchange of segments on one socket.

Owns the recipes, each a few ``setsockopt`` calls on a socket of this process. None
needs a privilege. All act on one connection and leave its neighbours alone. The module
does not wait and does not know what a link or a fault is.

How the silent cut works. A ``TCP_MD5SIG`` key (RFC 2385) on an established socket makes
the kernel drop every incoming segment, because it carries no signature, and sign every
outgoing one, which the peer's kernel drops before it touches any timer, because it has
no key. Both directions fall silent at once, in every TCP state, with nothing sent, and
removing the key heals. Measured on Linux 6.1, 6.12 and 6.18.

How the eviction works. A socket that is bound to an interface that does not exist
(``SO_BINDTOIFINDEX``) has no route out, and no longer matches what comes in, so the kernel
answers the peer's next segment with RST as for a connection that it has never seen. It
cannot be undone without CAP_NET_RAW, and holds for whatever the socket says later.

Rejected: ``IP_MINTTL`` cuts one direction only, and the retransmissions that leak the
other way restart the client's keepalive clock; ``SO_ATTACH_FILTER`` on TCP asks for
CAP_NET_ADMIN since 2026.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from collections.abc import Iterator

# uapi/linux/tcp.h, uapi/linux/sockios.h
TCP_QUICKACK = 12
TCP_MD5SIG = 14
TCP_MD5SIG_EXT = 32
TCP_MD5SIG_FLAG_PREFIX = 1
SIOCOUTQ = 0x5411
SIOCINQ = 0x541B
# asm-generic/socket.h
SO_BINDTOIFINDEX = 62
# Interfaces are numbered from 1 upwards, so none ever has this number.
NO_INTERFACE = 0x7FFFFFF0

# Any key will do: no peer ever has it.
_KEY = b"cut"
# struct tcp_md5sig: sockaddr_storage, flags, prefixlen, keylen, ifindex, key[80].
_MD5SIG = struct.Struct("=128sBBHi80s")


def _sockaddr(family: int, address: str) -> bytes:
    packed = socket.inet_pton(family, address.partition("%")[0])
    if family == socket.AF_INET:
        return struct.pack("=HH4s", family, 0, packed)
    return struct.pack("=HHI16sI", family, 0, 0, packed, 0)


def _set_key(sock: socket.socket, address: str, key: bytes) -> None:
    value = _MD5SIG.pack(_sockaddr(sock.family, address), 0, 0, len(key), 0, key)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, value)


def _set_prefix_key(sock: socket.socket, network: str, key: bytes) -> None:
    value = _MD5SIG.pack(
        _sockaddr(sock.family, network), TCP_MD5SIG_FLAG_PREFIX, 0, len(key), 0, key
    )
    sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG_EXT, value)


@contextlib.contextmanager
def _no_key_is_fine() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def acknowledge_now(sock: socket.socket) -> None:
    """Send the pending (delayed) acknowledgement, if there is one."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_QUICKACK, 1)


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that were written to ``sock`` and that the peer has not acknowledged."""
    import fcntl  # POSIX only; the plugin is loaded on every platform

    answer = fcntl.ioctl(sock.fileno(), SIOCOUTQ, b"\0\0\0\0")
    return int.from_bytes(answer, sys.byteorder, signed=True)


def unread(sock: socket.socket) -> int:
    """Bytes that have come and that nobody has read."""
    import fcntl  # POSIX only, as above

    answer = fcntl.ioctl(sock.fileno(), SIOCINQ, b"\0\0\0\0")
    return int.from_bytes(answer, sys.byteorder, signed=True)


def silence(sock: socket.socket) -> None:
    """Stop the exchange in both directions, with nothing sent. :func:`heal` undoes it.

    Hold the file descriptor open: closing it starts an orphan's FIN retries.

    :raises OSError: ``ENOPROTOOPT`` or ``EPERM`` where the kernel has no TCP_MD5SIG;
        ``ENOTCONN`` when the peer is gone already.
    """
    _set_key(sock, sock.getpeername()[0], _KEY)


def heal(sock: socket.socket, peer: str | None = None) -> None:
    """Undo :func:`silence`. What is unacknowledged follows at the next retransmission.

    :param peer: the peer's address, for a socket that may have lost its connection.
    """
    with _no_key_is_fine():
        _set_key(sock, sock.getpeername()[0] if peer is None else peer, b"")


def _networks(listener: socket.socket) -> list[str]:
    if listener.family == socket.AF_INET:
        return ["0.0.0.0"]
    if listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return ["::"]
    return ["::", "::ffff:0.0.0.0"]


def silence_listener(listener: socket.socket) -> None:
    """Leave every SYN unanswered. Connections that exist are not touched."""
    for network in _networks(listener):
        _set_prefix_key(listener, network, _KEY)


def heal_listener(listener: socket.socket) -> None:
    """Undo :func:`silence_listener`; a waiting client gets through with its next SYN."""
    for network in _networks(listener):
        with _no_key_is_fine():
            _set_prefix_key(listener, network, b"")


def reset(sock: socket.socket, peer: str | None = None) -> None:
    """Send RST now and close. A silent cut is removed first, or it would hold the RST.

    :param peer: the peer's address, where a cut may be on the socket.
    """
    if peer is not None:
        with contextlib.suppress(OSError):
            heal(sock, peer)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def evict(sock: socket.socket) -> None:
    """Let nothing leave any more; the peer's next segment is answered with RST.

    A delayed acknowledgement of the peer's is such a segment: settle first. It cannot be
    undone. :func:`reset_evicted` ends it.

    :raises OSError: ``ENOTCONN`` when the peer is gone already.
    """
    sock.getpeername()
    sock.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NO_INTERFACE)


def reset_evicted(sock: socket.socket) -> None:
    """Close an evicted socket and have its peer reset, which it could not do itself.

    The socket has no way out, so another takes its addresses and sends a SYN. The peer,
    which is still connected, answers with the number that it expects next; to that the new
    socket's kernel replies with an RST of this number, which the peer believes.

    Where another connection of this machine has got the same port, which can happen to a
    socket that has dialled, the peer hears of the end by its next segment only.
    """
    with sock:
        try:
            local, peer = sock.getsockname(), sock.getpeername()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            return  # its connection has ended
    with contextlib.suppress(OSError), socket.socket(sock.family) as knocking:
        # Beside the listener, which shares its port, and its other connections.
        knocking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        knocking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        knocking.bind(local)
        knocking.setblocking(False)
        # On loopback all of the exchange happens within this call.
        knocking.connect_ex(peer)


def finish(sock: socket.socket) -> None:
    """Send FIN and keep the other direction open. A peer that is gone is no error."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
