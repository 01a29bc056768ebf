"""What is told of a connection: its times, its bytes, its faults, its end, and the waiting
for them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_tcpresilience import Connection, Event, UsageError
from pytest_tcpresilience.link import Link
from pytest_tcpresilience.tcp.keepalive import Keepalive
from tests.contract.conftest import Connector, Dialler, LinkMaker
from tests.contract.peers import Pair, RawServer, close_with_reset, receive, see
from tests.contract.rawhttp import RawHttp


@pytest.fixture
def link(make_link: LinkMaker, server: RawServer) -> Link:
    return make_link(server.address)


@pytest.fixture
def pair(connect: Connector, link: Link, server: RawServer) -> Pair:
    return connect(link, server)


def test_the_times_of_a_connection(link: Link, dial: Dialler, server: RawServer) -> None:
    begun = time.monotonic()
    client = dial((link.host, link.port))
    upstream = server.accept()
    link.wait_for("connected")
    opened = link.wait_for_connection()
    assert opened.connected_at is not None
    assert (opened.first_byte_to_server_at, opened.first_byte_to_client_at) == (None, None)
    assert opened.last_byte_at == pytest.approx(opened.opened_at, abs=0.001)

    upstream.sendall(b"welcome")
    assert receive(client, 7) == b"welcome"
    client.sendall(b"hello")
    assert receive(upstream, 5) == b"hello"
    talked = opened.now()
    assert talked.first_byte_to_client_at is not None
    assert talked.first_byte_to_server_at is not None
    times = [
        begun,
        talked.opened_at,
        opened.connected_at,
        talked.first_byte_to_client_at,
        talked.first_byte_to_server_at,
        time.monotonic(),
    ]
    assert times == sorted(times)
    assert talked.last_byte_at == talked.first_byte_to_server_at
    assert (talked.bytes_to_server, talked.bytes_to_client) == (5, 7)
    assert [(e.kind, e.get("direction")) for e in talked.events] == [
        ("opened", None),
        ("connected", None),
        ("first_byte", "to_client"),
        ("first_byte", "to_server"),
    ]


def finish(first: socket.socket, second: socket.socket) -> None:
    """FIN from the first, which is seen by the second, and then back."""
    first.shutdown(socket.SHUT_WR)
    assert see(second).what == "EOF"
    second.close()


ENDINGS: dict[str, tuple[Callable[[Link, Pair], object], tuple[str, str, str, str]]] = {
    "client-fin": (lambda link, pair: finish(*pair.ends), ("client", "fin", "", "")),
    "upstream-fin": (lambda link, pair: finish(*pair.ends[::-1]), ("upstream", "fin", "", "")),
    "client-reset": (
        lambda link, pair: close_with_reset(pair.client),
        ("client", "reset", "", "ECONNRESET"),
    ),
    "upstream-reset": (
        lambda link, pair: close_with_reset(pair.server),
        ("upstream", "reset", "", "ECONNRESET"),
    ),
    "reset": (lambda link, pair: link.reset(), ("fault", "reset", "reset", "")),
    "hang_up": (lambda link, pair: link.hang_up(), ("fault", "fin", "hang_up", "")),
    "time_out": (lambda link, pair: link.time_out(0.01), ("fault", "fin", "time_out", "")),
    "limit_data": (
        lambda link, pair: link.limit_data(1) and pair.server.send(b"12"),
        ("fault", "fin", "limit_data", ""),
    ),
    "reset_peer": (lambda link, pair: link.reset_peer(1), ("fault", "reset", "reset_peer", "")),
    "rescue": (
        lambda link, pair: link._engine.call(
            "POST", f"/resilience/proxies/{link.name}/rescue", {"refuse": False}
        ),
        ("engine", "reset", "rescue", ""),
    ),
    "disabled": (lambda link, pair: link.disable(), ("engine", "fin", "proxy_ended", "")),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_by_whom_and_how_a_connection_was_closed(link: Link, pair: Pair, name: str) -> None:
    end, expected = ENDINGS[name]
    connection = link.wait_for_connection()
    assert connection.ending is None
    end(link, pair)
    ending = connection.wait_closed().ending
    assert ending is not None
    assert (ending.by, ending.how, ending.reason, ending.errno) == expected
    event = connection.wait_for("closed")
    assert (event.at, event["bytes_to_server"]) == (ending.at, 4)
    assert link.connections == ()
    assert [each.number for each in link.closed_connections] == [1]


def test_an_upstream_that_fails_is_who_closed_it(
    make_link: LinkMaker, dial: Dialler, loopback: str
) -> None:
    server = RawServer(loopback)
    link = make_link(server.address)
    server.close()
    with contextlib.suppress(ConnectionResetError):  # it may come before connect() is back
        dial((link.host, link.port))
    link.wait_for("closed")
    (closed,) = link.closed_connections
    assert closed.ending is not None
    assert (closed.ending.by, closed.ending.how) == ("upstream", "reset")
    assert closed.ending.reason == "upstream_failed"
    with pytest.warns(UserWarning, match="the upstream .* failed"):
        link.close()


def test_the_faults_of_a_connection(
    link: Link, pair: Pair, connect: Connector, server: RawServer
) -> None:
    connect(link, server)
    stall = link.connections[0].stall(after=0.01)
    stall.wait_until_hit()
    stall.lift()
    drop = link.silent_drop()
    one, two = link.connections
    assert [each.name for each in one.faults] == ["stall", "silent_drop"]
    assert [each.name for each in two.faults] == ["silent_drop"]
    first, second = one.faults
    assert first.lifted_at is not None
    assert first.armed_at + 0.01 <= first.hit_at <= first.lifted_at <= second.armed_at
    (hit,) = [each for each in drop.hits if each["connection"] == 1]
    assert (second.hit_at, second.lifted_at) == (hit.at, None)
    kinds = [e.kind for e in one.events if e.kind.startswith(("toxic", "fault"))]
    assert kinds == ["toxic_added", "fault_hit", "toxic_removed", "fault_hit"]


def test_probes_are_counted_and_acknowledgements_are_not(
    link: Link, pair: Pair, connect: Connector, server: RawServer
) -> None:
    connect(link, server)  # a neighbour without keepalive
    Keepalive(idle=1, interval=1, probes=3).apply(pair.client)
    for _ in range(3):
        pair.exchange()  # each direction acknowledges the other
    first = link.wait_for("probe_seen", timeout=5)
    second = link.wait_for("probe_seen", timeout=5, since=first)
    assert [(e["connection"], e["seen"], e["probes"]) for e in (first, second)] == [
        (1, 1, 1),
        (1, 1, 2),
    ]
    # At the latest one look after they came.
    assert first.at - link.connections[0].last_byte_at >= 0.9
    probed, neighbour = link.connections
    assert (probed.probes >= 2, neighbour.probes) == (True, 0)


# --- waiting -----------------------------------------------------------------------------


def test_waiting_for_connections(
    link: Link, dial: Dialler, side_by_side: ThreadPoolExecutor
) -> None:
    waiting = [side_by_side.submit(link.wait_for_connection, n) for n in (1, 2)]
    dial((link.host, link.port))
    assert waiting[0].result(10).number == 1
    assert not waiting[1].done()
    dial((link.host, link.port))
    assert waiting[1].result(10).number == 2
    assert link.wait_for_connection(2, timeout=0).number == 2  # what is there needs no time
    for each in link.connections:
        each.wait_for("connected")  # the upstream is there until then


def test_waiting_in_vain_for_a_connection(link: Link, pair: Pair) -> None:
    with pytest.raises(UsageError, match=r"no 2 connection\(s\) on .* in 0.05 s") as caught:
        link.wait_for_connection(2, timeout=0.05)
    assert "1 connection(s) open: idle for 0." in caught.value.happened
    assert "connection 1: first byte from the client" in caught.value.happened


def test_waiting_for_an_event(
    link: Link,
    pair: Pair,
    connect: Connector,
    server: RawServer,
    side_by_side: ThreadPoolExecutor,
) -> None:
    waiting = side_by_side.submit(link.wait_for, "toxic_removed")
    begun = threading.Event()

    def is_the_second(event: Event) -> bool:
        begun.set()
        return event.kind == "opened" and event["connection"] == 2

    second = side_by_side.submit(link.wait_for, is_the_second)
    assert begun.wait(10)
    assert not waiting.done()
    with link.stall():
        pass
    assert waiting.result(10)["type"] == "stall"
    connect(link, server)
    assert second.result(10)["connection"] == 2


def test_what_has_happened_counts_unless_it_is_too_old(link: Link, pair: Pair) -> None:
    opened = link.wait_for("opened", timeout=0)
    assert opened.seq == 1
    with pytest.raises(UsageError, match=r"no event 'opened' on .* in 0.05 s") as caught:
        link.wait_for("opened", timeout=0.05, since=opened)
    assert caught.value.expected == "an event 'opened' after event 1"
    assert "opened by" in caught.value.happened


def test_a_connections_own_events(
    link: Link, pair: Pair, connect: Connector, server: RawServer
) -> None:
    connect(link, server)
    one, two = link.connections
    link.connections[1].stall()
    assert two.wait_for("fault_hit")["connection"] == 2
    with pytest.raises(UsageError, match=r"no event 'fault_hit' on connection 1 in 0.05 s"):
        one.wait_for("fault_hit", timeout=0.05)


def test_a_connection_that_does_not_close(link: Link, pair: Pair) -> None:
    connection = link.wait_for_connection()
    with pytest.raises(UsageError, match=r"connection 1 of .* was not closed in 0.05 s") as caught:
        connection.wait_closed(timeout=0.05)
    assert "first byte from the upstream" in caught.value.happened


def test_a_connection_that_has_closed_needs_no_wait(link: Link, pair: Pair) -> None:
    connection = link.wait_for_connection()
    link.reset()
    closed = connection.wait_closed()
    assert closed.wait_closed(timeout=0) == closed
    assert connection.ending is None  # a snapshot stays what it was


def test_closed_connections_are_in_the_order_of_their_closing(
    link: Link, connect: Connector, server: RawServer
) -> None:
    for _ in range(3):
        connect(link, server)
    for number in (2, 1):
        link.connection(number).reset()
    assert [each.number for each in link.closed_connections] == [2, 1]
    assert [each.number for each in link.connections] == [3]
    assert isinstance(link.connection(2), Connection)
    with pytest.raises(UsageError, match="has no connection 7") as caught:
        link.connection(7)
    assert caught.value.happened == "known: 2, 1, 3"


def test_the_list_of_connections_over_the_api(link: Link, pair: Pair, http: RawHttp) -> None:
    path = f"/resilience/proxies/{link.name}/connections"
    (shown,) = http("GET", path).document
    assert shown["closed"] is None
    link.reset()
    link.wait_for("closed")
    assert http("GET", path).document == []
    (closed,) = http("GET", f"{path}?closed=1").document
    assert closed["closed"].keys() == {"at", "by", "how", "reason"}
    assert shown.keys() == closed.keys()
    answer = http("GET", f"{path}?closed=yes")
    assert (answer.status, answer.error) == (400, "closed is 0 or 1")
