"""What several faults at once come to, and what is left when one of them is lifted.

The rules are those of the engine's ``strikes`` module; each row here is one case of them. The
state of a connection is read from the kernel and from its other end, and what was sent while
it was held must arrive in the end.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_tcpresilience.kernel.sockdiag import SockDiag, SocketState
from pytest_tcpresilience.link import Link
from tests.contract.conftest import Connector, LinkMaker
from tests.contract.peers import Pair, RawServer, is_quiet, receive, see

# Nobody reads what is held, so its ACK may be delayed: by 0.2 s at most (TCP_DELACK_MAX).
DELAYED_ACK_S = 0.25


@dataclass
class Probed:
    """A connection whose state is asked for by sending a byte from the client each time."""

    link: Link
    pair: Pair
    sent: bytearray = field(default_factory=bytearray)

    def check(self, state: str) -> None:
        """``silent``: not acknowledged. ``stalled``: acknowledged, and held. ``flows``."""
        with SockDiag() as diag:
            # From an earlier byte, that a silence still holds up.
            before = self._look(diag).unanswered
            self.sent += bytes([65 + len(self.sent)])
            self.pair.client.sendall(self.sent[-1:])
            if state == "flows":
                self.drain()
                return
            sent_again_at = 0.0
            while (seen := self._look(diag)).unacknowledged:
                if seen.unanswered > before:
                    sent_again_at = sent_again_at or time.monotonic()
                    if time.monotonic() > sent_again_at + DELAYED_ACK_S:
                        break  # in vain
                time.sleep(0.005)
            assert ("silent" if seen.unacknowledged else "stalled") == state
        for _ in range(2):  # the engine has had a look at all its sockets after the first one
            self.link.describe_connections()
        assert is_quiet(self.pair.server)

    def _look(self, diag: SockDiag) -> SocketState:
        name, peer = self.pair.client.getsockname()[:2], self.pair.client.getpeername()[:2]
        seen = diag.lookup(name, peer)
        assert seen is not None
        return seen

    def drain(self) -> None:
        """All that was sent arrives, in order."""
        assert receive(self.pair.server, len(self.sent)) == bytes(self.sent)
        self.sent.clear()


# Where the defaults would not do.
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "latency": {"latency": 1},
    "time_out": {"timeout": 60_000},
    "to_server": {"direction": "to_server"},
    "to_client": {"direction": "to_client"},
}
TYPES = dict.fromkeys(("to_server", "to_client"), "silent_drop")


def add(link: Link, *names: str) -> None:
    """Toxics over the API, which refuses no combination."""
    for name in names:
        body = {"name": name, "type": TYPES.get(name, name), "stream": "upstream"}
        link.call("POST", "/toxics", {**body, "attributes": ATTRIBUTES.get(name, {})})


def lift(link: Link, type_: str) -> None:
    link.call("DELETE", f"/toxics/{type_}")


@pytest.fixture
def link(make_link: LinkMaker, server4: RawServer) -> Link:
    return make_link(server4.address)


# Two that last, in both orders: what they come to, and what each leaves behind.
LASTING = [
    ("silent_drop", "stall", "silent", {"silent_drop": "silent", "stall": "stalled"}),
    ("silent_drop", "evict_drop", "silent", {"silent_drop": "silent", "evict_drop": "silent"}),
    ("evict_drop", "time_out", "silent", {"evict_drop": "silent", "time_out": "stalled"}),
    ("silent_drop", "latency", "silent", {"silent_drop": "silent", "latency": "flows"}),
    ("stall", "time_out", "stalled", {"stall": "stalled", "time_out": "stalled"}),
    ("stall", "bandwidth", "stalled", {"stall": "stalled", "bandwidth": "stalled"}),
    ("stall", "refuse_connections", "stalled", {"stall": "stalled", "refuse_connections": "flows"}),
    ("silent_drop", "refuse_connections", "silent", {"refuse_connections": "flows"}),
    ("stall", "stop_reading", "stalled", {"stall": "stalled", "stop_reading": "stalled"}),
    ("silent_drop", "stop_reading", "silent", {"silent_drop": "silent", "stop_reading": "stalled"}),
    ("stop_reading", "latency", "stalled", {"stop_reading": "stalled", "latency": "flows"}),
    ("stall", "lose_close", "stalled", {"stall": "stalled", "lose_close": "flows"}),
    ("silent_drop", "middlebox", "silent", {"silent_drop": "silent", "middlebox": "flows"}),
    ("stall", "to_server", "silent", {"stall": "stalled", "to_server": "silent"}),
]
ORDERS = [
    pytest.param(order, state, left, id="-then-".join(order))
    for one, two, state, left in LASTING
    for order in ((one, two), (two, one))
]


@pytest.mark.parametrize(("order", "state", "left"), ORDERS)
def test_the_stronger_of_two_counts_and_lifting_one_leaves_the_other(
    link: Link,
    connect: Connector,
    server4: RawServer,
    order: tuple[str, str],
    state: str,
    left: dict[str, str],
) -> None:
    probed = Probed(link, connect(link, server4))
    add(link, *order)
    probed.check(state)
    if order[1] in left:  # alone, after the other was lifted
        lift(link, order[0])
        probed.check(left[order[1]])
        lift(link, order[1])
    else:
        lift(link, order[1])
        probed.check(left.get(order[0], "silent"))
        lift(link, order[0])
    probed.drain()
    probed.pair.exchange()


# Whose bytes are lost: the client's (0), the server's (1).
LOSSES = {"silent_drop": {0, 1}, "to_server": {0}, "to_client": {1}, "evict_drop_inbound": {1}}


@pytest.mark.parametrize(
    "types", [(one, two) for one in LOSSES for two in LOSSES if len({one, two}) == 2]
)
def test_losses_add_up_and_each_is_lifted_by_itself(
    link: Link, connect: Connector, server4: RawServer, types: tuple[str, str]
) -> None:
    pair = connect(link, server4)
    add(link, *types)
    for sock in pair.ends:
        sock.sendall(b"x")
    in_force, missing = list(types), {0, 1}
    while missing:
        lost = set().union(*(LOSSES[each] for each in in_force))
        for end in missing - lost:
            assert receive(pair.ends[1 - end], 1) == b"x"
        missing &= lost
        for _ in range(2):
            link.describe_connections()
        assert all(is_quiet(pair.ends[1 - end]) for end in missing)
        if in_force:
            lift(link, in_force.pop(0))
    for each in in_force:
        lift(link, each)
    pair.exchange()


ENDINGS = {"reset": "ECONNRESET", "evict_reset_both": "ECONNRESET"} | dict.fromkeys(
    ("hang_up", "evict_fin"), "EOF"
)


HELD = ["stall", "time_out", "latency", "bandwidth", "stop_reading", "lose_close", "middlebox"]


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("name", ENDINGS)
def test_what_ends_a_connection_does_so_whatever_holds_it(
    link: Link, connect: Connector, server4: RawServer, held: str, name: str
) -> None:
    pair = connect(link, server4)
    add(link, held)
    pair.client.sendall(b"held")
    add(link, name)
    assert see(pair.client).what == ENDINGS[name]
    lift(link, held)  # nobody comes back
    assert [each.ending is None for each in link.connections] == []


SILENCES = ["silent_drop", "evict_drop", "to_server", "evict_drop_inbound"]


@pytest.mark.parametrize("silence", SILENCES)
@pytest.mark.parametrize("name", ["reset", "evict_reset_both"])
def test_a_reset_breaks_a_silence(
    link: Link, connect: Connector, server4: RawServer, silence: str, name: str
) -> None:
    """Over the API; a link's own methods refuse it, because a dead line tells nothing."""
    pair = connect(link, server4)
    add(link, silence, name)
    assert [see(sock).what for sock in pair.ends] == ["ECONNRESET"] * 2


