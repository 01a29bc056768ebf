"""A middlebox on a link: each idle flow is forgotten by itself, and probes keep it alive.

The break, each way of it, and both cures pass in the same seconds. IPv4 stands for both
families, whose evictions are tested by themselves.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.link import Link
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.middleboxes import EVICTION_MODES, Middlebox
from tests.contract.conftest import Connector, LinkMaker
from tests.contract.peers import WAIT_S, Pair, RawServer, is_quiet, receive, see

FORGETS_S = 1.5
# Its first probe comes after the box has forgotten the flow, or long before.
SLOW = Keepalive(idle=3, interval=1, probes=1)
FAST = Keepalive(idle=1, interval=1, probes=1)
# How a client's read ends, and the first moment when it can, from its last segment on.
ENDS = {
    "reset": ("ECONNRESET", SLOW.idle),
    "drop": ("ETIMEDOUT", SLOW.idle + SLOW.interval),
    "drop_inbound": ("ETIMEDOUT", SLOW.idle + SLOW.interval),
    "reset_both": ("ECONNRESET", FORGETS_S),
    "fin": ("EOF", FORGETS_S),
}
# Until after the last of them, and three times the box's patience.
WATCHED_S = 5.0


@pytest.fixture
def link4(make_link: LinkMaker, server4: RawServer) -> Link:
    return make_link(server4.address)


@pytest.fixture
def pair4(connect: Connector, link4: Link, server4: RawServer) -> Pair:
    return connect(link4, server4)


def test_a_flow_breaks_in_every_way_and_either_cure_prevents_it(
    make_link: LinkMaker, connect: Connector, server4: RawServer, side_by_side: ThreadPoolExecutor
) -> None:
    def behind(box: Middlebox, keepalive: Keepalive) -> tuple[Link, Pair]:
        link = make_link(server4.address)
        link.put_behind(box)
        pair = connect(link, server4)
        keepalive.apply(pair.client)
        return link, pair

    assert ENDS.keys() == set(EVICTION_MODES)
    broken = {then: behind(Middlebox(FORGETS_S, then), SLOW) for then in ENDS}
    cured = {
        "probes come in time": behind(Middlebox(FORGETS_S, "reset"), FAST),
        "the box is patient": behind(Middlebox(SLOW.idle + 1.5, "reset"), SLOW),
    }
    breaking = {then: side_by_side.submit(see, pair.client) for then, (_, pair) in broken.items()}
    living = [side_by_side.submit(see, pair.client, WATCHED_S) for _, pair in cured.values()]
    for then, (what, earliest_s) in ENDS.items():
        seen = breaking[then].result()
        (hit,) = [event for event in broken[then][0].events if event.kind == "fault_hit"]
        assert (seen.what, hit["type"], hit["then"]) == (what, "middlebox", then)
        # Never sooner than the box's patience, and not before the client's own probe where
        # nobody tells it.
        assert hit["idle_for"] >= FORGETS_S
        assert seen.at - (hit.at - hit["idle_for"]) >= earliest_s - 0.02
    assert [each.result().what for each in living] == ["nothing"] * 2
    for link, pair in cured.values():
        assert [event.kind for event in link.events if event.kind == "fault_hit"] == []
        pair.exchange()


def test_a_request_after_the_box_has_forgotten_is_answered_with_a_reset_at_both_ends(
    link4: Link, pair4: Pair
) -> None:
    """The article's firewall: the first segment of either side, whoever sends it."""
    box = link4.put_behind(Middlebox(0.2, then="reset"))
    box.wait_until_hit()
    assert all(is_quiet(sock) for sock in pair4.ends)
    pair4.server.sendall(b"x")
    assert see(pair4.server).what == "ECONNRESET"
    assert is_quiet(pair4.client)
    pair4.client.sendall(b"x")
    assert see(pair4.client).what == "ECONNRESET"


def test_each_flow_is_forgotten_by_itself_and_new_ones_pass(
    link4: Link, pair4: Pair, connect: Connector, server4: RawServer
) -> None:
    """A flow that talks lives on beside one that is idle, also one that only the server uses."""
    box = link4.put_behind(Middlebox(0.4, then="fin"))
    talking = connect(link4, server4)
    while not box.hits:
        talking.server.sendall(b"x")
        assert receive(talking.client, 1) == b"x"
    assert [hit["connection"] for hit in box.hits] == [1]
    assert see(pair4.client).what == "EOF"
    talking.exchange()
    connect(link4, server4).exchange()


