"""``after_bytes``: a fault acts once exactly so many bytes have crossed."""

from __future__ import annotations

import random
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_tcpresilience import Fault
from pytest_tcpresilience.link import Link
from tests.contract.conftest import Connector, LinkMaker, ProxyFactory
from tests.contract.peers import WAIT_S, Pair, RawServer, is_quiet, receive, receive_all, see
from tests.contract.rawhttp import RawHttp

BIG = 1_000_003  # more than one read, and no round number


@pytest.fixture
def link(make_link: LinkMaker, server: RawServer) -> Link:
    return make_link(server.address)


@pytest.fixture
def pair(connect: Connector, link: Link, server: RawServer) -> Pair:
    return connect(link, server)


def direction(pair: Pair, way: str) -> Pair:
    """Whoever writes in this direction as the client, and the other as the server."""
    return pair if way == "to_server" else Pair(pair.server, pair.client)


def receive_until_it_breaks(pair: Pair) -> bytes:
    """All that arrives, up to the end of the stream or a reset."""
    pair.server.settimeout(WAIT_S)
    data = bytearray()
    try:
        while more := pair.server.recv(65536):
            data += more
    except ConnectionResetError:
        pass
    return bytes(data)


@pytest.mark.parametrize("limit", [1, 1000, BIG])
@pytest.mark.parametrize("way", ["to_server", "to_client"])
@pytest.mark.parametrize("name", ["reset", "hang_up"])
def test_a_fault_that_ends_a_connection_lets_exactly_so_many_through(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor, name: str, way: str, limit: int
) -> None:
    pair = direction(pair, way)
    fault: Fault = getattr(link, name)(after_bytes=limit)
    payload = random.Random(limit).randbytes(limit + 200_000)
    writing = side_by_side.submit(pair.client.sendall, payload)
    assert receive_until_it_breaks(pair) == payload[:limit]
    assert len(fault.hits) == 1
    writing.exception()  # it was cut off, or all of it had found room


@pytest.mark.parametrize("way", ["to_server", "to_client"])
@pytest.mark.parametrize("name", ["silent_drop", "evict_drop", "stall"])
def test_a_fault_that_lasts_lets_exactly_so_many_through_and_then_the_rest(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor, name: str, way: str
) -> None:
    pair = direction(pair, way)
    if name == "evict_drop":
        fault = link.evict(then="drop", after_bytes=BIG)
    else:
        fault = getattr(link, name)(after_bytes=BIG)
    payload = random.Random(1).randbytes(BIG + 200_000)
    writing = side_by_side.submit(pair.client.sendall, payload)
    assert receive(pair.server, BIG) == payload[:BIG]
    fault.wait_until_hit()
    link.describe_connections()
    assert is_quiet(pair.server)
    fault.lift()
    assert receive(pair.server, 200_000) == payload[BIG:]
    writing.result()
    pair.exchange()


def test_both_directions_count_together_and_from_the_arming(link: Link, pair: Pair) -> None:
    fault = link.stall(after_bytes=10)  # eight have crossed before
    pair.client.sendall(b"123456")
    assert receive(pair.server, 6) == b"123456"
    assert fault.hit_at is None
    pair.server.sendall(b"abcdefgh")
    assert receive(pair.client, 4) == b"abcd"
    fault.wait_until_hit()
    assert is_quiet(pair.client)
    fault.lift()
    assert receive(pair.client, 4) == b"efgh"


def test_all_connections_of_a_link_count_together(
    link: Link, connect: Connector, server: RawServer
) -> None:
    one, two = (connect(link, server) for _ in range(2))
    fault = link.reset(after_bytes=6)
    one.client.sendall(b"1234")
    assert receive(one.server, 4) == b"1234"
    two.client.sendall(b"1234")
    assert receive_until_it_breaks(two) == b"12"
    assert see(one.client).what == "ECONNRESET"
    assert {hit["connection"] for hit in fault.hits} == {1, 2}


def test_of_one_connection_only_its_own_bytes_count(
    link: Link, connect: Connector, server: RawServer
) -> None:
    one, two = (connect(link, server) for _ in range(2))
    fault = link.connections[0].reset(after_bytes=6)
    two.exchange()
    one.client.sendall(b"12345")
    assert receive(one.server, 5) == b"12345"
    assert fault.hit_at is None
    one.client.sendall(b"678")
    assert receive_until_it_breaks(one) == b"6"
    two.exchange()


def test_what_crosses_on_a_later_connection_counts_too(
    link: Link, connect: Connector, server: RawServer
) -> None:
    fault = link.hang_up(after_bytes=10)
    pair = connect(link, server)  # eight bytes
    pair.server.sendall(b"abc")
    assert receive_all(pair.client) == b"ab"
    assert [hit["connection"] for hit in fault.hits] == [1]


