"""Engines under contract, and what the tests need around them.

Each test here runs once for each engine of ``ENGINES``; one process of each serves all.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import pytest

from pytest_tcpresilience.control import Carrier, Engine, EngineOwner
from pytest_tcpresilience.engine_choice import EngineChoice
from pytest_tcpresilience.engines import DIFFERENCES
from pytest_tcpresilience.errors import HarnessError
from pytest_tcpresilience.evidence.kinds import KINDS
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.link import Link
from pytest_tcpresilience.settings import Settings
from pytest_tcpresilience.tcp.addresses import join_address
from pytest_tcpresilience.upstream import Upstream
from tests.contract.differences import (
    MET,
    MET_AFTER_A_WAIT,
    NOW_AND_THEN,
    difference_of,
)
from tests.contract.peers import WAIT_S, Pair, RawServer
from tests.contract.rawhttp import RawHttp
from tests.servers import EchoServer
from tests.toxiproxy_server import real_toxiproxy


def _chain() -> Carrier:
    program = real_toxiproxy()
    return EngineOwner(EngineChoice(engine="toxiproxy", toxiproxy=program)).engine(WAIT_S)


ENGINES: dict[str, Callable[[], Carrier]] = {
    "embedded": lambda: Engine(timeout_s=WAIT_S),
    "toxiproxy": _chain,
}

_names = itertools.count(1)
# These are about our own server: its process, its HTTP, what only it has, and how it passes on
# what comes from either side; behind a hop that is Toxiproxy's to do.
OUR_OWN = frozenset(
    (
        "test_abrupt",
        "test_api",
        "test_data_path",
        "test_death",
        "test_faithful",
        "test_populate",
        "test_resets",
        "test_seed",
        "test_serve",
        "test_sharing",
        "test_toxiproxy_python",
    )
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Cases that are for one engine only, and differences that are known."""
    here = Path(__file__).parent
    dropped = []
    for item in items:
        call = getattr(item, "callspec", None)
        if call is None or here not in item.path.parents:
            continue
        if call.params.get("engine") != "toxiproxy":
            continue
        # Who speaks to our server byte for byte does so about what only it has; what it
        # has in common with the real one is a recording of the real one's answers.
        if item.path.stem in OUR_OWN or "http" in getattr(item, "fixturenames", ()):
            dropped.append(item)
            continue
        for met, mark in (
            (MET, partial(pytest.mark.xfail, strict=True)),
            (NOW_AND_THEN, partial(pytest.mark.xfail, strict=False)),
            (MET_AFTER_A_WAIT, pytest.mark.skip),
        ):
            difference = difference_of(item.name, met)
            if difference is not None:
                item.add_marker(mark(reason=DIFFERENCES[difference].toxiproxy))
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in set(dropped)]


@pytest.fixture(scope="session", params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Iterator[Carrier]:
    engine = ENGINES[request.param]()
    yield engine
    engine.stop()


@pytest.fixture
def http(engine: Carrier) -> RawHttp:
    return RawHttp(engine)


@pytest.fixture
def name() -> str:
    """A proxy's name that no other test has."""
    return f"contract-{next(_names)}"


class ProxyFactory(Protocol):
    def __call__(self, upstream: tuple[str, int], **fields: Any) -> dict[str, Any]:
        """A proxy as the API shows it. ``fields`` go into the request's body."""
        ...


@pytest.fixture
def proxy(engine: Carrier) -> Iterator[ProxyFactory]:
    """Factory of proxies, which end with the test."""
    made: list[str] = []

    def make(upstream: tuple[str, int], **fields: Any) -> dict[str, Any]:
        body = {
            "name": f"contract-{next(_names)}",
            "listen": "127.0.0.1:0",
            "upstream": join_address(*upstream),
            **fields,
        }
        made.append(body["name"])
        created: dict[str, Any] = engine.call("POST", "/proxies", body)
        return created

    yield make
    for each in made:
        with contextlib.suppress(HarnessError):  # the test has deleted it
            engine.call("DELETE", f"/proxies/{quote(each, safe='')}")


class LinkMaker(Protocol):
    def __call__(self, upstream: tuple[str, int], *, enabled: bool = True) -> Link: ...


def check_documented(events: Iterable[Event]) -> None:
    """An engine writes what the table of kinds says, and nothing else."""
    for event in events:
        kind = KINDS[event.kind]
        assert set(kind.fields) <= event.fields.keys() <= {*kind.fields, *kind.sometimes}, event
        assert not kind.own


@pytest.fixture
def make_link(engine: Carrier) -> Iterator[LinkMaker]:
    """Factory of links on the engine under contract, on the upstream's address family."""
    links: list[Link] = []

    def make(upstream: tuple[str, int], *, enabled: bool = True) -> Link:
        parsed, name = Upstream.parse(upstream), f"contract-{next(_names)}"
        link = Link(engine, name, parsed, Settings(), upstream[0], enabled=enabled)
        links.append(link)
        return link

    yield make
    for link in links:
        if not link.ended:
            check_documented(link.events)
        link.close()


@pytest.fixture
def server(loopback: str) -> Iterator[RawServer]:
    """An upstream from which the test itself accepts, on each address family."""
    server = RawServer(loopback)
    yield server
    server.close()


@pytest.fixture
def server4() -> Iterator[RawServer]:
    """The same, on IPv4 only: for tests to which the family makes no difference."""
    server = RawServer("127.0.0.1")
    yield server
    server.close()


@pytest.fixture
def echo(loopback: str) -> Iterator[EchoServer]:
    """An echoing upstream on each address family."""
    server = EchoServer(loopback)
    yield server
    server.close()


class Dialler(Protocol):
    def __call__(self, address: tuple[str, int]) -> socket.socket: ...


@pytest.fixture
def dial() -> Iterator[Dialler]:
    """Client sockets, closed after the test."""
    socks: list[socket.socket] = []

    def make(address: tuple[str, int]) -> socket.socket:
        sock = socket.create_connection(address, timeout=WAIT_S)
        socks.append(sock)
        return sock

    yield make
    for sock in socks:
        sock.close()


class Connector(Protocol):
    def __call__(self, link: Link, server: RawServer) -> Pair: ...


@pytest.fixture
def connect(dial: Dialler) -> Connector:
    """Both ends of a new connection through a link, which has carried bytes both ways."""

    def make(link: Link, server: RawServer) -> Pair:
        client = dial((link.host, link.port))
        pair = Pair(client, server.accept())
        pair.exchange()
        return pair

    return make


@pytest.fixture
def side_by_side() -> Iterator[ThreadPoolExecutor]:
    """Threads for waits that pass at the same time."""
    with ThreadPoolExecutor(max_workers=128) as pool:
        yield pool
