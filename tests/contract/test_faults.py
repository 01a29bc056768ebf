"""Faults below the byte stream, seen from both ends and on both address families.

Waits that a kernel's timers set are passed side by side; everything else is ordered by
what happened and not by time.
"""

from __future__ import annotations

import hashlib
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_tcpresilience.control import Engine
from pytest_tcpresilience.link import Link
from pytest_tcpresilience.tcp.windows import idle_window
from tests.contract.conftest import Connector, Dialler, LinkMaker
from tests.contract.peers import (
    QUICK,
    Pair,
    RawServer,
    is_quiet,
    receive,
    see,
    watch,
    what,
    with_keepalive,
)
from tests.contract.streams import more_than_buffers_hold
from tests.servers import EchoServer


@pytest.fixture
def link(make_link: LinkMaker, server: RawServer) -> Link:
    return make_link(server.address)


@pytest.fixture
def pair(connect: Connector, link: Link, server: RawServer) -> Pair:
    """A connection with quick keepalive at both ends."""
    return with_keepalive(connect(link, server))


@pytest.fixture
def link4(make_link: LinkMaker, server4: RawServer) -> Link:
    """For times that pass in the engine and in no kernel: IPv4 stands for both."""
    return make_link(server4.address)


@pytest.fixture
def pair4(connect: Connector, link4: Link, server4: RawServer) -> Pair:
    return connect(link4, server4)


# --- silent_drop -------------------------------------------------------------------------


def test_a_silent_drop_is_noticed_by_keepalive_at_both_ends_and_by_nothing_sooner(
    make_link: LinkMaker, connect: Connector, server: RawServer, side_by_side: ThreadPoolExecutor
) -> None:
    """With it, in the same two seconds: neighbours that must not notice anything."""
    cut, stalled, healthy = (make_link(server.address) for _ in range(3))
    one, two = (with_keepalive(connect(cut, server)) for _ in range(2))
    frozen, well = (with_keepalive(connect(each, server)) for each in (stalled, healthy))
    stalled.stall()

    seen = watch(side_by_side, one, two)
    fault = cut.silent_drop()
    assert what(seen) == ["ETIMEDOUT"] * 4

    window = idle_window(QUICK)
    for each in seen:
        # The clock of keepalive starts with the last segment, which is before the hit.
        last_segment_at = fault.hits[0].at - fault.hits[0]["idle_for"]
        after = each.result().at - last_segment_at
        assert window.earliest <= after <= window.latest + 1.0

    # A stall answers every probe, and the other link was never touched.
    assert all(is_quiet(sock) for sock in frozen.ends)
    well.exchange()


def test_healing_a_silent_drop_loses_nothing_in_either_direction(link: Link, pair: Pair) -> None:
    with link.silent_drop():
        pair.client.sendall(b"to server")
        pair.server.sendall(b"to client")
        link.describe_connections()  # a round trip to the engine
        assert all(is_quiet(sock) for sock in pair.ends)
    assert receive(pair.server, 9) == b"to server"
    assert receive(pair.client, 9) == b"to client"
    pair.exchange()


def test_an_end_that_was_sent_into_a_silent_drop_arrives_after_it(link: Link, pair: Pair) -> None:
    with link.silent_drop():
        pair.client.sendall(b"bye")
        pair.client.close()
        link.describe_connections()
        assert is_quiet(pair.server)
    assert receive(pair.server, 99) == b"bye"  # and EOF, or it would wait for more


