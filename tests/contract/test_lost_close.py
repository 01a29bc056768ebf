"""A close that never arrives: ordinary to the client's kernel, unknown to the server's."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.kernel.sockdiag import SockDiag
from pytest_tcpresilience.link import Link
from pytest_tcpresilience.tcp.windows import idle_window
from tests.contract.conftest import Connector, LinkMaker
from tests.contract.peers import (
    QUICK,
    Pair,
    RawServer,
    close_with_reset,
    is_quiet,
    receive,
    see,
    unacknowledged,
)

CLOSES = {"fin": socket.socket.close, "reset": close_with_reset}


@pytest.fixture
def link(make_link: LinkMaker, server: RawServer) -> Link:
    return make_link(server.address)


@pytest.fixture
def pair(connect: Connector, link: Link, server: RawServer) -> Pair:
    return connect(link, server)


@pytest.fixture(params=CLOSES)
def close(request: pytest.FixtureRequest) -> Callable[[socket.socket], None]:
    return CLOSES[request.param]


def test_only_the_servers_keepalive_finds_the_half_open_connection(
    link: Link,
    connect: Connector,
    server: RawServer,
    side_by_side: ThreadPoolExecutor,
) -> None:
    """Both ways to close, on a connection that was there and on one that came later."""
    pairs = [connect(link, server)]
    fault = link.lose_close()
    pairs.append(connect(link, server))
    assert fault.hit_at is None
    seen = []
    for pair, close in zip(pairs, CLOSES.values(), strict=True):
        QUICK.apply(pair.server)
        seen.append(side_by_side.submit(see, pair.server))
        close(pair.client)
    window = idle_window(QUICK)
    noticed = [each.result() for each in seen]
    assert [each.what for each in noticed] == ["ETIMEDOUT"] * 2
    hit_by_number = {hit["connection"]: hit for hit in fault.hits}
    for number, each in enumerate(noticed, start=1):
        hit = hit_by_number[number]
        after = each.at - (hit.at - hit["idle_for"])
        assert window.earliest <= after <= window.latest + 1.0
    ends = {event["how"]: event["by"] for event in link.events if event.kind == "closed"}
    assert ends == dict.fromkeys(CLOSES, "client")


def test_what_was_sent_before_the_close_arrives_and_what_the_server_sends_is_unanswered(
    link: Link, pair: Pair
) -> None:
    fault = link.lose_close()
    pair.client.sendall(b"bye" * 50_000)
    pair.client.close()
    assert len(receive(pair.server, 150_000)) == 150_000
    fault.wait_until_hit()
    assert fault.hits[0]["settled"]
    pair.server.sendall(b"are you there?")
    assert is_quiet(pair.server)
    assert unacknowledged(pair.server) == 14
    assert link.connections == ()


def test_what_a_slow_server_has_not_read_yet_is_not_lost(link: Link, pair: Pair) -> None:
    """More than its buffer takes at once."""
    size = 4 * 1024 * 1024
    fault = link.lose_close()
    with pair.client:
        pair.client.sendall(bytes(size))
    link.describe_connections()
    assert len(receive(pair.server, size)) == size
    fault.wait_until_hit()
    assert is_quiet(pair.server)
    assert fault.hits[0]["settled"]


def test_to_the_clients_kernel_the_close_is_an_ordinary_one(link: Link, pair: Pair) -> None:
    local, peer = pair.client.getsockname()[:2], pair.client.getpeername()[:2]
    fault = link.lose_close()
    pair.client.close()
    fault.wait_until_hit()
    with SockDiag() as diag:
        state = diag.lookup(local, peer)
    # Both FINs were exchanged and acknowledged: TIME_WAIT, or not even that.
    assert state is None or state.state == "time-wait"


def test_a_client_that_only_shuts_its_sending_down_reads_the_end(link: Link, pair: Pair) -> None:
    link.lose_close()
    pair.client.shutdown(socket.SHUT_WR)
    assert see(pair.client).what == "EOF"
    assert is_quiet(pair.server)


def test_lifting_lets_later_closes_through_and_the_host_no_longer_knows_the_lost_one(
    link: Link, pair: Pair, connect: Connector, server: RawServer, close: Callable[..., None]
) -> None:
    later = connect(link, server)
    with link.lose_close() as fault:
        close(pair.client)
        fault.wait_until_hit()
    assert is_quiet(pair.server)
    pair.server.sendall(b"are you there?")
    assert see(pair.server).what == "ECONNRESET"
    later.exchange()
    later.client.close()
    assert see(later.server).what == "EOF"


def test_the_end_of_the_link_is_heard_by_the_server(
    link: Link, pair: Pair, close: Callable[..., None]
) -> None:
    fault = link.lose_close()
    close(pair.client)
    fault.wait_until_hit()
    link.close()
    assert see(pair.server).what == "ECONNRESET"


def test_a_server_that_closes_first_is_heard_by_the_client(link: Link, pair: Pair) -> None:
    fault = link.lose_close()
    pair.server.close()
    assert see(pair.client).what == "EOF"
    assert fault.hit_at is None
    fault.lift()


def test_a_close_that_never_came_is_an_error_of_the_test(link: Link, pair: Pair) -> None:
    link.lose_close()
    pair.exchange()
    with pytest.raises(UsageError, match="the armed lose_close never hit") as caught:
        link.close()
    assert "no client closed its connection" in caught.value.happened


def test_it_waits_for_data_that_a_toxic_holds_back(link: Link, pair: Pair) -> None:
    """The close is the last thing on the stream, and not the first."""
    link.latency(latency_ms=100, stream="upstream")
    fault = link.lose_close()
    pair.client.sendall(b"late")
    pair.client.close()
    assert receive(pair.server, 4) == b"late"
    fault.wait_until_hit()
    assert is_quiet(pair.server)
