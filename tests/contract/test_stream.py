"""The byte stream: what goes in comes out, and what toxics do to it."""

from __future__ import annotations

import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pytest_tcpresilience.control import Engine
from pytest_tcpresilience.link import Link
from tests.contract.conftest import Connector, Dialler, LinkMaker, ProxyFactory
from tests.contract.peers import (
    Pair,
    RawServer,
    close_with_reset,
    is_quiet,
    receive,
    receive_all,
    see,
    send_in_chunks,
)
from tests.contract.streams import MEGABYTE, add_toxic, cross, remove_toxic
from tests.servers import EchoServer

# More than both kernels and the engine may hold; without backpressure it is passed.
FAR_TOO_MUCH = 128 * MEGABYTE


@pytest.fixture
def link(make_link: LinkMaker, server: RawServer) -> Link:
    return make_link(server.address)


@pytest.fixture
def pair(connect: Connector, link: Link, server: RawServer) -> Pair:
    return connect(link, server)


# --- bytes -------------------------------------------------------------------------------


def test_megabytes_cross_in_both_directions_at_once(
    pair: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    cross(pair, side_by_side, 8 * MEGABYTE)


def test_many_connections_do_not_mix_their_bytes(
    make_link: LinkMaker, echo: EchoServer, dial: Dialler, side_by_side: ThreadPoolExecutor
) -> None:
    link = make_link(echo.address)

    def echoed(number: int) -> bool:
        payload = random.Random(number).randbytes(50_000 + number)
        sock = dial((link.host, link.port))
        side_by_side.submit(send_in_chunks, sock, payload, number)
        return receive(sock, len(payload)) == payload

    assert all(list(side_by_side.map(echoed, range(40))))


def test_the_engine_counts_what_crossed(link: Link, pair: Pair) -> None:
    pair.client.sendall(b"12345")
    assert receive(pair.server, 5) == b"12345"
    (shown,) = link.connections
    assert (shown.bytes_to_server, shown.bytes_to_client) == (4 + 5, 4)  # 4: the greeting
    assert shown.client == pair.client.getsockname()[:2]


# --- ends --------------------------------------------------------------------------------


def test_a_client_that_has_finished_sending_still_gets_the_reply(pair: Pair) -> None:
    pair.client.sendall(b"question")
    pair.client.shutdown(socket.SHUT_WR)
    assert receive_all(pair.server) == b"question"
    pair.server.sendall(b"answer")
    pair.server.close()
    assert receive_all(pair.client) == b"answer"


def test_an_upstream_that_has_finished_sending_still_gets_what_comes(pair: Pair) -> None:
    pair.server.shutdown(socket.SHUT_WR)
    assert see(pair.client).what == "EOF"
    pair.client.sendall(b"more")
    pair.client.close()
    assert receive_all(pair.server) == b"more"


def test_an_upstreams_fin_is_a_fin(pair: Pair) -> None:
    pair.server.close()
    assert see(pair.client).what == "EOF"


def test_an_upstreams_reset_is_a_reset(pair: Pair) -> None:
    close_with_reset(pair.server)
    assert see(pair.client).what == "ECONNRESET"


def test_a_clients_fin_is_a_fin(pair: Pair) -> None:
    pair.client.close()
    assert see(pair.server).what == "EOF"


def test_a_clients_reset_is_a_reset(pair: Pair) -> None:
    close_with_reset(pair.client)
    assert see(pair.server).what == "ECONNRESET"


def test_an_end_is_logged_with_its_kind(link: Link, pair: Pair) -> None:
    close_with_reset(pair.server)
    assert see(pair.client).what == "ECONNRESET"
    (closed,) = [event for event in link.events if event.kind == "closed"]
    assert (closed["how"], closed["by"], closed["errno"]) == ("reset", "upstream", "ECONNRESET")


def test_a_connection_that_has_ended_is_no_longer_listed(link: Link, pair: Pair) -> None:
    pair.server.close()
    assert see(pair.client).what == "EOF"
    pair.client.close()
    seen = 0
    while not any(event.kind == "closed" for event in link.events):
        seen = max(event.seq for event in link.events_after(seen, wait_s=5))
    assert link.connections == ()


def end_of_a_client(proxy: dict[str, Any]) -> str:
    """How a connection to a proxy ends that was sent nothing."""
    address = ("127.0.0.1", int(proxy["listen"].rpartition(":")[2]))
    try:
        with socket.create_connection(address) as sock:
            return see(sock).what
    except ConnectionResetError:  # so soon that connect() itself reports it
        return "ECONNRESET"


def test_a_refused_upstream_resets_the_client_and_is_logged(
    proxy: ProxyFactory, engine: Engine
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # holds the port; nobody listens
        created = proxy(bound.getsockname())
        assert end_of_a_client(created) == "ECONNRESET"
    events = engine.call("GET", f"/resilience/proxies/{created['name']}/events")
    assert [event["kind"] for event in events] == ["opened", "upstream_failed", "closed"]
    assert events[1]["error"] == "Connection refused"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70])
