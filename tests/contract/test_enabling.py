"""Links that are closed at first: the port is known, and faults are armed before anybody
can connect."""

from __future__ import annotations

import socket
import time

import pytest

from pytest_tcpresilience import UsageError
from pytest_tcpresilience.link import Link
from tests.contract.conftest import Connector, Dialler, LinkMaker, ProxyFactory
from tests.contract.peers import RawServer, is_quiet, receive, receive_all, see
from tests.contract.rawhttp import RawHttp


@pytest.fixture
def link(make_link: LinkMaker, server: RawServer) -> Link:
    return make_link(server.address, enabled=False)


def refused(link: Link) -> bool:
    try:
        socket.create_connection((link.host, link.port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_link_that_is_not_enabled_has_its_port_and_refuses(
    link: Link, connect: Connector, server: RawServer
) -> None:
    port = link.port
    assert port
    assert refused(link)
    assert not link.enabled
    link.enable()
    assert (link.enabled, link.port) == (True, port)
    connect(link, server)
    assert [event.kind for event in link.events][:2] == ["enabled", "opened"]


def test_nobody_else_gets_its_port_meanwhile(link: Link, server: RawServer) -> None:
    family = socket.AF_INET6 if ":" in link.host else socket.AF_INET
    with pytest.raises(OSError, match="in use"):
        socket.create_server((link.host, link.port), family=family)
    link.enable()
    link.disable()
    with pytest.raises(OSError, match="in use"):
        socket.create_server((link.host, link.port), family=family)


def test_the_first_connection_ever_meets_a_stall(
    link: Link, dial: Dialler, server: RawServer
) -> None:
    fault = link.stall()
    assert fault.hit_at is None
    link.enable()
    client = dial((link.host, link.port))
    client.sendall(b"hello")
    assert fault.wait_until_hit()
    assert [hit["connection"] for hit in fault.hits] == [1]
    assert is_quiet(client)
    fault.lift()
    assert receive(server.accept(), 5) == b"hello"


def test_the_first_connection_ever_meets_a_silent_drop(link: Link) -> None:
    """Its SYN is not answered: nothing is in the accept queue from before the silence."""
    with link.silent_drop():
        link.enable()
        with pytest.raises(TimeoutError):
            socket.create_connection((link.host, link.port), timeout=0.2)
    assert link.connections == ()


def test_the_first_connection_ever_meets_a_refusal_until_it_is_lifted(
    link: Link, connect: Connector, server: RawServer
) -> None:
    with link.refuse_connections():
        link.enable()
        assert refused(link)
    connect(link, server)


def test_the_first_bytes_ever_meet_a_toxic(link: Link, dial: Dialler, server: RawServer) -> None:
    link.limit_data(limit_bytes=3, stream="upstream")
    link.enable()
    dial((link.host, link.port)).sendall(b"hello")
    assert receive_all(server.accept()) == b"hel"


def test_the_first_bytes_ever_are_counted(link: Link, dial: Dialler, server: RawServer) -> None:
    fault = link.reset(after_bytes=3)
    link.enable()
    client = dial((link.host, link.port))
    client.sendall(b"hello")
    fault.wait_until_hit()
    upstream = server.accept()
    assert receive(upstream, 3) == b"hel"
    assert [see(sock).what for sock in (client, upstream)] == ["ECONNRESET"] * 2


def test_a_schedule_begins_when_the_link_is_enabled(
    link: Link, dial: Dialler, server: RawServer
) -> None:
    fault = link.reset(after=0.3)
    time.sleep(0.35)  # its time would have passed
    assert fault.hit_at is None
    enabled_at = time.monotonic()
    link.enable()
    client = dial((link.host, link.port))
    assert see(client).what == "ECONNRESET"
    assert fault.wait_until_hit() - enabled_at >= 0.3


def test_a_fault_that_is_lifted_before_never_hits(
    link: Link, connect: Connector, server: RawServer
) -> None:
    for fault in (link.stall(), link.reset(after_bytes=1), link.silent_drop()):
        fault.lift()
    link.enable()
    connect(link, server).exchange()


@pytest.mark.parametrize("name", ["reset", "hang_up", "evict"])
def test_a_fault_of_connections_that_exist_has_none_here(link: Link, name: str) -> None:
    with pytest.raises(UsageError, match="on a link that is not enabled acts on nothing") as caught:
        getattr(link, name)()
    assert "link.wait_for_connection()" in caught.value.advice
    getattr(link, name)(when_idle=60).lift()


def test_disabling_ends_the_connections_and_refuses_new_ones(
    make_link: LinkMaker, connect: Connector, server: RawServer
) -> None:
    link = make_link(server.address)
    pair = connect(link, server)
    link.disable()
    assert [see(sock).what for sock in pair.ends] == ["EOF"] * 2
    assert refused(link)
    (closed,) = link.closed_connections
    assert closed.ending is not None
    assert (closed.ending.by, closed.ending.reason) == ("engine", "proxy_ended")
    link.disable()  # nothing more to do
    link.enable()
    link.enable()
    connect(link, server)
    kinds = [event.kind for event in link.events if event.kind.endswith("abled")]
    assert kinds == ["disabled", "enabled"]


def test_what_is_in_force_outlasts_disabling(
    make_link: LinkMaker, connect: Connector, server: RawServer
) -> None:
    link = make_link(server.address)
    with link.silent_drop():
        link.disable()
        assert refused(link)
        link.enable()
        with pytest.raises(TimeoutError):
            socket.create_connection((link.host, link.port), timeout=0.1)
    connect(link, server)


def test_a_refusal_outlasts_disabling(
    make_link: LinkMaker, connect: Connector, server: RawServer
) -> None:
    link = make_link(server.address)
    with link.refuse_connections():
        link.disable()
        link.enable()
        assert refused(link)
        link.disable()
    assert refused(link)
    link.enable()
    connect(link, server)


def test_a_link_can_end_without_having_been_enabled(link: Link) -> None:
    link.stall()
    link.close()
    family = socket.AF_INET6 if ":" in link.host else socket.AF_INET
    socket.create_server((link.host, link.port), family=family).close()


# --- over the API ------------------------------------------------------------------------


def test_a_disabled_proxy_gives_its_port_up_unless_it_is_to_keep_it(
    http: RawHttp, proxy: ProxyFactory
) -> None:
    created = proxy(("127.0.0.1", 9))
    path, port = f"/proxies/{created['name']}", int(created["listen"].rpartition(":")[2])
    shown = http("PATCH", path, {"enabled": False, "keep_port": True}).document
    assert shown == {**created, "enabled": False}  # Toxiproxy's fields, and no other
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))
    http("PATCH", path, {"enabled": True})
    http("PATCH", path, {"enabled": False})
    socket.create_server(("127.0.0.1", port)).close()
    http("PATCH", path, {"enabled": False, "keep_port": True})
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))


