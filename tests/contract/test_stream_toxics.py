"""bandwidth, slicer, limit_data and slow_close on real sockets."""

from __future__ import annotations

import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pytest_tcpresilience.link import Link
from tests.contract.conftest import Connector, LinkMaker, ProxyFactory
from tests.contract.peers import Pair, RawServer, is_quiet, receive, receive_all, see
from tests.contract.rawhttp import RawHttp
from tests.contract.streams import MEGABYTE, add_toxic, cross, remove_toxic


@pytest.fixture
def link(make_link: LinkMaker, server4: RawServer) -> Link:
    return make_link(server4.address)


@pytest.fixture
def pair(connect: Connector, link: Link, server4: RawServer) -> Pair:
    return connect(link, server4)


# --- what the API says -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "given", "shown"),
    [
        ("bandwidth", {"rate": 5}, {"rate": 5}),
        ("bandwidth", None, {"rate": 0}),
        ("slicer", {"average_size": 7}, {"average_size": 7, "size_variation": 0, "delay": 0}),
        ("limit_data", {"bytes": 9}, {"bytes": 9}),
        ("slow_close", {"delay": 3}, {"delay": 3}),
    ],
)
def test_a_stream_toxic_is_shown_with_all_its_attributes(
    http: RawHttp,
    proxy: ProxyFactory,
    type_: str,
    given: dict[str, int] | None,
    shown: dict[str, int],
) -> None:
    path = f"/proxies/{proxy(('127.0.0.1', 7001))['name']}/toxics"
    answer = http("POST", path, {"type": type_, "attributes": given})
    document: dict[str, Any] = {
        "attributes": shown,
        "name": f"{type_}_downstream",
        "type": type_,
        "stream": "downstream",
        "toxicity": 1,
    }
    assert (answer.status, answer.document) == (200, document)
    assert http("DELETE", f"{path}/{type_}_downstream").status == 204


# --- bandwidth ---------------------------------------------------------------------------


def test_bandwidth_keeps_its_rate(link: Link, pair: Pair) -> None:
    add_toxic(link, "bandwidth", rate=100)
    payload = random.Random(1).randbytes(50_000)
    begun = time.monotonic()
    pair.server.sendall(payload)
    assert receive(pair.client, len(payload)) == payload
    took = time.monotonic() - begun
    assert 0.49 <= took < 4.0, "half a second's worth"


def test_bandwidth_acts_on_one_direction(link: Link, pair: Pair) -> None:
    add_toxic(link, "bandwidth", "upstream", rate=0)
    pair.client.sendall(b"held")
    pair.server.sendall(b"at once")
    assert receive(pair.client, 7) == b"at once"
    assert is_quiet(pair.server)


