"""One-way loss, as the kernels of both ends see it, on both address families."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.kernel import cuts
from pytest_tcpresilience.link import Link
from pytest_tcpresilience.tcp.windows import idle_window
from tests.contract.conftest import Connector, Dialler, LinkMaker
from tests.contract.peers import (
    QUICK,
    Pair,
    RawServer,
    Seen,
    is_quiet,
    receive,
    see,
    unacknowledged_for_good,
)
from tests.contract.streams import MEGABYTE, cross

# Direction, and which end of a pair is the one whose segments vanish.
LOST = [("to_server", 0), ("to_client", 1)]


@pytest.fixture
def link(make_link: LinkMaker, server: RawServer) -> Link:
    return make_link(server.address)


@pytest.fixture
def pair(connect: Connector, link: Link, server: RawServer) -> Pair:
    return connect(link, server)


def wait_for(link: Link, kind: str) -> None:
    while not any(event.kind == kind for event in link.events):
        pass


@pytest.mark.parametrize(("direction", "lost"), LOST)
def test_one_direction_vanishes_the_other_arrives_and_neither_is_acknowledged_in_vain(
    link: Link, pair: Pair, direction: str, lost: int
) -> None:
    """With one direction go the acknowledgements for the other, as on a real path."""
    unheard, heard = pair.ends[lost], pair.ends[1 - lost]
    with link.silent_drop(direction=direction) as fault:
        assert [(hit["direction"], hit["settled"]) for hit in fault.hits] == [(direction, True)]
        heard.sendall(b"arrives")
        assert receive(unheard, 7) == b"arrives"
        unheard.sendall(b"vanishes")
        link.describe_connections()
        assert is_quiet(heard)
        # Of the end that hears: its acknowledgements vanish, so its own data arrives and the
        # other end's kernel says so in vain. Of the end that is not heard: nobody got it.
        assert unacknowledged_for_good(unheard) == len(b"vanishes")
        assert unacknowledged_for_good(heard) == len(b"arrives")
    assert receive(heard, 8) == b"vanishes"
    pair.exchange()
    assert is_quiet(pair.client)
    assert is_quiet(pair.server)


@pytest.mark.parametrize(("direction", "lost"), LOST)
def test_a_transfer_goes_on_where_it_was_when_a_direction_comes_back(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor, direction: str, lost: int
) -> None:
    times = iter(range(3))

    def lose_for_a_moment() -> None:
        if next(times, None) is not None:
            with link.silent_drop(direction=direction):
                link.describe_connections()

    cross(pair, side_by_side, 16 * MEGABYTE, meanwhile=lose_for_a_moment, at_least=3)
    assert [hit["direction"] for hit in link.events if hit.kind == "fault_hit"] == [direction] * 3


# Which end has keepalive; how a read ends there; and at the other end, once the kernel that
# gave up has sent its RST, which goes the way that is lost or the other one.
KEEPALIVE = [
    ("to_server", 0, "nothing"),
    ("to_server", 1, "ECONNRESET"),
    ("to_client", 0, "ECONNRESET"),
    ("to_client", 1, "nothing"),
]


def test_keepalive_of_either_end_notices_and_its_reset_goes_the_way_that_is_left(
    make_link: LinkMaker, connect: Connector, server: RawServer, side_by_side: ThreadPoolExecutor
) -> None:
    links = [make_link(server.address) for _ in KEEPALIVE]
    pairs = [connect(link, server) for link in links]
    for pair, (_, end, _) in zip(pairs, KEEPALIVE, strict=True):
        QUICK.apply(pair.ends[end])
    hits = [
        link.silent_drop(direction=direction).hits[0]
        for link, (direction, _, _) in zip(links, KEEPALIVE, strict=True)
    ]

    def both(pair: Pair, end: int) -> tuple[Seen, str]:
        noticed = see(pair.ends[end])
        return noticed, see(pair.ends[1 - end], 1.0).what

    seen = [
        side_by_side.submit(both, pair, end)
        for pair, (_, end, _) in zip(pairs, KEEPALIVE, strict=True)
    ]
    window = idle_window(QUICK)
    for each, hit, (_, _, other) in zip(seen, hits, KEEPALIVE, strict=True):
        noticed, at_the_other = each.result()
        assert (noticed.what, at_the_other) == ("ETIMEDOUT", other)
        last_segment_at = hit.at - hit["idle_for"]
        assert window.earliest <= noticed.at - last_segment_at <= window.latest + 1.0


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
def test_new_connections_stay_unanswered_until_it_is_lifted(
    link: Link, connect: Connector, server: RawServer, direction: str
) -> None:
    with link.silent_drop(direction=direction):
        with pytest.raises(TimeoutError):
            socket.create_connection((link.host, link.port), timeout=0.2)
        assert not server.has_a_client_waiting()
    connect(link, server).exchange()


@pytest.mark.parametrize(("direction", "lost"), LOST)
def test_an_upstream_that_answers_later_is_met_too(
    link: Link, server: RawServer, dial: Dialler, direction: str, lost: int
) -> None:
    cuts.silence_listener(server._listener)
    client = dial((link.host, link.port))
    wait_for(link, "opened")
    fault = link.silent_drop(direction=direction)
    assert len(fault.hits) == 1
    cuts.heal_listener(server._listener)
    pair = Pair(client, server.accept())  # at the engine's next SYN
    wait_for(link, "connected")
    for sock in pair.ends:
        sock.sendall(b"hello")
    assert receive(pair.ends[lost], 5) == b"hello"
    assert is_quiet(pair.ends[1 - lost])
    assert unacknowledged_for_good(pair.server) == 5
    fault.lift()
    assert receive(pair.ends[1 - lost], 5) == b"hello"


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
def test_the_end_of_the_link_is_heard_at_both_ends(link: Link, pair: Pair, direction: str) -> None:
    link.silent_drop(direction=direction)
    link.close()
    assert [see(sock).what for sock in pair.ends] == ["ECONNRESET"] * 2


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
def test_the_rescue_is_heard(link: Link, pair: Pair, direction: str) -> None:
    link.silent_drop(direction=direction)
    link._engine.call("POST", f"/resilience/proxies/{link.name}/rescue", {"refuse": False})
    assert see(pair.client).what == "ECONNRESET"


def test_a_firewall_that_drops_what_comes_in_lets_requests_out_and_new_clients_pass(
    link: Link, pair: Pair, connect: Connector, server: RawServer
) -> None:
    with link.evict(then="drop_inbound") as fault:
        pair.client.sendall(b"request")
        assert receive(pair.server, 7) == b"request"
        pair.server.sendall(b"answer")
        later = connect(link, server)
        later.exchange()
        assert is_quiet(pair.client)
        assert unacknowledged_for_good(pair.client) == 7
        assert unacknowledged_for_good(pair.server) == 6
        assert [hit["connection"] for hit in fault.hits] == [1]
    assert receive(pair.client, 6) == b"answer"
    pair.exchange()


@pytest.mark.parametrize("order", [1, -1], ids=["first-lifted-first", "last-lifted-first"])
def test_two_losses_on_one_connection_are_lifted_one_by_one(
    link: Link, pair: Pair, order: int
) -> None:
    """A flow that was forgotten one way, on a path that loses the other: from the API, which
    does not ask whether that makes sense."""

    def add(name: str, type_: str, **attributes: str) -> None:
        link.call("POST", "/toxics", {"name": name, "type": type_, "attributes": attributes})

    add("answers", "evict_drop_inbound")
    add("requests", "silent_drop", direction="to_server")
    for sock in pair.ends:
        sock.sendall(b"x")
    link.describe_connections()
    assert all(is_quiet(sock) for sock in pair.ends)
    first, second = ["answers", "requests"][::order]
    heard = {"answers": pair.client, "requests": pair.server}
    link.call("DELETE", f"/toxics/{first}")
    assert receive(heard[first], 1) == b"x"
    assert is_quiet(heard[second])
    link.call("DELETE", f"/toxics/{second}")
    assert receive(heard[second], 1) == b"x"
    pair.exchange()


def test_an_end_that_is_lost_arrives_after_it(link: Link, pair: Pair) -> None:
    with link.silent_drop(direction="to_server"):
        pair.client.sendall(b"bye")
        pair.client.shutdown(socket.SHUT_WR)
        link.describe_connections()
        assert is_quiet(pair.server)
        pair.server.sendall(b"still talking")
        assert receive(pair.client, 13) == b"still talking"
    assert receive(pair.server, 99) == b"bye"  # and EOF, or it would wait for more


def test_an_unknown_direction_is_refused_at_the_api(link: Link) -> None:
    body = {"type": "silent_drop", "attributes": {"direction": "sideways"}}
    with pytest.raises(UsageError, match="direction must be one of both, to_server, to_client"):
        link.call("POST", "/toxics", body)
