"""Segments, as values: read from a capture, or forged. Pure.

Owns the layouts of IPv4, TCP and ICMP (RFC 791, 9293, 792), as far as a lab needs them.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
# As tcpdump writes them.
_LETTERS = ((SYN, "S"), (FIN, "F"), (RST, "R"), (PSH, "P"))

_IP = struct.Struct("!BBHHHBBH4s4s")
_TCP = struct.Struct("!HHIIBBHHH")
_HEADER_BYTES = 20

Address = tuple[str, int]


@dataclass(frozen=True)
class Segment:
    """One TCP segment, or one ICMP error about one, where it was captured.

    :param at: CLOCK_MONOTONIC, seconds, stamped by the kernel.
    :param source: address and port. For an ICMP error, of the segment that it is about.
    :param destination: likewise.
    :param flags: the TCP flags; 0 for ICMP.
    :param seq: sequence number. :param ack: acknowledgement number.
    :param length: bytes of data.
    :param window: as in the header, without its scale.
    :param ttl: says how far away it was made: 64 on Linux, one less behind the router.
    :param outgoing: whether the host that captured it was sending it.
    :param icmp: ``(type, code)`` for an ICMP error, whose sender is ``told_by``.
    """

    at: float
    source: Address
    destination: Address
    flags: int
    seq: int
    ack: int
    length: int
    window: int
    ttl: int
    outgoing: bool
    icmp: tuple[int, int] | None = None
    told_by: str = ""

    def has(self, flag: int) -> bool:
        return bool(self.flags & flag)

    @property
    def letters(self) -> str:
        """The flags in tcpdump's letters, with ``.`` for ACK."""
        text = "".join(letter for flag, letter in _LETTERS if self.flags & flag)
        return text + ("." if self.flags & ACK else "")

    @property
    def next_seq(self) -> int:
        """The sequence number that follows it."""
        takes = self.length + bool(self.flags & SYN) + bool(self.flags & FIN)
        return (self.seq + takes) % 2**32


def parse(packet: bytes, at: float, outgoing: bool) -> Segment | None:
    """An IPv4 packet as a segment; None for what is neither TCP nor an ICMP error of it."""
    if len(packet) < _HEADER_BYTES or packet[0] >> 4 != 4:
        return None
    header = (packet[0] & 15) * 4
    _, _, total, _, _, ttl, protocol, _, source, _ = _IP.unpack_from(packet)
    if protocol == socket.IPPROTO_TCP:
        return _tcp(packet, header, total, ttl, at, outgoing)
    if protocol == socket.IPPROTO_ICMP and packet[header] == 3:  # destination unreachable
        inner = packet[header + 8 :]
        told_by = socket.inet_ntoa(source)
        return _about(inner, packet[header], packet[header + 1], told_by, ttl, at, outgoing)
    return None


def _tcp(
    packet: bytes, header: int, total: int, ttl: int, at: float, outgoing: bool
) -> Segment | None:
    if len(packet) < header + _TCP.size:
        return None
    sport, dport, seq, ack, offset, flags, window, _, _ = _TCP.unpack_from(packet, header)
    source, destination = packet[12:16], packet[16:20]
    return Segment(
        at=at,
        source=(socket.inet_ntoa(source), sport),
        destination=(socket.inet_ntoa(destination), dport),
        flags=flags & 0x1F,
        seq=seq,
        ack=ack,
        length=total - header - (offset >> 4) * 4,
        window=window,
        ttl=ttl,
        outgoing=outgoing,
    )


def _about(
    inner: bytes, kind: int, code: int, told_by: str, ttl: int, at: float, outgoing: bool
) -> Segment | None:
    """An ICMP error carries the head of the segment that it is about."""
    header = (inner[0] & 15) * 4 if inner else 0
    if len(inner) < header + 8 or header < _HEADER_BYTES or inner[9] != socket.IPPROTO_TCP:
        return None
    sport, dport, seq = struct.unpack_from("!HHI", inner, header)
    return Segment(
        at=at,
        source=(socket.inet_ntoa(inner[12:16]), sport),
        destination=(socket.inet_ntoa(inner[16:20]), dport),
        flags=0,
        seq=seq,
        ack=0,
        length=0,
        window=0,
        ttl=ttl,
        outgoing=outgoing,
        icmp=(kind, code),
        told_by=told_by,
    )


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def forge(source: Address, destination: Address, flags: int, seq: int, ack: int) -> bytes:
    """An IPv4 packet with a bare TCP segment, as a middlebox makes it up."""
    addresses = socket.inet_aton(source[0]), socket.inet_aton(destination[0])

    def tcp(check: int) -> bytes:
        offset = _TCP.size // 4 << 4
        ports = source[1], destination[1]
        return _TCP.pack(*ports, seq, ack, offset, flags, 0, check, 0)

    pseudo = b"".join(addresses) + struct.pack("!BBH", 0, socket.IPPROTO_TCP, _TCP.size)
    segment = tcp(checksum(pseudo + tcp(0)))
    total = _HEADER_BYTES + len(segment)

    def ip(check: int) -> bytes:
        return _IP.pack(0x45, 0, total, 0, 0x4000, 64, socket.IPPROTO_TCP, check, *addresses)

    return ip(checksum(ip(0))) + segment