def test_a_rate_of_0_is_felt_by_the_sender_and_loses_nothing(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    add_toxic(link, "bandwidth", rate=0)
    # Small buffers, so that what the kernels take is little beside the engine's own limit.
    pair.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    sent = 0
    pair.server.settimeout(0.4)  # no progress for so long: it is being held up
    with pytest.raises(TimeoutError):
        while sent < 16 * MEGABYTE:
            sent += pair.server.send(b"x" * 65536)
    assert sent < 16 * MEGABYTE
    assert is_quiet(pair.client)
    reading = side_by_side.submit(receive_all, pair.client)
    remove_toxic(link, "bandwidth_downstream")
    pair.server.shutdown(socket.SHUT_WR)
    assert len(reading.result()) == sent


def test_latency_does_not_slow_a_rate_down(link: Link, pair: Pair) -> None:
    add_toxic(link, "bandwidth", rate=1000)
    add_toxic(link, "latency", latency=200)
    begun = time.monotonic()
    pair.server.sendall(b"x" * 400_000)
    assert len(receive(pair.client, 400_000)) == 400_000
    took = time.monotonic() - begun
    assert 0.59 <= took < 4.0, "0.4 s for the bytes, and 0.2 s once"


# --- slicer ------------------------------------------------------------------------------


def test_a_slicer_sends_small_pieces_with_pauses(link: Link, pair: Pair) -> None:
    add_toxic(link, "slicer", average_size=10, size_variation=3, delay=20_000)
    payload = random.Random(1).randbytes(100)
    begun = time.monotonic()
    pair.server.sendall(payload)
    pieces: list[bytes] = []
    while sum(map(len, pieces)) < len(payload):
        pieces.append(see(pair.client).data)
    # A reader that is late finds two pieces in one, so neither sizes nor gaps are its to see.
    assert b"".join(pieces) == payload
    assert len(pieces) > 1
    assert time.monotonic() - begun >= 0.020 * 7, "eight pieces, were all of them the largest"


def test_a_slicer_of_single_bytes_lets_others_have_their_turn(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    add_toxic(link, "slicer", average_size=1)
    payload = random.Random(1).randbytes(100_000)
    reading = side_by_side.submit(receive, pair.client, len(payload))
    pair.server.sendall(payload)
    slowest = 0.0
    while not reading.done():
        begun = time.monotonic()
        assert link.connections
        slowest = max(slowest, time.monotonic() - begun)
    assert reading.result() == payload
    assert slowest < 1.0


# --- limit_data --------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 1000, 300_000])
def test_limit_data_passes_exactly_so_many_and_closes(link: Link, pair: Pair, limit: int) -> None:
    add_toxic(link, "limit_data", bytes=limit)
    payload = random.Random(1).randbytes(limit + 100_000)
    pair.server.sendall(payload[: limit + 1])
    assert receive_all(pair.client) == payload[:limit]
    assert see(pair.server).what in ("EOF", "ECONNRESET")
    (closed,) = [event for event in link.events if event.kind == "closed"]
    assert closed["reason"] == "limit_data"


def test_limit_data_closes_with_the_last_byte_that_it_lets_through(link: Link, pair: Pair) -> None:
    add_toxic(link, "limit_data", "upstream", bytes=4)
    pair.client.sendall(b"1234")
    assert receive_all(pair.server) == b"1234"
    assert see(pair.client).what == "EOF"


def test_limit_data_counts_from_when_it_was_added(link: Link, pair: Pair) -> None:
    for _ in range(2):  # one of the same name starts again
        add_toxic(link, "limit_data", bytes=6)
        pair.exchange()
        remove_toxic(link, "limit_data_downstream")
    add_toxic(link, "limit_data", bytes=6)
    pair.exchange()
    pair.server.sendall(b"12345")
    assert receive_all(pair.client) == b"12"


def test_limit_data_counts_each_connection_for_itself(
    link: Link, connect: Connector, server4: RawServer
) -> None:
    add_toxic(link, "limit_data", bytes=5)
    for pair in [connect(link, server4), connect(link, server4)]:
        pair.server.sendall(b"12345")
        assert receive_all(pair.client) == b"1"


# --- slow_close --------------------------------------------------------------------------


def test_slow_close_delays_the_fin_and_nothing_else(link: Link, pair: Pair) -> None:
    add_toxic(link, "slow_close", delay=250)
    begun = time.monotonic()
    pair.server.sendall(b"bye")
    pair.server.close()
    first = see(pair.client)
    assert first.data == b"bye"
    assert first.at - begun < 0.200
    ended = see(pair.client)
    assert ended.what == "EOF"
    assert ended.at - begun >= 0.250


def test_a_close_that_is_held_comes_when_slow_close_is_removed(link: Link, pair: Pair) -> None:
    add_toxic(link, "slow_close", delay=60_000)
    pair.server.shutdown(socket.SHUT_WR)
    pair.client.sendall(b"still open")
    assert receive(pair.server, 10) == b"still open"
    assert is_quiet(pair.client)
    remove_toxic(link, "slow_close_downstream")
    assert see(pair.client).what == "EOF"


# --- together ----------------------------------------------------------------------------


def test_toxics_that_come_and_go_in_mid_stream_lose_nothing(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    kinds: list[tuple[str, dict[str, int]]] = [
        ("bandwidth", {"rate": 0}),
        ("bandwidth", {"rate": 50_000}),
        ("slicer", {"average_size": 20_000, "size_variation": 9_000, "delay": 100}),
        ("latency", {"latency": 3, "jitter": 3}),
        ("slow_close", {"delay": 20}),
        ("limit_data", {"bytes": 10**12}),
    ]

    def come_and_go() -> None:
        for type_, attributes in kinds:
            names = [
                add_toxic(link, type_, stream, **attributes)
                for stream in ("upstream", "downstream")
            ]
            for name in names:
                remove_toxic(link, name)

    cross(pair, side_by_side, 8 * MEGABYTE, come_and_go)


def test_a_links_toxics_act_and_are_lifted(link: Link, pair: Pair) -> None:
    with link.bandwidth(rate_kb_s=0, stream="upstream"), link.latency(latency_ms=60_000):
        pair.client.sendall(b"up")
        pair.server.sendall(b"down")
        assert link.connections  # a round trip to the engine
        assert is_quiet(pair.server)
        assert is_quiet(pair.client)
    assert receive(pair.server, 2) == b"up"
    assert receive(pair.client, 4) == b"down"
    link.slicer(average_size_bytes=1)
    link.limit_data(limit_bytes=3)
    pair.server.sendall(b"12345")
    assert receive_all(pair.client) == b"123"
