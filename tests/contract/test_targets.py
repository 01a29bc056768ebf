"""A fault on one connection: its neighbours, new connections and the listener go on."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_tcpresilience import UsageError
from pytest_tcpresilience.faults import FAULTS
from pytest_tcpresilience.link import Link
from tests.contract.conftest import Connector, LinkMaker, ProxyFactory
from tests.contract.peers import (
    Pair,
    RawServer,
    is_quiet,
    receive,
    receive_all,
    see,
    watch,
    what,
    with_keepalive,
)
from tests.contract.rawhttp import RawHttp


@pytest.fixture
def link(make_link: LinkMaker, server4: RawServer) -> Link:
    return make_link(server4.address)


@pytest.fixture
def pairs(connect: Connector, link: Link, server4: RawServer) -> list[Pair]:
    """Three connections, numbered from 1; the tests strike the one in the middle."""
    return [connect(link, server4) for _ in range(3)]


def struck(link: Link, name: str) -> None:
    """A fault of the table on the second connection, by its method."""
    row, connection = FAULTS[name], link.connections[1]
    arguments = {"then": name.removeprefix("evict_")} if row.method == "evict" else {}
    fault = getattr(connection, row.method)(
        **arguments, **({"after": 0.1} if "time" in name else {})
    )
    assert fault.connection == 2
    assert [hit["connection"] for hit in fault.hits] == [2]


# How the two ends of the struck connection hear of it, where they do within moments.
HEARD = {
    "evict_reset_both": "ECONNRESET",
    "evict_fin": "EOF",
    "time_out": "EOF",
    "reset": "ECONNRESET",
    "hang_up": "EOF",
}


# Who sends into the void: the other direction may be whole.
UNHEARD = {"evict_drop_inbound": 1}
# Those that act by themselves. A box in the way is the link's.
OWN = [name for name, row in FAULTS.items() if not (row.listener or row.per_flow or row.standing)]


@pytest.mark.parametrize("name", OWN)
def test_a_fault_of_one_connection_is_nobody_elses(
    link: Link,
    pairs: list[Pair],
    connect: Connector,
    server4: RawServer,
    side_by_side: ThreadPoolExecutor,
    name: str,
) -> None:
    struck(link, name)
    if name in HEARD:
        assert what(watch(side_by_side, pairs[1])) == [HEARD[name]] * 2
    else:
        sender = UNHEARD.get(name, 0)
        pairs[1].ends[sender].sendall(b"is anybody there?")
    for pair in (pairs[0], pairs[2], connect(link, server4)):
        pair.exchange()
    if name not in HEARD:
        assert is_quiet(pairs[1].ends[1 - sender])


def test_a_close_is_lost_on_one_connection_only(link: Link, pairs: list[Pair]) -> None:
    fault = link.connections[1].lose_close(after_bytes=4)
    assert fault.scheduled
    pairs[1].client.sendall(b"quit")
    assert receive(pairs[1].server, 4) == b"quit"
    link.wait_for("fault_active")
    for pair in pairs:
        pair.client.close()
    assert [see(pairs[number].server).what for number in (0, 2)] == ["EOF"] * 2
    fault.wait_until_hit()
    assert [hit["connection"] for hit in fault.hits] == [2]
    assert is_quiet(pairs[1].server)


@pytest.mark.parametrize(("direction", "lost"), [("to_server", 0), ("to_client", 1)])
def test_one_direction_of_one_connection(
    link: Link, pairs: list[Pair], connect: Connector, server4: RawServer, direction: str, lost: int
) -> None:
    with link.connections[1].silent_drop(direction=direction):
        unheard, heard = pairs[1].ends[lost], pairs[1].ends[1 - lost]
        unheard.sendall(b"vanishes")
        heard.sendall(b"arrives")
        assert receive(unheard, 7) == b"arrives"
        for pair in (pairs[0], pairs[2], connect(link, server4)):
            pair.exchange()
        assert is_quiet(heard)
    assert receive(heard, 8) == b"vanishes"


def test_a_silent_drop_of_one_connection_is_noticed_by_its_ends_only(
    make_link: LinkMaker, connect: Connector, server: RawServer, side_by_side: ThreadPoolExecutor
) -> None:
    link = make_link(server.address)
    spared, cut = (with_keepalive(connect(link, server)) for _ in range(2))
    seen = watch(side_by_side, cut)
    link.connections[1].silent_drop()
    assert what(seen) == ["ETIMEDOUT"] * 2
    assert all(is_quiet(sock) for sock in spared.ends)
    spared.exchange()
    connect(link, server)


def test_lifting_heals_the_one_connection_with_nothing_lost(link: Link, pairs: list[Pair]) -> None:
    with link.connections[1].silent_drop():
        pairs[1].client.sendall(b"to server")
        pairs[1].server.sendall(b"to client")
        link.describe_connections()
        assert all(is_quiet(sock) for sock in pairs[1].ends)
    assert receive(pairs[1].server, 9) == b"to server"
    assert receive(pairs[1].client, 9) == b"to client"


def test_two_connections_can_be_cut_and_healed_by_themselves(link: Link, pairs: list[Pair]) -> None:
    one, two = (each.silent_drop() for each in link.connections[:2])
    for pair in pairs[:2]:
        pair.client.sendall(b"hello")
    one.lift()
    assert receive(pairs[0].server, 5) == b"hello"
    link.describe_connections()
    assert is_quiet(pairs[1].server)
    two.lift()
    assert receive(pairs[1].server, 5) == b"hello"


def test_what_contradicts_it_does_so_on_the_same_connection_only(
    link: Link, pairs: list[Pair], connect: Connector, server4: RawServer
) -> None:
    one, two, _ = link.connections
    one.silent_drop()
    with pytest.raises(UsageError, match="stall contradicts the silent_drop"):
        one.stall()
    with pytest.raises(UsageError, match="silent_drop contradicts the silent_drop"):
        link.silent_drop()
    two.stall()
    link.refuse_connections().lift()  # the listener is another matter
    connect(link, server4)


def test_a_fault_is_over_with_its_connection(link: Link, pairs: list[Pair]) -> None:
    """A client that has reconnected can be cut off again, with the first drop not lifted."""
    fault = link.connections[0].stall()
    connection = link.connections[0]
    before = fault.active
    connection.reset()
    connection.wait_closed()
    assert (before, fault.active) == (True, False)
    assert link.silent_drop().active


def test_when_idle_of_one_connection_minds_its_own_bytes_only(
    link: Link, pairs: list[Pair]
) -> None:
    fault = link.connections[1].reset(when_idle=0.3)
    while fault.hit_at is None:
        pairs[0].exchange()  # the link as a whole is never quiet
    assert [hit["connection"] for hit in fault.hits] == [2]
    assert fault.hits[0]["idle_for"] >= 0.3
    assert see(pairs[1].client).what == "ECONNRESET"
    pairs[2].exchange()


# --- stream toxics -----------------------------------------------------------------------


def test_latency_on_one_connection(link: Link, pairs: list[Pair]) -> None:
    with link.connections[1].latency(latency_ms=300):
        begun = time.monotonic()
        for pair in (pairs[1], pairs[0]):
            pair.server.sendall(b"hello")
        # The neighbour's bytes overtake those that were sent before.
        assert receive(pairs[0].client, 5) == b"hello"
        assert is_quiet(pairs[1].client)
        assert receive(pairs[1].client, 5) == b"hello"
        assert time.monotonic() - begun >= 0.3
    pairs[1].exchange()


def test_limit_data_on_one_connection(link: Link, pairs: list[Pair]) -> None:
    link.connections[1].limit_data(limit_bytes=3)
    for pair in pairs[:2]:
        pair.server.sendall(b"hello")
    assert receive_all(pairs[1].client) == b"hel"
    assert receive(pairs[0].client, 5) == b"hello"
    pairs[0].exchange()


@pytest.mark.parametrize("name", ["timeout", "reset_peer"])
def test_a_toxic_with_a_timer_ends_its_connection_only(
    link: Link, pairs: list[Pair], name: str
) -> None:
    getattr(link.connections[1], name)(timeout_ms=1)
    assert see(pairs[1].client).what == {"timeout": "EOF", "reset_peer": "ECONNRESET"}[name]
    for pair in (pairs[0], pairs[2]):
        pair.exchange()


def test_lifting_a_timeout_of_one_connection_closes_that_one(link: Link, pairs: list[Pair]) -> None:
    link.connections[1].timeout(timeout_ms=0).lift()
    assert see(pairs[1].client).what == "EOF"
    pairs[0].exchange()


# --- over the API ------------------------------------------------------------------------


def test_a_connection_that_has_closed_is_named_with_its_ending(
    link: Link, pairs: list[Pair]
) -> None:
    gone = link.connections[0]
    pairs[0].client.close()
    assert see(pairs[0].server).what == "EOF"
    pairs[0].server.close()
    gone.wait_closed()
    for begin in (gone.stall, lambda: gone.latency(latency_ms=5)):
        with pytest.raises(UsageError) as caught:
            begin()
        assert "connection 1 is not open: it was closed by the client (fin)" in str(caught.value)


def test_a_connection_that_there_never_was(http: RawHttp, proxy: ProxyFactory) -> None:
    path = f"/proxies/{proxy(('127.0.0.1', 9))['name']}/toxics"
    for type_ in ("stall", "latency"):
        answer = http("POST", path, {"type": type_, "attributes": {"connection": 7}})
        assert (answer.status, answer.error) == (
            400,
            "connection 7 is not open: 0 have been opened",
        )
    assert http("GET", path).document == []


@pytest.mark.parametrize("value", [-1, 1.5, "1", True])
def test_a_connection_is_a_whole_number(http: RawHttp, proxy: ProxyFactory, value: object) -> None:
    path = f"/proxies/{proxy(('127.0.0.1', 9))['name']}/toxics"
    answer = http("POST", path, {"type": "stall", "attributes": {"connection": value}})
    assert answer.status == 400
    assert "connection" in answer.error


def test_a_target_is_shown_and_cannot_change(link: Link, pairs: list[Pair], http: RawHttp) -> None:
    path = f"/proxies/{link.name}/toxics"
    body = {"name": "slow", "type": "latency", "attributes": {"latency": 5, "connection": 2}}
    shown = http("POST", path, body).document
    assert shown["attributes"] == {"latency": 5, "jitter": 0, "connection": 2}
    answer = http("POST", f"{path}/slow", {"attributes": {"latency": 9, "connection": 2}})
    assert answer.document["attributes"] == {"latency": 9, "jitter": 0, "connection": 2}
    answer = http("POST", f"{path}/slow", {"attributes": {"connection": 1}})
    assert (answer.status, "cannot change" in answer.error) == (400, True)
    assert http("GET", f"{path}/slow").document["attributes"]["latency"] == 9


@pytest.mark.parametrize("name", ["refuse_connections", "ignore_connections"])
def test_a_listener_has_no_connection(http: RawHttp, proxy: ProxyFactory, name: str) -> None:
    """To these types the attribute is one of those that they do not know."""
    path = f"/proxies/{proxy(('127.0.0.1', 9))['name']}/toxics"
    answer = http("POST", path, {"type": name, "attributes": {"connection": 7}})
    assert (answer.status, answer.document["attributes"]) == (200, {"when_idle": 0, "after": 0})