def test_a_proxy_answers_probes_by_itself_and_counts_bytes(
    make_link: LinkMaker, connect: Connector, server4: RawServer, side_by_side: ThreadPoolExecutor
) -> None:
    """Beside a firewall of the same patience, for which the same probes count."""
    seen = []
    for proxy in (True, False):
        link = make_link(server4.address)
        link.put_behind(Middlebox(FORGETS_S, then="fin", proxy=proxy))
        pair = connect(link, server4)
        FAST.apply(pair.client)
        seen.append(side_by_side.submit(see, pair.client, FORGETS_S * 2))
    assert [each.result().what for each in seen] == ["EOF", "nothing"]


def test_what_is_forgotten_is_told_once_for_each_connection(
    link4: Link, connect: Connector, server4: RawServer
) -> None:
    box = link4.put_behind(Middlebox(0.2, then="drop"))
    for number in (1, 2):
        connect(link4, server4)
        give_up_at = time.monotonic() + WAIT_S
        while len(box.hits) < number and time.monotonic() < give_up_at:
            link4.events_after(link4.last_seq(), wait_s=1.0)
        assert [hit["connection"] for hit in box.hits] == [1, 2][:number]


@pytest.mark.parametrize("then", ["drop", "drop_inbound"])
def test_a_box_that_is_taken_away_lets_through_what_it_had_dropped(
    link4: Link, pair4: Pair, then: str
) -> None:
    with link4.put_behind(Middlebox(0.2, then=then)) as box:
        box.wait_until_hit()
        pair4.server.sendall(b"answer")
        link4.describe_connections()
        assert is_quiet(pair4.client)
    assert receive(pair4.client, 6) == b"answer"
    pair4.exchange()
    assert len(box.hits) == 1


def test_a_box_that_is_taken_away_forgets_nothing_any_more(
    link4: Link, connect: Connector, server4: RawServer
) -> None:
    """Ordered by another box of the same patience, that was put there later."""
    other = link4
    with link4.put_behind(Middlebox(0.2, then="fin")):
        pair = connect(link4, server4)
    box = other.put_behind(Middlebox(0.25, then="drop"))
    box.wait_until_hit()
    assert {event["type"] for event in link4.events if event.kind == "fault_hit"} == {"middlebox"}
    assert [event["then"] for event in link4.events if event.kind == "fault_hit"] == ["drop"]
    assert is_quiet(pair.client)


def test_on_a_silent_link_a_flow_is_forgotten_when_the_link_is_whole_again(
    link4: Link, pair4: Pair
) -> None:
    """Cable out, and the box forgets meanwhile: what comes then is answered with RST."""
    with link4.silent_drop() as drop:
        box = link4.put_behind(Middlebox(0.2, then="reset"))
        time.sleep(0.3)  # the patience of the box is the subject
        assert box.hits == ()
        assert all(is_quiet(sock) for sock in pair4.ends)
    assert drop.hits
    box.wait_until_hit()
    pair4.client.sendall(b"x")
    assert see(pair4.client).what == "ECONNRESET"


def test_any_client_of_the_api_can_have_one(link4: Link, pair4: Pair) -> None:
    attributes = {"idle_timeout": 200, "then": "fin", "counts": "segments"}
    created = link4.call("POST", "/toxics", {"type": "middlebox", "attributes": attributes})
    assert created["attributes"] == attributes
    assert see(pair4.client).what == "EOF"
    (toxic,) = link4.call("GET", "/toxics")
    assert toxic["hits"] == 1


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"idle_timeout": 0}, "attribute idle_timeout must be at least 1"),
        ({"then": "rst"}, "attribute then must be one of drop, reset, drop_inbound"),
    ],
)
def test_what_is_no_box_is_refused(link4: Link, attributes: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        link4.call("POST", "/toxics", {"type": "middlebox", "attributes": attributes})


def test_a_box_that_never_forgot_is_no_error(link4: Link, pair4: Pair) -> None:
    link4.put_behind(Middlebox(60))
    pair4.exchange()
    link4.close()


def test_one_box_is_enough(link4: Link) -> None:
    link4.put_behind(Middlebox(60))
    with pytest.raises(UsageError, match="middlebox contradicts the middlebox"):
        link4.put_behind(Middlebox(60))


def test_the_end_of_the_link_ends_forgotten_flows(link4: Link, pair4: Pair) -> None:
    link4.put_behind(Middlebox(0.1, then="reset")).wait_until_hit()
    link4.close()
    assert see(pair4.client).what == "ECONNRESET"
    with contextlib.suppress(ConnectionResetError):
        pair4.server.sendall(b"x")
    assert see(pair4.server).what in ("ECONNRESET", "EOF")
