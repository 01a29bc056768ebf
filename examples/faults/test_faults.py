"""Each fault of a link, and how a client with keepalive and a plain socket notices it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pytest_tcpresilience import Keepalive, Link, LinkFactory, detects_break

KEEPALIVE = Keepalive(idle=1, interval=1, probes=1)
AT_ONCE = 0.5


@pytest.fixture
def link(tcp_link: LinkFactory) -> Iterator[Link]:
    """A link to a server that accepts its clients and has nothing to say to them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield tcp_link(server.getsockname())


@pytest.fixture
def client(link: Link) -> Iterator[socket.socket]:
    with socket.create_connection((link.host, link.port)) as sock:
        KEEPALIVE.apply(sock)
        yield sock


def test_silent_drop(link: Link, client: socket.socket) -> None:
    """Cable pulled: keepalive notices."""
    with detects_break(link, within=KEEPALIVE, raises=TimeoutError) as detection:
        link.silent_drop()
        client.recv(1)
    assert detection.mechanism == "keepalive"


def test_evict(link: Link, client: socket.socket) -> None:
    """A firewall forgot the flow: the first keepalive probe is answered with RST."""
    with detects_break(link, within=KEEPALIVE, raises=ConnectionResetError) as detection:
        link.evict(then="reset")
        client.recv(1)
    assert detection.mechanism == "reset"


def test_refuse_connections(link: Link) -> None:
    """Service down: whoever connects hears of it at once."""
    with detects_break(link, within=AT_ONCE, raises=ConnectionRefusedError) as detection:
        link.refuse_connections()
        socket.create_connection((link.host, link.port))
    assert detection.mechanism == "refused"


def test_ignore_connections(link: Link) -> None:
    """Host gone: only a connect timeout ends the wait."""
    with detects_break(link, within=AT_ONCE, raises=TimeoutError) as detection:
        link.ignore_connections()
        socket.create_connection((link.host, link.port), timeout=0.2)
    assert detection.mechanism == "own_timeout"


def test_stall(link: Link, client: socket.socket) -> None:
    """Server frozen: keepalive never notices, a read timeout does."""
    client.settimeout(0.3)
    with detects_break(link, within=AT_ONCE, raises=TimeoutError) as detection:
        link.stall()
        client.recv(1)
    assert detection.mechanism == "own_timeout"


def test_time_out(link: Link, client: socket.socket) -> None:
    """A proxy loses patience: silence, and then the end of the stream."""
    with detects_break(link, within=0.3 + AT_ONCE) as detection:
        link.time_out(after=0.3)
        if client.recv(1) == b"":
            detection.mark()
    assert detection.mechanism == "fin"


def test_reset(link: Link, client: socket.socket) -> None:
    """Server crashed: whoever is reading hears of it at once."""
    with detects_break(link, within=AT_ONCE, raises=ConnectionResetError) as detection:
        link.reset()
        client.recv(1)
    assert detection.mechanism == "reset"


def test_reset_of_the_client_only(link: Link, client: socket.socket) -> None:
    """A load balancer resets the client, and tells the server nothing."""
    with detects_break(link, within=AT_ONCE, raises=ConnectionResetError) as detection:
        link.reset(side="client")
        client.recv(1)
    assert detection.mechanism == "reset"


def test_hang_up(link: Link, client: socket.socket) -> None:
    """Server closed in good order: a read ends at once, and raises nothing."""
    with detects_break(link, within=AT_ONCE) as detection:
        link.hang_up()
        if client.recv(1) == b"":
            detection.mark()
    assert detection.mechanism == "fin"
