"""Evictions: what a middlebox does that forgets a flow, seen from both ends."""

from __future__ import annotations

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_tcpresilience.link import Link
from pytest_tcpresilience.tcp.windows import idle_window
from tests.contract.conftest import Connector, LinkMaker
from tests.contract.peers import (
    QUICK,
    Pair,
    RawServer,
    is_quiet,
    receive,
    see,
    watch,
    what,
    with_keepalive,
)

THEN = ("reset", "drop", "drop_inbound", "reset_both", "fin")


@pytest.fixture
def link(server: RawServer, make_link: LinkMaker) -> Link:
    return make_link(server.address)


@pytest.fixture
def pair(connect: Connector, link: Link, server: RawServer) -> Pair:
    return connect(link, server)


def test_the_first_probe_after_an_eviction_is_answered_with_a_reset_at_both_ends(
    server: RawServer, make_link: LinkMaker, connect: Connector, side_by_side: ThreadPoolExecutor
) -> None:
    """Side by side with a flow that is dropped, which both notice by their last probe."""
    reset, dropped = make_link(server.address), make_link(server.address)
    one, other = (with_keepalive(connect(each, server)) for each in (reset, dropped))
    seen = watch(side_by_side, one, other)
    # The other first: a probe may be due at any moment from now on.
    faults = dropped.evict(then="drop"), reset.evict()
    assert what(seen) == ["ECONNRESET"] * 2 + ["ETIMEDOUT"] * 2

    assert [fault.hits[0]["settled"] for fault in faults] == [True, True]
    window = idle_window(QUICK)
    for each in seen[:2]:
        hit = faults[1].hits[0]
        # Nothing but the probe may have drawn it: no delayed acknowledgement, for one.
        last_segment_at = hit.at - hit["idle_for"]
        assert QUICK.idle - 0.02 <= each.result().at - last_segment_at < window.earliest


@pytest.mark.parametrize("end", [0, 1], ids=["client", "server"])
def test_a_write_after_an_eviction_is_answered_with_a_reset_and_the_other_end_hears_nothing(
    link: Link, pair: Pair, end: int
) -> None:
    link.evict()
    assert all(is_quiet(sock) for sock in pair.ends)
    pair.ends[end].sendall(b"x")
    assert see(pair.ends[end]).what == "ECONNRESET"
    link.describe_connections()
    assert is_quiet(pair.ends[1 - end])


def test_the_end_of_the_link_resets_an_evicted_client(link: Link, pair: Pair) -> None:
    """Or one that sends nothing would wait for ever, with no link left to blame.

    The server hears of it by then, or by its next segment.
    """
    link.evict()
    link.close()
    assert see(pair.client).what == "ECONNRESET"
    with contextlib.suppress(ConnectionResetError):
        pair.server.sendall(b"x")
    assert see(pair.server).what in ("ECONNRESET", "EOF")


def test_the_rescue_reaches_an_evicted_client_and_spares_the_listener(
    link: Link, pair: Pair, connect: Connector, server: RawServer
) -> None:
    link.evict()
    path = f"/resilience/proxies/{link.name}/rescue"
    link._engine.call("POST", path, {"refuse": False})
    assert see(pair.client).what == "ECONNRESET"
    connect(link, server)


def test_an_evicted_flow_takes_no_other_fault(
    link: Link, pair: Pair, connect: Connector, server: RawServer
) -> None:
    link.evict()
    later = connect(link, server)
    assert [hit["connection"] for hit in link.reset().hits] == [2]
    assert see(later.client).what == "ECONNRESET"
    assert is_quiet(pair.client)


def test_healing_a_dropped_flow_loses_nothing_in_either_direction(link: Link, pair: Pair) -> None:
    with link.evict(then="drop"):
        pair.client.sendall(b"to server")
        pair.server.sendall(b"to client")
        link.describe_connections()
        assert all(is_quiet(sock) for sock in pair.ends)
    assert receive(pair.server, 9) == b"to server"
    assert receive(pair.client, 9) == b"to client"
    pair.exchange()


@pytest.mark.parametrize(("then", "how"), [("reset_both", "ECONNRESET"), ("fin", "EOF")])
def test_an_eviction_that_is_told_reaches_both_ends_at_once(
    link: Link, pair: Pair, side_by_side: ThreadPoolExecutor, then: str, how: str
) -> None:
    seen = watch(side_by_side, pair)
    link.evict(then=then)
    assert what(seen) == [how] * 2
    (closed,) = [event for event in link.events if event.kind == "closed"]
    assert closed["reason"] == f"evict_{then}"


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("then", THEN)
def test_new_connections_pass_while_a_flow_is_evicted(
    link: Link, connect: Connector, server: RawServer, then: str
) -> None:
    fault = link.evict(then=then)
    connect(link, server).exchange()
    assert [hit["connection"] for hit in fault.hits] == [1]


@pytest.mark.parametrize("then", THEN)
def test_an_eviction_waits_until_the_flow_is_idle(link: Link, pair: Pair, then: str) -> None:
    fault = link.evict(then=then, when_idle=0.2)
    fault.wait_until_hit()
    assert fault.hits[0]["idle_for"] >= 0.2


def test_a_port_is_still_bound_exclusively(link: Link) -> None:
    """Sockets beside the listener are the engine's own affair."""
    with pytest.raises(OSError, match="in use"):
        socket.create_server(
            (link.host, link.port),
            family=socket.AF_INET6 if ":" in link.host else socket.AF_INET,
        )