def test_a_silent_drop_with_data_in_flight_holds_and_heals(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    much = more_than_buffers_hold()
    payloads = [random.Random(seed).randbytes(much) for seed in (1, 2)]
    writing = [
        side_by_side.submit(sock.sendall, payload)
        for sock, payload in zip(pair.ends, payloads, strict=True)
    ]
    # Nobody reads, so both writers are in the middle of it for as
    # long as the cut lasts.
    with link.silent_drop() as fault:
        assert len(fault.hits) == 1
        assert not any(each.done() for each in writing)
    reading = [side_by_side.submit(receive, sock, much) for sock in pair.ends[::-1]]
    arrived = [each.result() for each in reading]
    assert [hashlib.sha256(each).digest() for each in arrived] == [
        hashlib.sha256(each).digest() for each in payloads
    ]


def test_a_silent_drop_leaves_new_connections_unanswered_until_it_heals(
    make_link: LinkMaker, server: RawServer, dial: Dialler, side_by_side: ThreadPoolExecutor
) -> None:
    link, neighbour = make_link(server.address), make_link(server.address)
    with link.silent_drop():
        with pytest.raises(TimeoutError) as caught:
            socket.create_connection((link.host, link.port), timeout=0.1)
        assert caught.value.errno is None  # the client's own limit: nobody answered
        waiting = side_by_side.submit(dial, (link.host, link.port))
        dial((neighbour.host, neighbour.port)).sendall(b"hello")
        assert see(server.accept()).data == b"hello"
        assert not waiting.done()
    waiting.result().sendall(b"at last")
    assert see(server.accept()).data == b"at last"


def test_a_silent_drop_that_comes_with_the_connection_holds_it(
    link: Link, server: RawServer, dial: Dialler
) -> None:
    client = dial((link.host, link.port))
    with link.silent_drop():
        client.sendall(b"hello")
        link.describe_connections()
    # Whether the cut or the connection was first, nothing is lost.
    assert receive(server.accept(), 5) == b"hello"


def test_two_silent_drops_must_both_be_lifted(link: Link, pair: Pair) -> None:
    for name in ("one", "two"):
        link.call("POST", "/toxics", {"name": name, "type": "silent_drop"})
    pair.client.sendall(b"hello")
    link.call("DELETE", "/toxics/one")
    link.describe_connections()
    assert is_quiet(pair.server)
    link.call("DELETE", "/toxics/two")
    assert receive(pair.server, 5) == b"hello"


def test_deleting_a_proxy_under_a_cut_resets_both_ends(link: Link, pair: Pair) -> None:
    link.silent_drop()
    link.close()
    assert [see(sock).what for sock in pair.ends] == ["ECONNRESET"] * 2


def test_disabling_a_proxy_under_a_cut_resets_both_ends(link: Link, pair: Pair) -> None:
    link.silent_drop()
    link.call("PATCH", "", {"enabled": False})
    assert [see(sock).what for sock in pair.ends] == ["ECONNRESET"] * 2


def test_a_silent_drop_outlasts_disabling_and_enabling(link: Link) -> None:
    with link.silent_drop():
        link.call("PATCH", "", {"enabled": False})
        link.call("PATCH", "", {"enabled": True})
        with pytest.raises(TimeoutError):
            socket.create_connection((link.host, link.port), timeout=0.1)


# --- reset, hang_up ----------------------------------------------------------------------


def test_a_reset_reaches_both_ends_of_an_idle_connection(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    seen = watch(side_by_side, pair)
    link.reset()
    assert what(seen) == ["ECONNRESET"] * 2


def test_a_reset_acts_in_the_middle_of_a_transfer(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    much = bytes(more_than_buffers_hold())
    writing = [side_by_side.submit(sock.sendall, much) for sock in pair.ends]
    link.reset()
    for each in writing:
        with pytest.raises(ConnectionResetError):
            each.result()


def test_a_hang_up_reaches_both_ends_of_an_idle_connection(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    seen = watch(side_by_side, pair)
    link.hang_up()
    assert what(seen) == ["EOF"] * 2


@pytest.mark.parametrize("end", [0, 1], ids=["client", "server"])
def test_data_after_a_hang_up_is_answered_with_a_reset(link: Link, pair: Pair, end: int) -> None:
    link.hang_up()
    sock = pair.ends[end]
    assert see(sock).what == "EOF"
    sock.sendall(b"is anybody there?")
    # In CLOSE_WAIT, Linux reports a reset as EPIPE; it is the write that shows it.
    with pytest.raises(BrokenPipeError):
        _send_until_it_breaks(sock)


def _send_until_it_breaks(sock: socket.socket) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        sock.sendall(b"x")


def test_closing_after_a_hang_up_ends_the_connection_in_order(link: Link, pair: Pair) -> None:
    link.hang_up()
    for sock in pair.ends:
        assert see(sock).what == "EOF"
        sock.close()
    assert [event["reason"] for event in link.events if event.kind == "closed"] == ["hang_up"]


@pytest.mark.parametrize("name", ["reset", "hang_up"])
def test_a_fault_that_acts_once_leaves_later_connections_alone(
    link: Link, pair: Pair, connect: Connector, server: RawServer, name: str
) -> None:
    fault = getattr(link, name)()
    later = connect(link, server)
    assert [hit["connection"] for hit in fault.hits] == [1]
    later.exchange()


# --- stall, time_out ---------------------------------------------------------------------


def test_a_stall_takes_new_connections_and_holds_them(
    link: Link, server: RawServer, dial: Dialler
) -> None:
    with link.stall():
        client = dial((link.host, link.port))
        client.sendall(b"hello")
        link.describe_connections()
        assert is_quiet(client)
    assert receive(server.accept(), 5) == b"hello"


def test_a_time_out_is_a_stall_and_then_a_fin_at_both_ends(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    seen = watch(side_by_side, pair)
    fault = link.time_out(0.3)
    assert what(seen) == ["EOF"] * 2
    assert fault.hit_at is not None
    assert all(each.result().at - fault.hit_at >= 0.3 for each in seen)


def test_a_request_that_times_out_gets_the_fin_and_no_answer(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    link.time_out(0.2)
    pair.client.sendall(b"request")
    assert what(watch(side_by_side, pair)) == ["EOF"] * 2


def test_a_time_out_acts_on_later_connections_with_their_own_clock(
    link: Link, dial: Dialler
) -> None:
    link.time_out(0.2)
    begun = time.monotonic()
    ended = see(dial((link.host, link.port)))
    assert ended.what == "EOF"
    assert ended.at - begun >= 0.2


def test_a_time_out_that_is_lifted_in_time_never_ends(link4: Link, pair4: Pair) -> None:
    with link4.time_out(0.5) as fault:
        pair4.client.sendall(b"hello")
        hit_at = fault.hit_at
    assert receive(pair4.server, 5) == b"hello"
    # Another fault that is due later: the time of the first has passed when it hits.
    assert hit_at is not None
    assert link4.stall(after=0.55).wait_until_hit() > hit_at + 0.5
    assert all(is_quiet(sock) for sock in pair4.ends)


# --- schedules ---------------------------------------------------------------------------


def test_when_idle_waits_for_quiet_and_traffic_postpones_it(link4: Link, pair4: Pair) -> None:
    fault = link4.reset(when_idle=0.5)
    armed_at = time.monotonic()
    while time.monotonic() < armed_at + 0.8:
        pair4.exchange()  # never quiet for 0.5 s
        assert fault.hit_at is None
    assert fault.wait_until_hit() > armed_at + 0.8
    assert fault.hits[0]["idle_for"] >= 0.5
    assert [see(sock).what for sock in pair4.ends] == ["ECONNRESET"] * 2


def test_when_idle_counts_from_the_last_byte_and_not_from_its_arming(
    link4: Link, pair4: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    # A fault of the same schedule says that the link has been quiet for so long.
    quiet = link4.stall(when_idle=0.3)
    quiet.wait_until_hit()
    armed_at = time.monotonic()
    fault = link4.reset(when_idle=0.3)
    hit_at = fault.wait_until_hit()
    assert fault.hits[0]["idle_for"] >= 0.3
    assert fault.hits[0]["idle_for"] > hit_at - armed_at


def test_when_idle_without_a_connection_waits_for_one(
    link: Link, connect: Connector, server: RawServer
) -> None:
    fault = link.reset(when_idle=0.05)
    opened_at = time.monotonic()
    pair = connect(link, server)
    assert fault.wait_until_hit() - opened_at >= 0.05
    assert see(pair.client).what == "ECONNRESET"


def test_when_idle_counts_all_connections_of_the_link(
    link4: Link, pair4: Pair, connect: Connector, server4: RawServer
) -> None:
    other = connect(link4, server4)
    fault = link4.reset(when_idle=0.4)
    armed_at = time.monotonic()
    while time.monotonic() < armed_at + 0.6:
        other.exchange()
    assert fault.hit_at is None
    assert is_quiet(pair4.client)
    fault.wait_until_hit()
    assert see(pair4.client).what == "ECONNRESET"


@pytest.mark.parametrize("name", ["silent_drop", "stall", "reset", "hang_up"])
@pytest.mark.usefixtures("pair4")
def test_after_hits_after_its_time(link4: Link, name: str) -> None:
    asked_at = time.monotonic()
    fault = getattr(link4, name)(after=0.15)
    assert fault.wait_until_hit() - asked_at >= 0.15


def test_a_scheduled_fault_that_is_called_off_never_hits(
    link4: Link, connect: Connector, server4: RawServer
) -> None:
    off = link4.reset(when_idle=0.05)  # nobody is connected, so it waits
    off.lift()
    assert connect(link4, server4)
    link4.stall(when_idle=0.1).wait_until_hit()  # its moment has passed
    assert off.hits == ()


# --- scope -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["silent_drop", "stall", "reset", "hang_up"])
def test_a_fault_takes_hold_of_all_of_50_connections(
    make_link: LinkMaker, dial: Dialler, echo: EchoServer, name: str
) -> None:
    link = make_link(echo.address)
    clients = [dial((link.host, link.port)) for _ in range(50)]
    for client in clients:
        client.sendall(b"hello")
        assert receive(client, 5) == b"hello"
    fault = getattr(link, name)()
    assert sorted(hit["connection"] for hit in fault.hits) == list(range(1, 51))
    assert {tuple(hit["client"]) for hit in fault.hits} == {
        client.getsockname()[:2] for client in clients
    }
    if name in ("reset", "hang_up"):
        assert {see(client).what for client in clients} == {
            {"reset": "ECONNRESET", "hang_up": "EOF"}[name]
        }
        return
    for client in clients:
        client.sendall(b"again")
    link.describe_connections()
    assert all(is_quiet(client) for client in clients)
    fault.lift()
    assert [receive(client, 5) for client in clients] == [b"again"] * 50


@pytest.mark.parametrize("name", ["silent_drop", "stall", "reset", "hang_up"])
def test_two_links_to_one_upstream_are_independent(
    make_link: LinkMaker, connect: Connector, server: RawServer, name: str
) -> None:
    hurt, spared = make_link(server.address), make_link(server.address)
    connect(hurt, server)
    neighbour = connect(spared, server)
    fault = getattr(hurt, name)()
    assert len(fault.hits) == 1
    neighbour.exchange()
    assert connect(spared, server)
    assert [event.kind for event in spared.events if event.kind.startswith("fault")] == []


def test_times_are_of_the_machines_monotonic_clock(link: Link, pair: Pair) -> None:
    before = time.monotonic()
    pair.exchange()
    fault = link.silent_drop()
    after = time.monotonic()
    assert fault.hit_at is not None
    assert before <= fault.hit_at <= after
    times = [event.at for event in link.events]
    assert max(times) <= time.monotonic()
    (shown,) = link.connections
    assert shown.opened_at <= before <= shown.last_byte_at <= fault.hit_at
    assert fault.hits[0]["idle_for"] == pytest.approx(fault.hit_at - shown.last_byte_at, abs=0.001)


def test_a_silent_drop_on_an_idle_connection_finds_it_settled(link: Link, pair: Pair) -> None:
    assert [hit["settled"] for hit in link.silent_drop().hits] == [True]


def test_a_silent_drop_before_any_connection_hits_nobody(link: Link, engine: Engine) -> None:
    fault = link.silent_drop()
    assert fault.hits == ()
    (active,) = [event for event in link.events if event.kind == "fault_active"]
    assert active["connections"] == 0


def test_a_reset_while_the_upstream_is_being_dialled_is_no_mistake_of_the_engine(
    engine: Engine, make_link: LinkMaker, echo: EchoServer, side_by_side: ThreadPoolExecutor
) -> None:
    """The socket is closed just before its reader begins to wait for it."""
    link = make_link(echo.address)

    def meet_it(number: int) -> str:
        with socket.create_connection((link.host, link.port)) as sock:
            return see(sock).what

    with link.reset_peer(timeout_ms=0):
        assert set(side_by_side.map(meet_it, range(200))) == {"ECONNRESET"}
    assert [event for event in link.events if event.kind == "internal_error"] == []
    assert engine.alive


def test_a_reset_while_the_upstream_is_being_dialled_is_a_reset_for_the_upstream(
    make_link: LinkMaker, server: RawServer, side_by_side: ThreadPoolExecutor
) -> None:
    link = make_link(server.address)

    def meet_it(number: int) -> str:
        with socket.create_connection((link.host, link.port)) as sock:
            return see(sock).what

    with link.reset_peer(timeout_ms=0):
        clients = [side_by_side.submit(meet_it, number) for number in range(100)]
        assert {client.result() for client in clients} == {"ECONNRESET"}
    seen = set()
    while server.has_a_client_waiting():
        seen.add(see(server._accepted[-1]).what)
    assert seen <= {"ECONNRESET"}  # empty, if all were reset before they were dialled