def test_a_fault_of_the_listener_lets_the_connections_go_on(
    link: Link, pair: Pair, connect: Connector, server: RawServer
) -> None:
    fault = link.refuse_connections(after_bytes=6)
    pair.client.sendall(b"123456789")
    assert receive(pair.server, 9) == b"123456789"
    fault.wait_until_hit()
    with pytest.raises(ConnectionRefusedError):
        connect(link, server)
    pair.exchange()


def test_bytes_count_when_they_cross_and_not_when_they_are_read(link: Link, pair: Pair) -> None:
    """Behind latency and a slicer as without them."""
    link.latency(latency_ms=20, stream="upstream")
    link.slicer(average_size_bytes=7, stream="upstream")
    fault = link.stall(after_bytes=1000)
    payload = random.Random(1).randbytes(1500)
    pair.client.sendall(payload)
    assert receive(pair.server, 1000) == payload[:1000]
    fault.wait_until_hit()
    assert is_quiet(pair.server)
    fault.lift()
    assert receive(pair.server, 500) == payload[1000:]


def test_two_counts_at_the_same_time(link: Link, pair: Pair) -> None:
    first = link.connections[0].stall(after_bytes=5)
    second = link.refuse_connections(after_bytes=8)
    pair.client.sendall(b"1234567890")
    assert receive(pair.server, 5) == b"12345"
    first.wait_until_hit()
    assert second.hit_at is None
    first.lift()
    assert receive(pair.server, 5) == b"67890"
    second.wait_until_hit()


def test_a_count_that_is_called_off_holds_nothing_up(link: Link, pair: Pair) -> None:
    fault = link.reset(after_bytes=4)
    pair.client.sendall(b"123")
    assert receive(pair.server, 3) == b"123"
    fault.lift()
    pair.exchange()
    assert fault.hits == ()


def test_a_fin_needs_no_room(link: Link, pair: Pair) -> None:
    with link.stall(after_bytes=4) as fault:
        pair.client.sendall(b"123")
        pair.client.shutdown(socket.SHUT_WR)
        assert receive_all(pair.server) == b"123"
        assert fault.hit_at is None


# --- over the API ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"after_bytes": -1}, "attribute after_bytes must be a whole number of at least 0"),
        ({"after_bytes": 0.5}, "attribute after_bytes must be a whole number of at least 0"),
        (
            {"after_bytes": 1, "after": 1},
            "a toxic has one schedule: when_idle, after or after_bytes",
        ),
        (
            {"after_bytes": 1, "when_idle": 1},
            "a toxic has one schedule: when_idle, after or after_bytes",
        ),
    ],
)
def test_what_is_no_schedule(
    http: RawHttp, proxy: ProxyFactory, attributes: dict[str, object], error: str
) -> None:
    path = f"/proxies/{proxy(('127.0.0.1', 9))['name']}/toxics"
    answer = http("POST", path, {"type": "stall", "attributes": attributes})
    assert (answer.status, answer.error) == (400, error)


def test_it_is_shown_where_it_is_given(http: RawHttp, proxy: ProxyFactory) -> None:
    path = f"/proxies/{proxy(('127.0.0.1', 9))['name']}/toxics"
    body = {"type": "stall", "attributes": {"after_bytes": 5}}
    assert http("POST", path, body).document["attributes"] == {
        "when_idle": 0,
        "after": 0,
        "after_bytes": 5,
    }


def test_toxiproxys_own_toxics_do_not_know_it(http: RawHttp, proxy: ProxyFactory) -> None:
    path = f"/proxies/{proxy(('127.0.0.1', 9))['name']}/toxics"
    body = {"type": "latency", "attributes": {"after_bytes": "many", "latency": 1}}
    answer = http("POST", path, body)
    assert answer.document["attributes"] == {"latency": 1, "jitter": 0}


def test_a_reader_stops_after_exactly_so_many_bytes(link: Link, pair: Pair) -> None:
    with link.connections[0].stop_reading(after_bytes=1000) as fault:
        pair.client.sendall(bytes(range(250)) * 5)
        assert receive(pair.server, 1000) == bytes(range(250)) * 4
        fault.wait_until_hit()
        pair.client.sendall(b"unread")
        pair.server.sendall(b"the other way")
        assert receive(pair.client, 13) == b"the other way"
        assert is_quiet(pair.server)
    assert receive(pair.server, 256) == bytes(range(250)) + b"unread"


@pytest.mark.parametrize(("direction", "lost"), [("to_server", 0), ("to_client", 1)])
def test_a_direction_is_lost_after_exactly_so_many_bytes(
    link: Link, pair: Pair, direction: str, lost: int
) -> None:
    sender, receiver = pair.ends[lost], pair.ends[1 - lost]
    with link.connections[0].silent_drop(direction=direction, after_bytes=1000) as fault:
        sender.sendall(bytes(1000))
        assert receive(receiver, 1000) == bytes(1000)
        fault.wait_until_hit()
        sender.sendall(b"vanishes")
        receiver.sendall(b"arrives")
        assert receive(sender, 7) == b"arrives"
        assert is_quiet(receiver)
    assert receive(receiver, 8) == b"vanishes"
