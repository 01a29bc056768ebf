"""Faults that act on those who connect, and leave the connected alone."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_tcpresilience.link import Link
from tests.contract.conftest import Connector, Dialler, LinkMaker
from tests.contract.peers import Pair, RawServer, see
from tests.contract.test_api import _listening

NAMES = ("refuse_connections", "ignore_connections")


# The link after the server, so that it ends first: a client that only knocks may be gone before
# the engine has dialled.
@pytest.fixture
def link(server: RawServer, make_link: LinkMaker) -> Link:
    return make_link(server.address)


@pytest.fixture
def pair(connect: Connector, link: Link, server: RawServer) -> Pair:
    return connect(link, server)


def knock(link: Link) -> str:
    """What becomes of an attempt to connect that is given little time."""
    try:
        socket.create_connection((link.host, link.port), timeout=0.1).close()
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError as error:
        # Without errno it is the client's own limit: nobody answered.
        return "ignored" if error.errno is None else "given up"
    return "connected"


def test_new_connections_are_refused_until_it_is_lifted_and_others_go_on(
    link: Link, pair: Pair, connect: Connector, server: RawServer
) -> None:
    with link.refuse_connections():
        assert [knock(link) for _ in range(3)] == ["refused"] * 3
        pair.exchange()
    connect(link, server).exchange()
    pair.exchange()


def test_new_connections_are_ignored_until_it_is_lifted_and_others_go_on(
    link: Link, pair: Pair, dial: Dialler, server: RawServer, side_by_side: ThreadPoolExecutor
) -> None:
    with link.ignore_connections():
        assert knock(link) == "ignored"
        waiting = side_by_side.submit(dial, (link.host, link.port))
        pair.exchange()
        assert not waiting.done()
    waiting.result().sendall(b"at last")
    assert see(server.accept()).data == b"at last"
    pair.exchange()


def test_the_port_stays_reserved_while_connections_are_refused(link: Link) -> None:
    family = socket.AF_INET6 if ":" in link.host else socket.AF_INET
    with link.refuse_connections():
        for reuse in (False, True):
            with socket.socket(family) as thief:
                thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
                with pytest.raises(OSError, match="in use"):
                    thief.bind((link.host, link.port))
    assert knock(link) == "connected"


def test_who_was_connected_before_the_refusal_is_served(
    link: Link, dial: Dialler, server: RawServer
) -> None:
    """Also one that the engine has not accepted yet: to itself it is connected."""
    clients = [dial((link.host, link.port)) for _ in range(20)]
    with link.refuse_connections():
        for client in clients:
            client.sendall(b"hello")
        assert [see(server.accept()).data for _ in clients] == [b"hello"] * 20


@pytest.mark.parametrize(
    ("name", "how"), [("refuse_connections", "refused"), ("ignore_connections", "ignored")]
)
def test_it_outlasts_disabling_and_enabling(link: Link, name: str, how: str) -> None:
    with getattr(link, name)():
        link.call("PATCH", "", {"enabled": False})
        link.call("PATCH", "", {"enabled": True})
        assert knock(link) == how
    assert knock(link) == "connected"


@pytest.mark.parametrize("name", NAMES)
def test_two_of_them_must_both_be_lifted(link: Link, name: str) -> None:
    for toxic in ("one", "two"):
        link.call("POST", "/toxics", {"name": toxic, "type": name})
    link.call("DELETE", "/toxics/one")
    assert knock(link) != "connected"
    link.call("DELETE", "/toxics/two")
    assert knock(link) == "connected"


def test_refused_and_ignored_at_once_are_both_lifted(link: Link) -> None:
    """No link asks for both. The API can."""
    for name in NAMES:
        link.call("POST", "/toxics", {"name": name, "type": name})
    assert knock(link) == "refused"
    link.call("DELETE", "/toxics/refuse_connections")
    assert knock(link) == "ignored"
    link.call("DELETE", "/toxics/ignore_connections")
    assert knock(link) == "connected"


@pytest.mark.parametrize("name", NAMES)
def test_it_has_hit_once_it_is_in_force_also_without_a_connection(link: Link, name: str) -> None:
    fault = getattr(link, name)()
    assert fault.wait_until_hit() == fault.hit_at
    assert [hit["connection"] for hit in fault.hits] == [0]
    (active,) = [event for event in link.events if event.kind == "fault_active"]
    assert active["connections"] == 0


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_scheduled(link: Link, name: str) -> None:
    fault = getattr(link, name)(when_idle=0.2)
    assert knock(link) == "connected"
    fault.wait_until_hit()
    assert knock(link) != "connected"
    # It takes hold of none of the connections that exist.
    (active,) = link.events_after(fault.hits[0].seq)[:1]
    assert (active.kind, active["connections"]) == ("fault_active", 0)


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("name", NAMES)
def test_the_end_of_a_link_leaves_no_socket(
    server: RawServer, make_link: LinkMaker, link: Link, name: str
) -> None:
    other = make_link(server.address)
    getattr(other, name)()
    before = _listening(link._engine)
    other.close()
    assert knock(other) == "refused"
    assert _listening(link._engine) == before - (name == "ignore_connections")
    family = socket.AF_INET6 if ":" in link.host else socket.AF_INET
    socket.create_server((other.host, other.port), family=family).close()
