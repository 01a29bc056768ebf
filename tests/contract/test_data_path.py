"""The data path beside the control: neither waits for the other, and nothing is lost."""

from __future__ import annotations

import random
import socket
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_tcpresilience.link import Link
from tests.contract.conftest import Connector, LinkMaker
from tests.contract.peers import (
    Pair,
    RawServer,
    close_with_reset,
    receive,
    receive_all,
    see,
    send_in_chunks,
)
from tests.contract.streams import MEGABYTE, add_toxic, cross, digest, remove_toxic

# What is promised, of the median: single calls may meet a machine that is busy elsewhere.
PROMISED_S = 0.100
CALLS = 15


@pytest.fixture
def link(make_link: LinkMaker, server4: RawServer) -> Link:
    return make_link(server4.address)


@pytest.fixture
def pair(connect: Connector, link: Link, server4: RawServer) -> Pair:
    return connect(link, server4)


def median_s(call: Callable[[], object]) -> float:
    times = []
    for _ in range(CALLS):
        begun = time.monotonic()
        call()
        times.append(time.monotonic() - begun)
    return statistics.median(times)


def fill(sock: socket.socket) -> int:
    """Send until every buffer on the way is full. How much that was."""
    sent = 0
    sock.settimeout(0.4)  # no progress for so long: it is full
    with pytest.raises(TimeoutError):
        while True:
            sent += sock.send(b"x" * 65536)
    return sent


@pytest.mark.parametrize("blocked_by", [None, "bandwidth"])
def test_toxics_come_and_go_while_the_data_path_is_blocked(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor, blocked_by: str | None
) -> None:
    # In Toxiproxy the removal does not return (its issue 558).
    if blocked_by:
        add_toxic(link, blocked_by, "upstream", rate=0)
    sent = fill(pair.client)

    def come_and_go() -> None:
        remove_toxic(link, add_toxic(link, "latency", "upstream", latency=1))

    assert median_s(come_and_go) < 2 * PROMISED_S  # two calls
    if blocked_by:
        remove_toxic(link, "bandwidth_upstream")
    pair.client.shutdown(socket.SHUT_WR)
    assert len(side_by_side.submit(receive_all, pair.server).result()) == sent


def test_a_call_is_answered_while_transfers_go_on(
    link: Link, connect: Connector, server4: RawServer, side_by_side: ThreadPoolExecutor
) -> None:
    pairs = [connect(link, server4) for _ in range(4)]
    reading = [side_by_side.submit(receive_all, pair.server) for pair in pairs]
    over = False

    def send(sock: socket.socket) -> int:
        sent = 0
        while not over and sent < 4096 * MEGABYTE:
            sent += sock.send(bytes(256 * 1024))
        sock.shutdown(socket.SHUT_WR)
        return sent

    sending = [side_by_side.submit(send, pair.client) for pair in pairs]
    took = median_s(lambda: link.call("GET", "/toxics"))
    over = True
    sent = [each.result() for each in sending]
    assert [len(each.result()) for each in reading] == sent
    assert took < PROMISED_S


def test_nothing_is_lost_however_often_the_path_changes(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    """In both directions at once: spliced, held, shaped by each kind, and spliced again."""

    def change() -> None:
        with link.stall():
            link.describe_connections()
        for stream in ("upstream", "downstream"):
            slicer = add_toxic(link, "slicer", stream, average_size=30_000, delay=10)
            remove_toxic(link, slicer)
            remove_toxic(link, add_toxic(link, "bandwidth", stream, rate=500_000))

    cross(pair, side_by_side, 16 * MEGABYTE, change)


def test_a_silent_drop_in_mid_transfer_heals_with_nothing_lost(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    payload = random.Random(5).randbytes(16 * MEGABYTE)

    def send() -> None:
        send_in_chunks(pair.client, payload, 5)
        pair.client.shutdown(socket.SHUT_WR)

    sending = side_by_side.submit(send)
    begun = receive(pair.server, MEGABYTE)  # and no more: the rest is under way
    with link.silent_drop():
        link.describe_connections()
    rest = side_by_side.submit(receive_all, pair.server)
    sending.result()
    assert digest(begun + rest.result()) == digest(payload)


def test_a_half_closed_connection_goes_on_after_a_fault(link: Link, pair: Pair) -> None:
    pair.client.shutdown(socket.SHUT_WR)
    assert see(pair.server).what == "EOF"
    with link.stall():
        pair.server.sendall(b"held")
    assert receive(pair.client, 4) == b"held"
    pair.server.sendall(b"and on")
    assert receive(pair.client, 6) == b"and on"
    pair.server.close()
    assert see(pair.client).what == "EOF"


def test_a_reset_after_a_half_close_is_a_reset(link: Link, pair: Pair) -> None:
    pair.client.shutdown(socket.SHUT_WR)
    assert see(pair.server).what == "EOF"
    close_with_reset(pair.client)
    assert see(pair.server).what == "EOF"  # which it was; the error is behind it
    with pytest.raises(OSError):  # noqa: PT011 - ECONNRESET or EPIPE, as the kernel likes
        for _ in range(100):
            pair.server.sendall(b"x")
            time.sleep(0.01)
