"""A trace as a pcap file, for Wireshark, tshark and tcpdump.

Owns the file format (classic pcap, microseconds, link type RAW) and the headers of IPv4
(RFC 791) and TCP (RFC 9293) with their checksums.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from pytest_tcpresilience.virtual.segment import Segment
from pytest_tcpresilience.virtual.trace import Trace, clock_seconds

_MAGIC, _SNAPLEN = 0xA1B2C3D4, 65535
# LINKTYPE_RAW: packets begin with their IP header (https://www.tcpdump.org/linktypes.html).
_LINKTYPE_RAW = 101
_TTL, _TCP = 64, 6
_MSS_OPTION = 2


def save(trace: Trace, path: str | Path, host: str | None = None, *, start: str = "") -> None:
    """Write what a capture on ``host`` shows, or all that was sent.

    :param start: the time of day at which the run began, on 1 January 1970.
    :raises UsageError: for an unknown host, or no time of day.
    :raises OSError: when the file cannot be written.
    """
    offset = clock_seconds(start) if start else 0.0
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", _MAGIC, 2, 4, 0, 0, _SNAPLEN, _LINKTYPE_RAW))
        for number, seen in enumerate(trace.at(host)):
            seconds, micros = divmod(round((offset + seen.at) * 1e6), 1_000_000)
            packet = encode(seen.segment, number)
            file.write(struct.pack("<IIII", seconds, micros, len(packet), len(packet)))
            file.write(packet)


def encode(segment: Segment, number: int = 0) -> bytes:
    """A segment as an IPv4 packet.

    :param number: the identification field.
    """
    source = socket.inet_aton(segment.source[0])
    destination = socket.inet_aton(segment.destination[0])
    options = struct.pack("!BBH", _MSS_OPTION, 4, segment.mss) if segment.mss else b""
    words = 5 + len(options) // 4

    def tcp(checksum: int) -> bytes:
        header = struct.pack(
            "!HHIIBBHHH",
            segment.source[1],
            segment.destination[1],
            segment.seq,
            segment.ack,
            words << 4,
            segment.flags,
            segment.window,
            checksum,
            0,
        )
        return header + options + segment.payload

    pseudo = struct.pack("!4s4sBBH", source, destination, 0, _TCP, len(tcp(0)))
    body = tcp(internet_checksum(pseudo + tcp(0)))

    def ip(checksum: int) -> bytes:
        size, ident = 20 + len(body), number % 65536
        # 0x4000: do not fragment.
        fixed = struct.pack("!BBHHHBBH", 0x45, 0, size, ident, 0x4000, _TTL, _TCP, checksum)
        return fixed + source + destination

    return ip(internet_checksum(ip(0))) + body


def internet_checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
