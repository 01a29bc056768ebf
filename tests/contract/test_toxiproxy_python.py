"""toxiproxy-python drives an engine through ``engine.toxiproxy()``."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from toxiproxy import Toxiproxy
from toxiproxy.api import APIConsumer
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists

from pytest_tcpresilience.control import Engine
from tests.contract.conftest import Dialler, LinkMaker
from tests.contract.peers import RawServer, see
from tests.contract.rawhttp import RawHttp

NOWHERE = "127.0.0.1:7001"


@pytest.fixture
def server(engine: Engine) -> Iterator[Toxiproxy]:
    with engine.toxiproxy() as server:
        yield server


def address_of(proxy: object) -> tuple[str, int]:
    host, _, port = proxy.listen.rpartition(":")  # type: ignore[attr-defined]
    return host, int(port)


def test_it_runs_and_has_a_version(server: Toxiproxy) -> None:
    assert server.running() is True
    assert json.loads(server.version())["version"] == "2.12.0"


def test_a_proxy_is_created_listed_and_found(server: Toxiproxy, name: str) -> None:
    created = server.create(upstream=NOWHERE, name=name)
    assert (created.name, created.upstream, created.enabled) == (name, NOWHERE, True)
    assert server.proxies()[name].listen == created.listen
    assert server.get_proxy(name).listen == created.listen
    assert server.get_proxy("none") is None


def test_a_created_proxy_carries_a_connection(
    server: Toxiproxy, name: str, server4: RawServer, dial: Dialler
) -> None:
    proxy = server.create(upstream=f"127.0.0.1:{server4.port}", name=name)
    dial(address_of(proxy)).sendall(b"hello")
    assert see(server4.accept()).data == b"hello"


def test_a_proxy_is_switched_off_and_on(server: Toxiproxy, name: str, server4: RawServer) -> None:
    proxy = server.create(upstream=f"127.0.0.1:{server4.port}", name=name)
    proxy.disable()
    assert server.get_proxy(name).enabled is False
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address_of(proxy))
    proxy.enable()
    assert server.get_proxy(name).enabled is True
    socket.create_connection(address_of(proxy)).close()


def test_down_is_a_context(server: Toxiproxy, name: str) -> None:
    proxy = server.create(upstream=NOWHERE, name=name)
    with proxy.down():
        assert server.get_proxy(name).enabled is False
    assert server.get_proxy(name).enabled is True


def test_proxies_are_destroyed(server: Toxiproxy, name: str) -> None:
    proxy = server.create(upstream=NOWHERE, name=name)
    assert server.destroy(proxy) is True
    assert server.get_proxy(name) is None
    with pytest.raises(NotFound):
        proxy.destroy()


def test_a_name_that_is_in_use_is_refused(server: Toxiproxy, name: str) -> None:
    server.create(upstream=NOWHERE, name=name)
    with pytest.raises(ProxyExists):
        server.create(upstream=NOWHERE, name=name)


@pytest.mark.parametrize(
    ("type_", "attributes"),
    [
        ("timeout", {"timeout": 50}),
        ("latency", {"latency": 10, "jitter": 5}),
        ("reset_peer", {"timeout": 60_000}),
        ("silent_drop", {"when_idle": 60_000, "after": 0, "direction": "to_client"}),
        ("reset", {"when_idle": 0, "after": 60_000, "side": "client"}),
        ("hang_up", {"when_idle": 0, "after": 60_000, "side": "both"}),
        ("stall", {"when_idle": 0, "after": 0}),
        ("time_out", {"timeout": 60_000, "when_idle": 0}),
    ],
)
def test_a_toxic_is_added_read_and_destroyed(
    server: Toxiproxy, name: str, type_: str, attributes: dict[str, int]
) -> None:
    proxy = server.create(upstream=NOWHERE, name=name)
    assert proxy.get_toxic("t") is None
    proxy.add_toxic(name="t", type=type_, stream="upstream", toxicity=0.5, attributes=attributes)
    toxic = proxy.get_toxic("t")
    assert (toxic.name, toxic.type, toxic.stream, toxic.toxicity) == ("t", type_, "upstream", 0.5)
    assert toxic.attributes == attributes
    assert list(proxy.toxics()) == ["t"]
    assert proxy.destroy_toxic("t") is True
    assert proxy.get_toxic("t") is None
    with pytest.raises(NotFound):
        proxy.destroy_toxic("t")


def test_a_toxics_name_is_its_type_and_stream(server: Toxiproxy, name: str) -> None:
    proxy = server.create(upstream=NOWHERE, name=name)
    proxy.add_toxic(type="latency")
    assert list(proxy.toxics()) == ["latency_downstream"]


def test_an_unknown_toxic_is_refused(server: Toxiproxy, name: str) -> None:
    proxy = server.create(upstream=NOWHERE, name=name)
    with pytest.raises(InvalidToxic, match="invalid toxic type"):
        proxy.add_toxic(type="nope")


def test_reset_enables_proxies_and_removes_toxics(server: Toxiproxy, name: str) -> None:
    proxy = server.create(upstream=NOWHERE, name=name, enabled=False)
    proxy.add_toxic(type="latency")
    assert server.reset() is True
    assert server.get_proxy(name).enabled is True
    assert proxy.toxics() == {}


def test_populate_makes_what_is_missing_and_replaces_what_differs(
    server: Toxiproxy, name: str
) -> None:
    wanted = [
        {"name": f"{name}-a", "upstream": NOWHERE, "listen": "127.0.0.1:0"},
        {"name": f"{name}-b", "upstream": NOWHERE, "listen": "127.0.0.1:0"},
    ]
    first = server.populate(wanted)
    assert [proxy.name for proxy in first] == [f"{name}-a", f"{name}-b"]
    kept, changed = (
        {**each, "listen": proxy.listen} for each, proxy in zip(wanted, first, strict=True)
    )
    changed["upstream"] = "127.0.0.1:7002"
    second = server.populate([kept, changed])
    assert [proxy.name for proxy in second] == [f"{name}-b"]
    assert server.get_proxy(f"{name}-a").listen == kept["listen"]
    assert server.get_proxy(f"{name}-b").upstream == "127.0.0.1:7002"


def test_its_class_wide_address_is_put_back(engine: Engine) -> None:
    before = APIConsumer.host, APIConsumer.port
    with engine.toxiproxy():
        assert APIConsumer.port == engine.port
    assert (APIConsumer.host, APIConsumer.port) == before


def test_its_class_wide_address_is_put_back_when_the_block_raises(engine: Engine) -> None:
    before = APIConsumer.host, APIConsumer.port
    with pytest.raises(ZeroDivisionError), engine.toxiproxy():
        raise ZeroDivisionError
    assert (APIConsumer.host, APIConsumer.port) == before


def test_leftover_proxies_are_destroyed(engine: Engine, http: RawHttp, name: str) -> None:
    with engine.toxiproxy() as server:
        server.create(upstream=NOWHERE, name=name)
        server.create(upstream=NOWHERE, name=f"{name} with a space/and a slash")
    assert [each for each in http("GET", "/proxies").document if each.startswith(name)] == []


def test_proxies_and_links_of_others_are_left_alone(
    engine: Engine, http: RawHttp, make_link: LinkMaker, server4: RawServer
) -> None:
    earlier = make_link(server4.address)
    with engine.toxiproxy():
        later = make_link(server4.address)
    assert {earlier.name, later.name} <= set(http("GET", "/proxies").document)
