"""The watch: the rescue in its stages, and what the witness sees of the clients' sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from pytest_tcpresilience import Keepalive, Link
from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.kernel import cuts
from pytest_tcpresilience.tcp import within
from tests.contract.conftest import Connector, LinkMaker
from tests.contract.peers import WAIT_S, Pair, RawServer, see

NEVER_S = 300.0


@pytest.fixture
def link(make_link: LinkMaker, server4: RawServer) -> Link:
    return make_link(server4.address)


@pytest.fixture
def pair(connect: Connector, link: Link, server4: RawServer) -> Pair:
    return connect(link, server4)


def wait_for(link: Link, kind: str) -> float:
    """When an event of this kind came; waits for it."""
    deadline, seen = time.monotonic() + WAIT_S, 0
    while time.monotonic() < deadline:
        for event in link.events_after(seen, wait_s=1.0):
            seen = event.seq
            if event.kind == kind:
                return event.at
    pytest.fail(f"no {kind} in {WAIT_S} s")


@pytest.fixture
def ends_its_watch(link: Link) -> Iterator[None]:
    yield
    link.end_watch()


@pytest.mark.usefixtures("ends_its_watch")
def test_the_first_stage_resets_and_lets_new_connections_pass(
    link: Link, pair: Pair, connect: Connector, server4: RawServer
) -> None:
    link.start_watch(after_hit=0.2, grace=NEVER_S, unhit=NEVER_S)
    fault = link.silent_drop()
    seen = see(pair.client)
    assert seen.what == "ECONNRESET"
    assert wait_for(link, "rescue_reset") - (fault.hit_at or 0) >= 0.2
    connect(link, server4).exchange()


@pytest.mark.usefixtures("ends_its_watch")
def test_the_second_stage_refuses(link: Link, pair: Pair) -> None:
    link.start_watch(after_hit=0.1, grace=0.1, unhit=NEVER_S)
    fault = link.silent_drop()
    refused_at = wait_for(link, "rescue_refuse")
    assert refused_at - (fault.hit_at or 0) >= 0.2
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((link.host, link.port), timeout=WAIT_S)


@pytest.mark.usefixtures("ends_its_watch")
def test_a_fault_that_never_hits_is_waited_for_in_vain(link: Link, pair: Pair) -> None:
    link.start_watch(after_hit=NEVER_S, grace=NEVER_S, unhit=0.1)
    assert see(pair.client).what == "ECONNRESET"


@pytest.mark.usefixtures("pair")
def test_a_watch_that_has_ended_rescues_nobody(link: Link) -> None:
    link.start_watch(after_hit=0.0, grace=0.0, unhit=NEVER_S)
    link.end_watch()
    link.stall().lift()
    assert len(link.connections) == 1
    assert "rescue_reset" not in {event.kind for event in link.events}


def test_one_watch_at_a_time(link: Link) -> None:
    link.start_watch(after_hit=1, grace=1, unhit=NEVER_S)
    with pytest.raises(UsageError, match="being watched already"):
        link.start_watch(after_hit=1, grace=1, unhit=NEVER_S)
    link.end_watch()


def test_the_witness_sees_each_probe_and_the_end(link: Link, pair: Pair) -> None:
    keepalive = Keepalive(idle=1, interval=1, probes=2)
    keepalive.apply(pair.client)
    link.start_watch(after_hit=NEVER_S, grace=NEVER_S, unhit=NEVER_S)
    fault = link.silent_drop()
    assert see(pair.client).what == "ETIMEDOUT"
    link.end_watch()  # has the last look
    mine = [event for event in link.events if event.get("connection") and event.seq > 0]
    counts = [event["unanswered"] for event in mine if event.kind == "client_unanswered"]
    assert counts == [1, 2]
    (gone,) = [event for event in mine if event.kind == "client_gone"]
    assert (gone["timer"], gone["unanswered"], gone["state"]) == ("keepalive", 2, "established")
    (hit,) = fault.hits
    window = within(keepalive, idle_for=hit["idle_for"])
    assert window.earliest <= gone.at - hit.at <= window.latest


def test_a_cut_leaves_no_acknowledgement_behind(link: Link, pair: Pair) -> None:
    """Else the client's data would be unacknowledged, and its keepalive would not run.

    Twelve exchanges make the engine's kernel delay its acknowledgements, by 40 ms.
    """
    for _ in range(12):
        pair.exchange()
    pair.client.send(b"!")
    fault = link.silent_drop()
    assert cuts.unacknowledged(pair.client) == 0
    (hit,) = fault.hits
    assert hit["settled"] is True