@pytest.mark.parametrize("name", ["hang_up", "evict_fin"])
def test_a_fin_arrives_when_the_silence_is_lifted(
    link: Link, connect: Connector, server4: RawServer, name: str
) -> None:
    pair = connect(link, server4)
    add(link, "silent_drop", name)
    for _ in range(2):
        link.describe_connections()
    assert all(is_quiet(sock) for sock in pair.ends)
    lift(link, "silent_drop")
    assert [see(sock).what for sock in pair.ends] == ["EOF"] * 2


@pytest.mark.parametrize(("lost", "end"), [("to_server", 1), ("evict_drop_inbound", 0)])
def test_a_fin_is_lost_in_one_direction_and_arrives_in_the_other(
    link: Link, connect: Connector, server4: RawServer, lost: str, end: int
) -> None:
    pair = connect(link, server4)
    add(link, lost, "hang_up")
    assert see(pair.ends[1 - end]).what == "EOF"
    assert is_quiet(pair.ends[end])
    lift(link, lost)
    assert see(pair.ends[end]).what == "EOF"


@pytest.mark.parametrize("held", ["stall", "silent_drop", "stop_reading"])
def test_a_close_is_lost_whatever_held_it_up(
    link: Link, connect: Connector, server4: RawServer, held: str
) -> None:
    """And what the client had sent before it is not."""
    pair = connect(link, server4)
    add(link, "lose_close", held)
    pair.client.sendall(b"the last words")
    pair.client.close()
    assert is_quiet(pair.server)
    lift(link, held)
    assert receive(pair.server, 14) == b"the last words"
    link.wait_for("fault_hit", since=link.wait_for("toxic_removed"))
    assert link.closed_connections[0].ending is not None
    assert link.closed_connections[0].ending.by == "client"
    assert is_quiet(pair.server)