def test_an_upstream_without_an_address_resets_the_client_and_is_logged(
    proxy: ProxyFactory, engine: Engine, host: str
) -> None:
    created = proxy((host, 7001))
    assert end_of_a_client(created) == "ECONNRESET"
    events = engine.call("GET", f"/resilience/proxies/{created['name']}/events")
    assert [event["kind"] for event in events] == ["opened", "upstream_failed", "closed"]


# --- latency -----------------------------------------------------------------------------


def test_latency_delays_one_direction(link: Link, pair: Pair) -> None:
    add_toxic(link, "latency", latency=60_000)
    pair.server.sendall(b"late")
    pair.client.sendall(b"at once")
    assert receive(pair.server, 7) == b"at once"
    assert is_quiet(pair.client)


def test_latency_delays_by_its_time(link: Link, pair: Pair) -> None:
    add_toxic(link, "latency", latency=150)
    begun = time.monotonic()
    pair.server.sendall(b"late")
    assert receive(pair.client, 4) == b"late"
    assert time.monotonic() - begun >= 0.150


def test_latency_with_jitter_keeps_the_order(link: Link, pair: Pair) -> None:
    add_toxic(link, "latency", "upstream", latency=5, jitter=5)
    pieces = [f"{number:04}".encode() for number in range(200)]
    for piece in pieces:
        pair.client.sendall(piece)
    assert receive(pair.server, 800) == b"".join(pieces)


def test_latencies_add_up_and_can_be_changed(link: Link, pair: Pair) -> None:
    add_toxic(link, "latency", latency=60_000)
    link.call("POST", "/toxics", {"name": "more", "type": "latency", "attributes": {"latency": 80}})
    begun = time.monotonic()
    pair.server.sendall(b"late")
    link.call("PATCH", "/toxics/latency_downstream", {"attributes": {"latency": 80}})
    assert receive(pair.client, 4) == b"late"
    # Both count from the moment at which the bytes came.
    assert time.monotonic() - begun >= 0.160


def test_latency_delays_the_end_of_the_stream_too(link: Link, pair: Pair) -> None:
    add_toxic(link, "latency", latency=150)
    begun = time.monotonic()
    pair.server.sendall(b"bye")
    pair.server.close()
    assert receive_all(pair.client) == b"bye"
    assert time.monotonic() - begun >= 0.150


