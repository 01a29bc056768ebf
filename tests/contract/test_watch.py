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


@pytest.mark.usefixtures("ends_its_watch")
def test_a_calm_clock_starts_anew_when_a_fault_is_lifted(link: Link, pair: Pair) -> None:
    link.start_watch(after_hit=0.3, grace=NEVER_S, unhit=NEVER_S, clock="calm")
    fault = link.silent_drop()
    time.sleep(0.15)
    fault.lift()
    rescued_at = wait_for(link, "rescue_reset")
    (lifted_at,) = [event.at for event in link.events if event.kind == "toxic_removed"]
    assert rescued_at - lifted_at >= 0.3


@pytest.mark.usefixtures("ends_its_watch")
def test_a_calm_clock_counts_from_the_beginning_when_the_fault_is_old(
    link: Link, pair: Pair
) -> None:
    link.silent_drop()
    time.sleep(0.1)
    begun_at = time.monotonic()
    link.start_watch(after_hit=0.2, grace=NEVER_S, unhit=NEVER_S, clock="calm")
    assert wait_for(link, "rescue_reset") - begun_at >= 0.2


@pytest.mark.usefixtures("ends_its_watch", "pair")
def test_a_calm_clock_waits_for_a_fault_that_is_armed(link: Link) -> None:
    link.start_watch(after_hit=0.0, grace=NEVER_S, unhit=NEVER_S, clock="calm")
    fault = link.stall(after=0.2)
    assert wait_for(link, "rescue_reset") >= (fault.hit_at or float("inf"))


@pytest.mark.usefixtures("ends_its_watch", "pair")
def test_without_a_fault_the_beginning_counts(link: Link) -> None:
    begun_at = time.monotonic()
    link.start_watch(after_hit=0.2, grace=NEVER_S, unhit=0.0, clock="begin")
    assert wait_for(link, "rescue_reset") - begun_at >= 0.2


def test_every_socket_is_followed_where_no_fault_is_waited_for(link: Link, pair: Pair) -> None:
    link.start_watch(after_hit=NEVER_S, grace=NEVER_S, unhit=NEVER_S, clock="begin")
    wait_for(link, "client_socket")
    link.end_watch()


def test_the_witness_sees_the_application_close(link: Link, pair: Pair) -> None:
    link.start_watch(after_hit=NEVER_S, grace=NEVER_S, unhit=NEVER_S)
    link.silent_drop()
    wait_for(link, "client_socket")
    closed_at = time.monotonic()
    pair.client.close()
    assert wait_for(link, "client_closed") >= closed_at
    link.end_watch()


def test_the_witness_sees_a_fin_and_what_becomes_of_it(link: Link, pair: Pair) -> None:
    link.start_watch(after_hit=NEVER_S, grace=NEVER_S, unhit=NEVER_S)
    link.hang_up()
    wait_for(link, "client_socket")
    closed_at = time.monotonic()
    pair.client.close()
    assert wait_for(link, "client_closed") >= closed_at
    link.end_watch()
    states = [event["state"] for event in link.events if event.kind == "client_socket"]
    assert states[0] == "close-wait"


def test_the_server_holds_a_ghost(
    link: Link, pair: Pair, connect: Connector, server4: RawServer
) -> None:
    link.start_watch(after_hit=NEVER_S, grace=NEVER_S, unhit=NEVER_S)
    link.evict(then="drop")
    connect(link, server4)
    wait_for(link, "ghost")
    link.end_watch()
    assert [event["connection"] for event in link.events if event.kind == "ghost"] == [1]


def test_a_server_that_heard_of_the_break_holds_none(
    link: Link, pair: Pair, connect: Connector, server4: RawServer
) -> None:
    link.start_watch(after_hit=NEVER_S, grace=NEVER_S, unhit=NEVER_S)
    link.reset()
    connect(link, server4).exchange()
    link.end_watch()
    assert "ghost" not in {event.kind for event in link.events}


# Its server may go while the engine is still dialling for them.
@pytest.mark.filterwarnings("ignore::pytest_tcpresilience.UpstreamUnreachableWarning")
def test_who_has_connected_is_in_the_log_when_the_watch_ends(link: Link, pair: Pair) -> None:
    link.start_watch(after_hit=NEVER_S, grace=NEVER_S, unhit=NEVER_S)
    for _ in range(20):
        socket.create_connection((link.host, link.port)).close()
    link.end_watch()
    assert sum(event.kind == "opened" for event in link.events) == 21


def test_bytes_on_their_way(link: Link, pair: Pair) -> None:
    pair.exchange()
    while (seen := link.in_flight()) != [(1, pair.client.getsockname(), 0, 0)]:
        assert seen[0][2:] in ((4, 0), (0, 4), (4, 4))  # its acknowledgement is delayed
    link.silent_drop()
    pair.server.sendall(b"unheard")
    assert cuts.unacknowledged(pair.server) == 7  # on the server's side of the cut
    assert link.in_flight()[0][2:] == (0, 0)  # the engine has not read it


def test_a_scheduled_eviction_tells_its_idle_time(link: Link, pair: Pair) -> None:
    fault = link.evict(when_idle=0.1)
    fault.wait_until_hit()
    (armed,) = [event for event in link.events if event.kind == "toxic_added"]
    assert armed["when_idle"] == 0.1
    link.reset(after=60).lift()
    assert link.events[-2].get("when_idle") is None


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