def test_an_evicted_connection_is_over_for_later_faults(
    link: Link, connect: Connector, server4: RawServer
) -> None:
    pair = connect(link, server4)
    add(link, "evict_reset", "stall", "reset", "hang_up")
    hits = [event["type"] for event in link.events if event.kind == "fault_hit"]
    assert hits == ["evict_reset"]
    assert all(is_quiet(sock) for sock in pair.ends)


DOORS = [
    (("silent_drop",), "ignored"),
    (("ignore_connections",), "ignored"),
    (("refuse_connections",), "refused"),
    (("ignore_connections", "refuse_connections"), "refused"),
    (("silent_drop", "refuse_connections"), "refused"),
    (("silent_drop", "ignore_connections"), "ignored"),
    (("stall", "evict_drop"), "accepted"),
]


def door(link: Link) -> str:
    """What becomes of a client that connects."""
    try:
        socket.create_connection((link.host, link.port), timeout=0.15).close()
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "ignored"
    return "accepted"


@pytest.mark.parametrize(
    ("types", "state"), [pytest.param(*row, id="-and-".join(row[0])) for row in DOORS]
)
def test_at_the_listener_refusal_is_stronger_than_silence(
    link: Link, types: tuple[str, ...], state: str
) -> None:
    alone = {"silent_drop": "ignored", "ignore_connections": "ignored"}
    add(link, *types)
    assert door(link) == state
    if len(types) == 2:
        lift(link, types[1])
        assert door(link) == alone.get(types[0], "accepted")
    lift(link, types[0])
    assert door(link) == "accepted"
    link.wait_for("opened")
    for connection in (*link.connections, *link.closed_connections):
        connection.wait_for("connected")  # the upstream is there until all have met it


def test_a_link_and_one_of_its_connections(
    link: Link, connect: Connector, server4: RawServer
) -> None:
    one, two = (Probed(link, connect(link, server4)) for _ in range(2))
    stall = link.connections[0].stall()
    slow = link.latency(latency_ms=1, stream="upstream")
    drop = link.connections[1].silent_drop()
    one.check("stalled")
    two.check("silent")
    slow.lift()
    stall.lift()
    one.drain()
    one.check("flows")
    two.check("silent")
    drop.lift()
    two.drain()
