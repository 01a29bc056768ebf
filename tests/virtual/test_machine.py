"""Rules of the state machine that no ordinary connection shows: strays, forgeries, collisions."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from pytest_tcpresilience.tcp.stacks import Linux
from pytest_tcpresilience.virtual.buffers import MSS, Incoming
from pytest_tcpresilience.virtual.machine import Machine
from pytest_tcpresilience.virtual.network import Network
from pytest_tcpresilience.virtual.segment import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    WRAP,
    Segment,
    flag_letters,
    reset_for,
    unwrap,
)
from pytest_tcpresilience.virtual.states import State, acceptable
from pytest_tcpresilience.virtual.timers import Options
from tests.virtual.wire import PORT, Wire, connect

ONE, OTHER = ("10.0.0.1", 1000), ("10.0.0.2", 2000)


def machine(first: int = 100) -> Machine:
    return Machine(Linux(), Options(), ONE, OTHER, first)


def stray(wire: Wire, flags: int, distance: int = 0, payload: bytes = b"") -> list[Segment]:
    """What the client answers to a segment whose number is that far from the next."""
    client = wire.client.machine
    seq = (client.incoming.nxt + distance) % WRAP
    ack = client.outgoing.nxt % WRAP
    client.receive(Segment(client.peer, client.local, seq, ack, flags, 65535, payload), wire.now)
    answers, client.out = client.out, []
    return answers


# --- RFC 9293, section 3.10.7.4, step 1 ---------------------------------------------------


@pytest.mark.parametrize(
    ("seq", "length", "window", "expected"),
    [
        (100, 0, 0, True),
        (101, 0, 0, False),
        (99, 0, 10, False),  # a keepalive probe
        (100, 0, 10, True),
        (109, 0, 10, True),
        (110, 0, 10, False),
        (100, 1, 0, False),
        (99, 1, 10, False),  # a probe of an old stack
        (95, 6, 10, True),
        (109, 5, 10, True),
        (110, 5, 10, False),
    ],
)
def test_the_table_of_what_is_acceptable(
    seq: int, length: int, window: int, expected: bool
) -> None:
    assert acceptable(seq, length, 100, window) is expected


# --- RFC 5961 -----------------------------------------------------------------------------


def test_an_rst_is_believed_with_the_very_next_number_only() -> None:
    wire = connect()
    assert stray(wire, RST, WRAP // 2) == []
    assert stray(wire, RST, -1) == []
    (challenge,) = stray(wire, RST, 1)
    assert challenge.flags == ACK
    assert wire.client.machine.state is State.ESTABLISHED
    assert stray(wire, RST) == []
    assert wire.client.machine.error == errno.ECONNRESET


def test_a_syn_in_mid_connection_is_challenged() -> None:
    """A peer that has restarted answers the challenge with RST; a forger cannot."""
    wire = connect()
    (challenge,) = stray(wire, SYN)
    assert challenge.flags == ACK
    assert wire.client.machine.state is State.ESTABLISHED


def test_after_the_peers_fin_an_rst_is_a_broken_pipe() -> None:
    wire = connect()
    wire.server.shutdown()
    wire.run(1)
    stray(wire, RST)
    assert wire.client.machine.error == errno.EPIPE


def test_an_rst_after_both_fins_is_no_error() -> None:
    """A last ACK that comes too late is answered with one."""
    wire = connect()
    wire.client.close()
    wire.run(0.1)
    wire.server.close()
    wire.run(0.1)
    assert wire.client.machine.state is State.TIME_WAIT
    stray(wire, RST)
    assert (str(wire.client.machine.state), wire.client.machine.error) == ("CLOSED", 0)


# --- strays -------------------------------------------------------------------------------


def test_what_was_never_sent_cannot_be_acknowledged() -> None:
    wire = connect()
    client = wire.client.machine
    future = (client.outgoing.nxt + 5) % WRAP
    seq = client.incoming.nxt % WRAP
    client.receive(Segment(client.peer, client.local, seq, future, ACK, 65535), wire.now)
    assert [each.flags for each in client.out] == [ACK]
    assert client.outgoing.una == client.outgoing.nxt


def test_data_without_an_ack_is_dropped() -> None:
    wire = connect()
    assert stray(wire, PSH, payload=b"x") == []
    assert wire.client.machine.incoming.available == 0


def test_data_for_an_application_that_has_gone_is_answered_with_rst() -> None:
    wire = connect()
    wire.client.close()
    wire.run(1)
    (reset,) = stray(wire, PSH | ACK, payload=b"x")
    assert reset.flags & RST


def test_an_unknown_segment_is_answered_with_the_number_that_it_expects() -> None:
    data = Segment(ONE, OTHER, 7, 99, PSH | ACK, 10, b"abc")
    assert reset_for(data) == Segment(OTHER, ONE, 99, 0, RST)
    syn = Segment(ONE, OTHER, 7, 0, SYN)
    assert reset_for(syn) == Segment(OTHER, ONE, 0, 8, RST | ACK)
    assert reset_for(replace(data, flags=RST)) is None


def test_a_syn_that_is_answered_for_another_is_reset() -> None:
    opening = machine()
    opening.open(0)
    opening.out.clear()
    opening.receive(Segment(OTHER, ONE, 5, 42, SYN | ACK, 10), 1)
    assert [(each.flags, each.seq) for each in opening.out] == [(RST, 42)]
    assert opening.state is State.SYN_SENT


def test_both_may_open_at_once() -> None:
    """RFC 9293, figure 8."""
    one = Machine(Linux(), Options(), ONE, OTHER, 100)
    other = Machine(Linux(), Options(), OTHER, ONE, 900)
    one.open(0)
    other.open(0)
    for _ in range(3):
        there, back = one.out, other.out
        one.out, other.out = [], []
        for segment in there:
            other.receive(segment, 1)
        for segment in back:
            one.receive(segment, 1)
    assert (one.state, other.state) == (State.ESTABLISHED, State.ESTABLISHED)


def test_a_new_syn_ends_time_wait() -> None:
    """RFC 1122, section 4.2.2.13: the same ports may be used again at once."""
    wire = connect()
    wire.server.close()
    wire.run(0.1)
    wire.client.close()
    wire.run(0.1)
    assert wire.server.machine.state is State.TIME_WAIT
    again = wire.client_host.connect(wire.client.local, wire.client.peer, Options())
    wire.run(0.1)
    assert again.machine.state is State.ESTABLISHED


def test_a_closed_listener_resets_those_that_nobody_accepted() -> None:
    network = Network()
    client, server = network.add_host("client"), network.add_host("server")
    listener = server.listen((server.address, PORT), 5, Options())
    end = client.connect(client.claim((client.address, 0)), (server.address, PORT), Options())
    network.advance(1)
    assert end.machine.state is State.ESTABLISHED
    listener.close()
    network.advance(2)
    assert end.machine.error == errno.ECONNRESET


# --- numbers ------------------------------------------------------------------------------


def test_numbers_from_the_wire_are_the_nearest_ones() -> None:
    assert unwrap(5, WRAP - 5) == WRAP + 5
    assert unwrap(WRAP - 5, WRAP + 5) == WRAP - 5
    assert unwrap(7, 3 * WRAP + 9) == 3 * WRAP + 7


def test_pieces_join_in_any_order() -> None:
    incoming = Incoming(100)
    incoming.announce()
    for seq, data in ((105, b"fgh"), (103, b"def"), (108, b"ij"), (100, b"abcd")):
        incoming.arrive(seq, data, fin=False)
    incoming.arrive(110, b"", fin=True)
    assert (incoming.read(100), incoming.ended, incoming.nxt) == (b"abcdefghij", True, 111)


def test_flags_read_as_in_tcpdump() -> None:
    assert [flag_letters(flags) for flags in (SYN, SYN | ACK, FIN | ACK, PSH | ACK, 0)] == [
        "S",
        "S.",
        "F.",
        "P.",
        "none",
    ]


# --- efficiency that shows ----------------------------------------------------------------


def test_holes_are_filled_one_after_the_other() -> None:
    """RFC 6582: the ACK of one lost segment brings the next, without another timeout."""
    wire = connect(latency=0.001)
    wire.path.unplug()
    wire.client.write(bytes(4 * MSS))
    wire.run(0.1)
    wire.path.plug()
    wire.run(0.2)  # one timeout is 0.2 s
    assert wire.server.machine.incoming.available == 4 * MSS


def test_a_window_opens_in_whole_segments() -> None:
    """RFC 9293, section 3.8.6.2.2: nobody is to send crumbs."""
    wire = connect()
    wire.client.write(bytes(65536))
    wire.run(1)
    wire.client.write(b"more")
    assert wire.client.machine.outgoing.window == 0
    wire.server.read(MSS // 2)
    wire.run(30)  # some probes are answered meanwhile
    assert wire.client.machine.outgoing.window == 0
    wire.server.read(MSS // 2 + 1)
    wire.run(0.01)
    assert not wire.client.machine.outgoing.waiting
