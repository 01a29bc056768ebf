"""The files for Wireshark, read back by a reader that shares no code with the writer."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import NamedTuple

from pytest_tcpresilience.virtual import pcap
from pytest_tcpresilience.virtual.trace import clock_seconds
from tests.virtual.wire import Wire, connect


class Packet(NamedTuple):
    at: float
    source: tuple[str, int]
    destination: tuple[str, int]
    seq: int
    ack: int
    flags: int
    window: int
    mss: int | None
    payload: bytes


def folded(data: bytes) -> int:
    """The one's complement sum, which is 0xFFFF over data with a right checksum."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return total


def read(path: Path) -> list[Packet]:
    data = path.read_bytes()
    magic, major, minor, _, _, _, link = struct.unpack_from("<IHHiIII", data)
    assert (magic, major, minor, link) == (0xA1B2C3D4, 2, 4, 101)
    packets, at = [], 24
    while at < len(data):
        seconds, micros, kept, length = struct.unpack_from("<IIII", data, at)
        assert kept == length
        packets.append(parse(seconds + micros / 1e6, data[at + 16 : at + 16 + length]))
        at += 16 + length
    return packets


def parse(at: float, raw: bytes) -> Packet:
    size = (raw[0] & 15) * 4
    assert raw[0] >> 4 == 4
    assert int.from_bytes(raw[2:4], "big") == len(raw)
    assert raw[9] == socket.IPPROTO_TCP
    assert folded(raw[:size]) == 0xFFFF, "the header's checksum"
    tcp = raw[size:]
    pseudo = raw[12:20] + b"\0\6" + len(tcp).to_bytes(2, "big")
    assert folded(pseudo + tcp) == 0xFFFF, "TCP's checksum"
    ports = struct.unpack_from("!HHIIBBH", tcp)
    offset = (ports[4] >> 4) * 4
    options = tcp[20:offset]
    mss = int.from_bytes(options[2:4], "big") if options[:2] == b"\2\4" else None
    return Packet(
        at,
        (socket.inet_ntoa(raw[12:16]), ports[0]),
        (socket.inet_ntoa(raw[16:20]), ports[1]),
        ports[2],
        ports[3],
        ports[5],
        ports[6],
        mss,
        tcp[offset:],
    )


def talked() -> Wire:
    wire = connect(latency=0.001)
    wire.client.write(b"odd")
    wire.run(1)
    wire.server.close()
    wire.run(1)
    return wire


def test_a_capture_is_the_trace(tmp_path: Path) -> None:
    wire = talked()
    pcap.save(wire.network.trace, tmp_path / "a.pcap", "server", start="10:18:58.881950")
    packets = read(tmp_path / "a.pcap")
    seen = wire.network.trace.at("server")
    assert len(packets) == len(seen) > 5
    for packet, sighting in zip(packets, seen, strict=True):
        segment = sighting.segment
        assert packet.at - clock_seconds("10:18:58.881950") - sighting.at < 1e-6
        assert packet[1:3] == (segment.source, segment.destination)
        assert packet[3:7] == (segment.seq, segment.ack, segment.flags, segment.window)
        assert packet.payload == segment.payload
    assert [packet.mss for packet in packets[:3]] == [1460, 1460, None]
    assert b"odd" in [packet.payload for packet in packets]


def test_a_capture_without_a_place_is_all_that_was_sent(tmp_path: Path) -> None:
    wire = talked()
    pcap.save(wire.network.trace, tmp_path / "a.pcap")
    assert len(read(tmp_path / "a.pcap")) == wire.network.trace.sent