def test_latency_that_comes_and_goes_in_mid_stream_loses_nothing(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    def come_and_go() -> None:
        for stream in ("upstream", "downstream"):
            name = add_toxic(link, "latency", stream, latency=3, jitter=3)
            remove_toxic(link, name)

    cross(pair, side_by_side, 8 * MEGABYTE, come_and_go)


def test_a_toxicity_of_0_acts_on_no_connection(link: Link, pair: Pair) -> None:
    body = {"type": "timeout", "toxicity": 0, "attributes": {"timeout": 1}}
    link.call("POST", "/toxics", body)
    pair.exchange()
    remove_toxic(link, "timeout_downstream")
    pair.exchange()


# --- timeout and reset_peer --------------------------------------------------------------


def test_timeout_drops_data_and_closes_after_its_time(link: Link, pair: Pair) -> None:
    begun = time.monotonic()
    add_toxic(link, "timeout", timeout=200)
    pair.server.sendall(b"lost")
    ended = see(pair.client)
    assert ended.what == "EOF"
    assert ended.at - begun >= 0.200


def test_timeout_drops_one_direction_only(link: Link, pair: Pair) -> None:
    add_toxic(link, "timeout", timeout=0)
    pair.server.sendall(b"lost")
    pair.client.sendall(b"kept")
    assert receive(pair.server, 4) == b"kept"
    assert is_quiet(pair.client)


def test_removing_timeout_closes_what_it_has_robbed(
    link: Link, pair: Pair, connect: Connector, server: RawServer
) -> None:
    add_toxic(link, "timeout", timeout=0)
    pair.server.sendall(b"lost")
    remove_toxic(link, "timeout_downstream")
    assert see(pair.client).what == "EOF"
    assert connect(link, server)  # and the next connection passes


def test_timeout_acts_on_a_connection_that_comes_later(
    link: Link, server: RawServer, dial: Dialler
) -> None:
    add_toxic(link, "timeout", timeout=100)
    begun = time.monotonic()
    client = dial((link.host, link.port))
    server.accept().sendall(b"lost")
    ended = see(client)
    assert ended.what == "EOF"
    assert ended.at - begun >= 0.100


@pytest.mark.parametrize("milliseconds", [0, 150])
def test_reset_peer_resets_an_idle_established_connection(
    link: Link, pair: Pair, milliseconds: int
) -> None:
    begun = time.monotonic()
    add_toxic(link, "reset_peer", timeout=milliseconds)
    for sock in pair.ends:
        ended = see(sock)
        assert ended.what == "ECONNRESET"
        assert ended.at - begun >= milliseconds / 1000


def test_reset_peer_called_off_before_its_time_loses_nothing(link: Link, pair: Pair) -> None:
    add_toxic(link, "reset_peer", timeout=60_000)
    pair.server.sendall(b"before")
    remove_toxic(link, "reset_peer_downstream")
    pair.server.sendall(b"after")
    assert receive(pair.client, 11) == b"beforeafter"


# --- stall -------------------------------------------------------------------------------


def test_a_stall_holds_bytes_and_lifting_it_delivers_them(link: Link, pair: Pair) -> None:
    with link.stall():
        pair.client.sendall(b"to server")
        pair.server.sendall(b"to client")
        assert link.connections  # a round trip to the engine, which has seen the bytes by then
        assert is_quiet(pair.client)
        assert is_quiet(pair.server)
    assert receive(pair.server, 9) == b"to server"
    assert receive(pair.client, 9) == b"to client"
    pair.exchange()


def test_a_stall_in_mid_stream_loses_nothing(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    def stall_and_lift() -> None:
        with link.stall():
            link.describe_connections()  # a round trip to the engine

    cross(pair, side_by_side, 8 * MEGABYTE, stall_and_lift)


# --- backpressure ------------------------------------------------------------------------


@pytest.mark.parametrize("toxic", [None, "latency"])
def test_a_client_that_does_not_read_slows_the_upstream_down(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor, toxic: str | None
) -> None:
    if toxic:
        add_toxic(link, toxic, latency=1)
    sent = 0
    pair.server.settimeout(0.4)  # no progress for so long: it is being held up
    with pytest.raises(TimeoutError):
        while sent < FAR_TOO_MUCH:
            sent += pair.server.send(b"x" * 65536)
    assert sent < FAR_TOO_MUCH
    pair.server.shutdown(socket.SHUT_WR)
    # A client that reads again gets all of it.
    assert len(side_by_side.submit(receive_all, pair.client).result()) == sent