def test_a_port_that_is_taken_cannot_be_kept(http: RawHttp, proxy: ProxyFactory) -> None:
    created = proxy(("127.0.0.1", 9))
    path, port = f"/proxies/{created['name']}", int(created["listen"].rpartition(":")[2])
    http("PATCH", path, {"enabled": False})
    with socket.create_server(("127.0.0.1", port)):
        answer = http("PATCH", path, {"enabled": False, "keep_port": True})
    assert (answer.status, "Address already in use" in answer.error) == (400, True)


def test_keep_port_is_true_or_false(http: RawHttp, proxy: ProxyFactory) -> None:
    path = f"/proxies/{proxy(('127.0.0.1', 9))['name']}"
    answer = http("PATCH", path, {"keep_port": "yes"})
    assert answer.error == "bad request body: json: keep_port must be true or false"


def test_a_toxic_on_a_disabled_proxy_is_armed_when_it_is_enabled(
    http: RawHttp, proxy: ProxyFactory
) -> None:
    path = f"/proxies/{proxy(('127.0.0.1', 9), enabled=False)['name']}"
    shown = http("POST", f"{path}/toxics", {"name": "t", "type": "stall"}).document
    assert (shown["armed_at"], shown["struck_at"]) == (None, None)
    http("PATCH", path, {"enabled": True})
    shown = http("GET", f"{path}/toxics/t").document
    assert shown["armed_at"] <= shown["struck_at"]


def test_a_kept_port_moves_with_a_new_address(http: RawHttp, proxy: ProxyFactory) -> None:
    created = proxy(("127.0.0.1", 9), enabled=False, keep_port=True)
    path, port = f"/proxies/{created['name']}", int(created["listen"].rpartition(":")[2])
    assert port
    moved = http("PATCH", path, {"listen": "127.0.0.1:0", "keep_port": True}).document
    assert moved["listen"] != created["listen"]
    assert not moved["enabled"]
    socket.create_server(("127.0.0.1", port)).close()
