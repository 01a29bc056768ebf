"""A consumer that does not read: the window closes for real, and opens with nothing lost."""

from __future__ import annotations

import hashlib
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_tcpresilience.link import Link
from pytest_tcpresilience.tcp.keepalive import Keepalive
from tests.contract.conftest import Connector, LinkMaker
from tests.contract.peers import WAIT_S, Pair, RawServer, is_quiet, look, receive, receive_all, see

MEGABYTE = 1024 * 1024
# Which end finds the window closed.
SIDES = [("client", 0), ("server", 1)]


@pytest.fixture
def link(make_link: LinkMaker, server: RawServer) -> Link:
    return make_link(server.address)


@pytest.fixture
def pair(connect: Connector, link: Link, server: RawServer) -> Pair:
    return connect(link, server)


def fill(sock: socket.socket) -> int:
    """Write until no more is taken; how much it was."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    payload, count = random.Random(1).randbytes(MEGABYTE), 0
    sock.setblocking(False)
    # What was taken is still moving into the reader's buffer when the writer's is full.
    until_quiet = time.monotonic() + WAIT_S
    while time.monotonic() < until_quiet:
        try:
            count += sock.send(payload[count % MEGABYTE :])
        except BlockingIOError:
            state = look(sock)
            if state is not None and state.timer == "persist":
                break
    sock.settimeout(WAIT_S)
    return count


@pytest.mark.parametrize(("side", "end"), SIDES)
def test_the_window_closes_for_one_side_and_the_other_direction_goes_on(
    link: Link, pair: Pair, side: str, end: int
) -> None:
    writer, reader = pair.ends[end], pair.ends[1 - end]
    with link.stop_reading(side=side) as fault:
        assert [hit["side"] for hit in fault.hits] == [side]
        count = fill(writer)
        state = look(writer)
        assert state is not None
        assert (state.state, state.timer) == ("established", "persist")
        with pytest.raises(TimeoutError):
            writer.settimeout(0.05)
            writer.send(b"x")
        reader.sendall(b"the other way")
        assert receive(writer, 13) == b"the other way"
        assert is_quiet(reader)
    writer.shutdown(socket.SHUT_WR)
    arrived = receive_all(reader)
    payload = random.Random(1).randbytes(MEGABYTE)
    expected = (payload * (count // MEGABYTE + 1))[:count]
    assert hashlib.sha256(arrived).digest() == hashlib.sha256(expected).digest()


def test_both_sides_can_be_left_unread(link: Link, pair: Pair) -> None:
    with link.stop_reading(side="both"):
        for sock in pair.ends:
            fill(sock)
        assert all(is_quiet(sock) for sock in pair.ends)
    for sock in pair.ends:
        assert receive(sock, 1)


def test_the_user_timeout_ends_it_and_keepalive_never_does(
    make_link: LinkMaker, connect: Connector, server4: RawServer, side_by_side: ThreadPoolExecutor
) -> None:
    """A false alarm of the first, for its peer is alive; side by side in the same seconds."""
    link = make_link(server4.address)
    impatient, patient = (connect(link, server4) for _ in range(2))
    Keepalive(idle=1, interval=1, probes=1, user_timeout=1.0).apply(impatient.client)
    Keepalive(idle=1, interval=1, probes=1).apply(patient.client)
    link.stop_reading()
    filled_at = time.monotonic()
    for pair in (impatient, patient):
        fill(pair.client)
    seen = side_by_side.submit(see, impatient.client)
    still = side_by_side.submit(see, patient.client, 3.5)
    assert seen.result().what == "ETIMEDOUT"
    assert seen.result().at - filled_at >= 1.0
    assert still.result().what == "nothing"
    state = look(patient.client)
    assert state is not None
    assert state.timer == "persist"


def test_a_connection_that_comes_later_is_not_read_either(
    link: Link, server: RawServer, connect: Connector
) -> None:
    with link.stop_reading() as fault:
        client = socket.create_connection((link.host, link.port), timeout=WAIT_S)
        upstream = server.accept()
        with client:
            client.sendall(b"unread")
            upstream.sendall(b"read")
            assert receive(client, 4) == b"read"
            assert is_quiet(upstream)
            assert [hit["connection"] for hit in fault.hits] == [1]
            fault.lift()
            assert receive(upstream, 6) == b"unread"
    connect(link, server).exchange()
