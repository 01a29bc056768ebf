"""Half cuts: one socket goes deaf, or mute, and the other direction goes on.

Owns the two recipes for one-way loss, each a ``setsockopt`` call on a socket of this
process. Neither needs a privilege, nor the peer's cooperation; both are undone by the same
option. The module does not wait and does not know what a link or a fault is.

How a socket goes deaf. ``IP_MINTTL`` = 255 (``IPV6_MINHOPCOUNT``) makes the kernel drop
what comes in with a lower time to live, which is everything from a peer that leaves it at
its default. What the socket sends still arrives.

How a socket goes mute. Everything that it sends carries an IP option, or header, which the
receiving host must refuse, so that its kernel drops the packet before TCP sees it, ACKs
included:

* IPv4: a record-route option of 8 bytes. The kernel checks it when it is set, and moves its
  pointer on to the last byte, where no address fits; so the receiver's own check fails
  (``ip_options_compile`` in net/ipv4/ip_options.c). It answers with the ICMP message
  "parameter problem", which is a soft error to the sender's socket.
* IPv6: a segment routing header (RFC 8754). A host on which ``seg6_enabled`` is 0, the
  default, drops it (``ipv6_srh_rcv`` in net/ipv6/exthdrs.c).

Measured on Linux 6.18, as root and without any privilege.
"""

from __future__ import annotations

import contextlib
import socket
import struct

# uapi/linux/in.h, uapi/linux/in6.h
IP_OPTIONS = 4
IP_MINTTL = 21
IPV6_RTHDR = 57
IPV6_MINHOPCOUNT = 73

# IPOPT_RR, its length, its pointer (the first of them that is legal), one address and a byte.
_RECORD_ROUTE = bytes([7, 8, 4, 0, 0, 0, 0, 0])
# struct ipv6_sr_hdr: next header, length in 8 bytes beyond the first, type 4, segments left,
# last segment, flags, tag. It has two segments, both of which are the peer.
_SEGMENT_ROUTING = struct.pack("!BBBBBBH", 0, 4, 4, 1, 1, 0, 0)


def _peer(sock: socket.socket) -> str:
    return str(sock.getpeername()[0]).partition("%")[0]


def _is_ipv4(peer: str) -> bool:
    """Whether IPv4 is spoken, also by an IPv6 socket, which maps the address."""
    return ":" not in peer or peer.startswith("::ffff:")


def deafen(sock: socket.socket) -> None:
    """Drop every segment from the peer, unseen; :func:`restore` undoes it.

    Without effect on a peer that sends with a time to live of 255.

    :raises OSError: ``ENOTCONN`` when the peer is gone already.
    """
    if _is_ipv4(_peer(sock)):
        sock.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 255)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MINHOPCOUNT, 255)


def mute(sock: socket.socket) -> None:
    """Have the peer's host drop every segment from here; :func:`restore` undoes it.

    :raises OSError: ``ENOTCONN`` when the peer is gone already.
    """
    peer = _peer(sock)
    if _is_ipv4(peer):
        sock.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, _RECORD_ROUTE)
    else:
        segments = socket.inet_pton(socket.AF_INET6, peer) * 2
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RTHDR, _SEGMENT_ROUTING + segments)


def restore(sock: socket.socket) -> None:
    """Undo :func:`deafen` and :func:`mute`. What is unacknowledged follows by itself.

    Does nothing to a socket that hears and speaks, nor to one that has been closed.
    """
    # Both families' options, for a socket that may no longer know whom it was connected to.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 0)
        sock.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, b"")
    if sock.family == socket.AF_INET6:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MINHOPCOUNT, 0)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RTHDR, b"")
