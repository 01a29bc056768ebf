"""What the lab decides without a lab: packets, listings, and what its hosts are told."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tcpresilience.lab import plan
from pytest_tcpresilience.lab.capture import clock_offset
from pytest_tcpresilience.lab.forger import flows
from pytest_tcpresilience.lab.listing import is_probe, listing, remarks
from pytest_tcpresilience.lab.segment import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    Segment,
    checksum,
    forge,
    parse,
)

CLIENT, SERVER = ("10.99.1.2", 40000), ("10.99.2.2", 5432)
NAMES = {"10.99.1.2": "client", "10.99.2.2": "server", "10.99.1.1": "router"}


# --- packets --------------------------------------------------------------------------------

ports = st.integers(0, 65535)
numbers = st.integers(0, 2**32 - 1)


@given(ports, ports, numbers, numbers, st.integers(0, 31))
def test_a_forged_packet_reads_back_as_what_was_forged(
    sport: int, dport: int, seq: int, ack: int, flags: int
) -> None:
    source, destination = ("10.99.1.2", sport), ("10.99.2.2", dport)
    packet = forge(source, destination, flags, seq, ack)
    segment = parse(packet, 1.5, True)
    assert segment == Segment(1.5, source, destination, flags, seq, ack, 0, 0, 64, True)
    # A sum over what carries its own checksum is 0 (RFC 1071).
    assert checksum(packet[:20]) == 0
    pseudo = packet[12:20] + struct.pack("!BBH", 0, 6, 20)
    assert checksum(pseudo + packet[20:]) == 0


def test_data_is_counted_without_headers_and_options() -> None:
    bare = bytearray(forge(CLIENT, SERVER, PSH | ACK, 7, 9))
    bare[32] = 8 << 4  # twelve bytes of options
    struct.pack_into("!H", bare, 2, 20 + 32 + 5)
    segment = parse(bytes(bare) + b"\1" * 12 + b"hello", 0.0, False)
    assert segment is not None
    assert (segment.length, segment.next_seq, segment.letters) == (5, 12, "P.")


def test_an_icmp_error_names_the_segment_that_it_is_about() -> None:
    inner = forge(CLIENT, SERVER, PSH | ACK, 7, 9)
    head = bytearray(forge(("10.99.1.1", 0), CLIENT, 0, 0, 0)[:20])
    head[9] = socket.IPPROTO_ICMP
    segment = parse(bytes(head) + struct.pack("!BBHI", 3, 1, 0, 0) + inner[:28], 0.0, False)
    assert segment is not None
    assert (segment.source, segment.destination, segment.seq) == (CLIENT, SERVER, 7)
    assert (segment.icmp, segment.told_by) == ((3, 1), "10.99.1.1")
    assert listing([segment], NAMES) == (
        "   0.000000  client.40000 > server.5432: icmp from router: host unreachable\n"
    )


@pytest.mark.parametrize("cut", [0, 19, 25])
def test_what_is_cut_short_is_no_segment(cut: int) -> None:
    assert parse(forge(CLIENT, SERVER, SYN, 1, 0)[:cut], 0.0, False) is None


def test_other_protocols_are_no_segments() -> None:
    packet = bytearray(forge(CLIENT, SERVER, SYN, 1, 0))
    packet[9] = socket.IPPROTO_UDP
    assert parse(bytes(packet), 0.0, False) is None
    assert parse(b"\x60" + bytes(60), 0.0, False) is None  # IPv6
    packet[9] = socket.IPPROTO_ICMP
    packet[20] = 8  # an echo request
    assert parse(bytes(packet), 0.0, False) is None
    assert parse(bytes(packet[:20]) + b"\3\1" + bytes(6), 0.0, False) is None


# --- listings -------------------------------------------------------------------------------


def segment(
    at: float, flags: int, seq: int, ack: int, length: int = 0, *, back: bool = False, ttl: int = 64
) -> Segment:
    ends = (SERVER, CLIENT) if back else (CLIENT, SERVER)
    return Segment(at, *ends, flags, seq, ack, length, 502, ttl, not back)


TALK = [
    segment(10.0, SYN, 1000, 0),
    segment(10.1, SYN | ACK, 9000, 1001, back=True, ttl=63),
    segment(10.2, ACK, 1001, 9001),
    segment(10.3, PSH | ACK, 1001, 9001, 20),
    segment(10.4, PSH | ACK, 1001, 9001, 20),
    segment(10.5, ACK, 9001, 1021, back=True, ttl=63),
    segment(17.5, ACK, 1020, 9001),
    segment(17.6, RST, 9001, 0, back=True, ttl=64),
]


def test_a_listing_reads_like_the_articles() -> None:
    assert listing(TALK, NAMES) == (
        "   0.000000  client.40000 > server.5432: S 0:0(0) win 502\n"
        "   0.100000  server.5432 > client.40000: S. 0:0(0) ack 1 win 502\n"
        "   0.200000  client.40000 > server.5432: . 1:1(0) ack 1 win 502\n"
        "   0.300000  client.40000 > server.5432: P. 1:21(20) ack 1 win 502\n"
        "   0.400000  client.40000 > server.5432: P. 1:21(20) ack 1 win 502  [again]\n"
        "   0.500000  server.5432 > client.40000: . 1:1(0) ack 21 win 502\n"
        "   7.500000  client.40000 > server.5432: . 20:20(0) ack 1 win 502  [keepalive probe]\n"
        "   7.600000  server.5432 > client.40000: R 1:1(0)  "
        "[forged on the way: ttl 64, its sender's have 63]\n"
    )


def test_a_listing_may_begin_later_and_keeps_its_numbers() -> None:
    lines = listing(TALK, NAMES, since=17.0).splitlines()
    assert [line[:11].strip() for line in lines] == ["0.500000", "0.600000"]
    assert ". 20:20(0) ack 1" in lines[0]
    assert listing([], NAMES) == ""


def test_an_rst_of_the_peer_itself_is_not_called_forged() -> None:
    own = segment(17.6, RST, 9001, 0, back=True, ttl=63)
    assert remarks([*TALK[:7], own])[-1] == ""


@pytest.mark.parametrize(
    ("flags", "length", "seq", "probe"),
    [
        (ACK, 0, 1020, True),  # Linux
        (ACK, 1, 1020, True),  # AIX: one byte that was acknowledged before
        (ACK, 0, 1021, False),  # an acknowledgement
        (PSH | ACK, 20, 1001, False),  # a retransmission
        (FIN | ACK, 0, 1020, False),
        (RST, 0, 1020, False),
    ],
)
def test_what_a_keepalive_probe_is(flags: int, length: int, seq: int, probe: bool) -> None:
    assert is_probe(segment(1.0, flags, seq, 9001, length), next_seq=1021) is probe


def test_numbers_that_wrap_are_no_retransmission() -> None:
    last = segment(1.0, PSH | ACK, 2**32 - 10, 1, 20)
    assert last.next_seq == 10
    assert remarks([last, segment(2.0, PSH | ACK, 10, 1, 5)]) == ["", ""]
    assert remarks([last, last]) == ["", "again"]


# --- what the hosts are told ----------------------------------------------------------------


def rules(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.startswith("    ")][1:]


def test_a_router_that_is_no_firewall_passes_what_it_does_not_know() -> None:
    assert rules(plan.ruleset((), None)) == ["ct state established,related,new accept"]


@pytest.mark.parametrize(
    ("then", "rule"),
    [
        ("reset", "meta l4proto tcp ct state invalid reject with tcp reset"),
        ("drop", "ct state invalid drop"),
        ("drop_inbound", 'iifname "rs" ct state invalid drop'),
    ],
)
def test_a_firewall_by_its_mode(then: str, rule: str) -> None:
    assert rules(plan.ruleset((), then))[0] == rule


def test_losses_come_before_the_firewall() -> None:
    found = rules(plan.ruleset([plan.Loss("both"), plan.Loss("to_client", icmp="net")], "drop"))
    assert found == [
        'iifname "rc" meta l4proto tcp drop',
        'iifname "rs" meta l4proto tcp drop',
        'iifname "rs" meta l4proto tcp reject with icmp type net-unreachable',
        "ct state invalid drop",
        "ct state established,related,new accept",
    ]


def test_only_flows_that_cross_the_router_are_found() -> None:
    listed = (
        "0 0 10.99.1.2:40000 10.99.2.2:5432 \n"
        "0 0 10.99.1.2:40001 10.99.1.2:9\n"
        "0 0 127.0.0.1:40002 127.0.0.1:5432\n"
    )
    assert flows(listed) == {(CLIENT, SERVER)}
    assert flows("") == set()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("status 2: RTNETLINK answers: Operation not permitted\nCommand failed -:1", True),
        ("status 1: Error: Unknown device type.", True),
        ("status 1: /dev/stdin:1:1-5: Error: syntax error, unexpected string", False),
        ("", False),
    ],
)
def test_a_refusal_of_the_machine_is_told_from_a_mistake(said: str, reason: bool) -> None:
    found = plan.refusal(said)
    assert found == (said.splitlines()[0] if reason else None)


def test_the_clocks_are_compared_in_a_moment_in_which_nothing_interrupts() -> None:
    """Wall clock 1000 s ahead, read with an interruption of 30 ms at first, then of 5 ms."""
    now = 0.0
    pauses = iter([0.03, 0.005, 0.000004, 0.0])

    def steady() -> float:
        nonlocal now
        now += 0.000001
        return now

    def wall() -> float:
        nonlocal now
        seen = now + 1000.0
        now += next(pauses)  # and then the process has to wait
        return seen

    assert clock_offset(wall, steady) == pytest.approx(1000.0, abs=0.00001)
    assert next(pauses) == 0.0  # the third reading was close enough


def test_a_machine_that_always_interrupts_gives_the_closest_reading() -> None:
    ticks = iter(range(10_000))
    assert clock_offset(lambda: 7.0 + next(ticks), lambda: float(next(ticks))) == 7.0
