"""Resets that nobody would read: after a half-close, while held, while being dialled."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_tcpresilience.engine.legs import upstream_leg
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.kernel import capabilities, cuts
from pytest_tcpresilience.link import Link
from tests.contract.conftest import Connector, Dialler, LinkMaker
from tests.contract.peers import (
    WAIT_S,
    Pair,
    RawServer,
    close_with_reset,
    is_quiet,
    receive,
    receive_all,
    see,
)


@pytest.fixture
def link(make_link: LinkMaker, server: RawServer) -> Link:
    return make_link(server.address)


@pytest.fixture
def pair(connect: Connector, link: Link, server: RawServer) -> Pair:
    return connect(link, server)


def hears_of_an_error(sock: socket.socket) -> bool:
    """Whether the kernel reports an error on a socket that nobody reads or writes."""
    poll = select.poll()
    poll.register(sock, 0)
    while True:
        found = poll.poll(WAIT_S * 1000)
        if not found or found[0][1] & select.POLLERR:
            return bool(found)


def wait_for(link: Link, kind: str) -> Event:
    seen, deadline = 0, time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for event in link.events_after(seen, wait_s=WAIT_S):
            seen = event.seq
            if event.kind == kind:
                return event
    raise AssertionError(f"no event {kind}: {[event.kind for event in link.events]}")


# --- after a half-close ------------------------------------------------------------------


@pytest.mark.parametrize("side", ["client", "upstream"])
def test_a_reset_after_a_half_close_is_passed_on_at_once(link: Link, pair: Pair, side: str) -> None:
    own, other = pair.ends if side == "client" else pair.ends[::-1]
    own.sendall(b"last words")
    own.shutdown(socket.SHUT_WR)
    assert receive_all(other) == b"last words"
    close_with_reset(own)
    assert hears_of_an_error(other)
    with pytest.raises(BrokenPipeError):  # as on a connection without a hop
        other.send(b"?")
    closed = wait_for(link, "closed")
    assert (closed["how"], closed["by"], closed["errno"]) == ("reset", side, "ECONNRESET")
    assert link.connections == ()


def test_a_reset_while_the_other_side_does_not_read_is_passed_on(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor
) -> None:
    pair.client.settimeout(0.3)  # no progress for so long: all buffers are full
    with pytest.raises(TimeoutError):
        while True:
            pair.client.sendall(b"x" * 65536)
    assert not select.select([], [pair.client], [], 0)[1]
    close_with_reset(pair.client)
    assert hears_of_an_error(pair.server)
    assert wait_for(link, "closed")["by"] == "client"


# --- while held --------------------------------------------------------------------------


def test_a_clients_reset_under_a_stall_is_recorded_and_passed_on_when_it_is_lifted(
    link: Link, pair: Pair
) -> None:
    with link.stall():
        pair.client.sendall(b"last words")
        close_with_reset(pair.client)
        closed = wait_for(link, "closed")
        assert (closed["how"], closed["by"], closed["errno"]) == ("reset", "client", "ECONNRESET")
        assert is_quiet(pair.server)
    assert receive(pair.server, 10) == b"last words"
    assert see(pair.server).what == "ECONNRESET"


def test_an_upstreams_reset_under_a_stall_reaches_the_client_when_it_is_lifted(
    link: Link, pair: Pair
) -> None:
    with link.stall():
        pair.server.sendall(b"last words")
        close_with_reset(pair.server)
        (shown,) = link.connections  # to the client it goes on
        assert shown.client == pair.client.getsockname()[:2]
        assert is_quiet(pair.client)
    assert receive(pair.client, 10) == b"last words"
    assert see(pair.client).what == "ECONNRESET"


def test_a_reset_after_a_half_close_and_under_a_stall_is_not_forgotten(
    link: Link, pair: Pair
) -> None:
    pair.client.shutdown(socket.SHUT_WR)
    assert receive_all(pair.server) == b""
    with link.stall():
        close_with_reset(pair.client)
        assert wait_for(link, "closed")["by"] == "client"
        assert is_at_rest(pair.server)
    assert hears_of_an_error(pair.server)


def is_at_rest(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, 0)
    return not poll.poll(0)


def test_a_reset_under_silence_does_not_arrive(link: Link, pair: Pair) -> None:
    with link.silent_drop():
        close_with_reset(pair.client)
        (shown,) = link.connections
        assert shown.number == 1
        assert is_quiet(pair.server)
    # The line is back, and whoever writes learns that there is nobody any more.
    pair.server.sendall(b"?")
    assert see(pair.server).what == "ECONNRESET"


def test_a_reset_is_held_back_with_the_bytes_that_are_one_too_many(link: Link, pair: Pair) -> None:
    with link.stall(after_bytes=4):
        pair.client.sendall(b"12345678")
        assert receive(pair.server, 4) == b"1234"
        close_with_reset(pair.client)
        assert wait_for(link, "closed")["by"] == "client"
        assert is_quiet(pair.server)
    assert receive(pair.server, 4) == b"5678"
    assert see(pair.server).what == "ECONNRESET"


def test_a_reset_passes_a_reader_that_has_stopped(link: Link, pair: Pair) -> None:
    """As between two kernels: the window is closed for bytes, and not for a reset."""
    with link.stop_reading(side="both"):
        pair.client.sendall(b"unread")
        close_with_reset(pair.client)
        assert see(pair.server).what == "ECONNRESET"
    assert wait_for(link, "closed")["by"] == "client"


def test_a_reset_goes_the_way_that_is_left(link: Link, pair: Pair) -> None:
    with link.silent_drop(direction="to_client"):
        close_with_reset(pair.client)
        assert see(pair.server).what == "ECONNRESET"
    assert wait_for(link, "closed")["by"] == "client"


def test_a_reset_that_is_to_be_lost_is_lost_under_a_stall_too(link: Link, pair: Pair) -> None:
    fault = link.lose_close()
    with link.stall():
        pair.client.sendall(b"last words")
        close_with_reset(pair.client)
        assert is_quiet(pair.server)
    assert receive(pair.server, 10) == b"last words"
    fault.wait_until_hit()
    assert wait_for(link, "closed")["by"] == "client"
    assert is_at_rest(pair.server)


# --- one side only -----------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["reset", "hang_up"])
def test_the_side_that_was_not_told_ends_the_connection_when_it_resets(
    link: Link, pair: Pair, fault: str
) -> None:
    getattr(link, fault)(side="client")
    assert see(pair.client).what == ("ECONNRESET" if fault == "reset" else "EOF")
    pair.client.close()
    assert link._engine.call("GET", link._ours("/connections")) != []
    close_with_reset(pair.server)
    await_no_connection(link)


def await_no_connection(link: Link) -> None:
    """Polled, as there is no event for the end of what is over for the client already."""
    deadline = time.monotonic() + WAIT_S
    while link._engine.call("GET", link._ours("/connections")):
        assert time.monotonic() < deadline
        time.sleep(0.002)


# --- before there is an upstream ---------------------------------------------------------


def test_a_client_that_resets_while_the_upstream_is_silent_is_let_go(
    link: Link, server: RawServer, dial: Dialler
) -> None:
    lacking = capabilities.probe().lacks(("silence_listener",))
    if lacking:
        pytest.skip(lacking)
    cuts.silence_listener(server._listener)
    client = dial((link.host, link.port))
    wait_for(link, "opened")
    close_with_reset(client)
    assert wait_for(link, "closed")["by"] == "client"
    await_no_connection(link)


def test_what_a_client_sent_before_it_reset_arrives_however_early_that_was(
    link: Link, server: RawServer, dial: Dialler
) -> None:
    for _ in range(20):  # some of them while they still wait in the queue of connections
        client = dial((link.host, link.port))
        client.sendall(b"hello")
        close_with_reset(client)
        upstream = server.accept()
        assert receive(upstream, 5) == b"hello"
        assert see(upstream).what == "ECONNRESET"


# Reset before the engine has looked, it has failed while it was being dialled.
@pytest.mark.filterwarnings("ignore::pytest_tcpresilience.link.UpstreamUnreachableWarning")
def test_an_upstream_that_resets_at_once_is_a_reset_and_no_mistake_of_the_engine(
    link: Link, server: RawServer, dial: Dialler, side_by_side: ThreadPoolExecutor
) -> None:
    def greet_and_reset() -> None:
        for _ in range(20):
            upstream = server.accept()
            upstream.sendall(b"hello")
            close_with_reset(upstream)

    greeting = side_by_side.submit(greet_and_reset)
    for _ in range(20):
        # As without a hop, connect() itself can fail, and the greeting is lost as well.
        with contextlib.suppress(ConnectionResetError):
            seen = see(dial((link.host, link.port)))
            assert seen.what in ("data", "ECONNRESET")
            assert seen.data in (b"", b"hello")
    greeting.result()
    assert not [event for event in link.events if event.kind == "internal_error"]


def test_a_leg_whose_connection_is_gone_already_can_be_made() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connected = socket.create_connection(listener.getsockname())
        close_with_reset(listener.accept()[0])
    with connected:
        assert see(connected).what == "ECONNRESET"
        assert upstream_leg(connected).peer == ""
