"""Each fault of a link, and how a client with keepalive and a plain socket notices it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pytest_tcpresilience import Keepalive, Link, LinkFactory, Middlebox, detects_break

KEEPALIVE = Keepalive(idle=1, interval=1, probes=1)
AT_ONCE = 0.5


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def link(tcp_link: LinkFactory, listener: socket.socket) -> Link:
    """A link to a server that accepts its clients and has nothing to say to them."""
    return tcp_link(listener.getsockname())


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


def test_silent_drop_of_the_requests(link: Link, client: socket.socket) -> None:
    """One-way loss: what the client sends vanishes, and only a user timeout notices that."""
    Keepalive(idle=1, interval=1, probes=1, user_timeout=0.5).apply(client)
    with detects_break(link, within=2.0, raises=TimeoutError) as detection:
        link.silent_drop(direction="to_server")
        client.sendall(b"request")
        client.recv(1)
    assert detection.mechanism == "user_timeout"


def test_silent_drop_of_the_answers(
    link: Link, client: socket.socket, listener: socket.socket
) -> None:
    """The server gets the request and executes it: a client that tries again does it twice."""
    server, _ = listener.accept()
    client.settimeout(0.3)
    with server, detects_break(link, within=AT_ONCE, raises=TimeoutError) as detection:
        link.silent_drop(direction="to_client")
        client.sendall(b"transfer 100")
        assert server.recv(12, socket.MSG_WAITALL) == b"transfer 100"
        server.sendall(b"done")
        client.recv(4)
    assert detection.mechanism == "own_timeout"


def test_evict(link: Link, client: socket.socket) -> None:
    """A firewall forgot the flow: the first keepalive probe is answered with RST."""
    with detects_break(link, within=KEEPALIVE, raises=ConnectionResetError) as detection:
        link.evict(then="reset")
        client.recv(1)
    assert detection.mechanism == "reset"


def test_evict_that_drops_what_comes_in(
    link: Link, client: socket.socket, listener: socket.socket
) -> None:
    """A cloud's firewall forgot the flow: requests go out, answers do not come in."""
    server, _ = listener.accept()
    with server, detects_break(link, within=KEEPALIVE, raises=TimeoutError) as detection:
        link.evict(then="drop_inbound")
        client.recv(1)
    assert detection.mechanism == "keepalive"


def test_middlebox(tcp_link: LinkFactory, listener: socket.socket) -> None:
    """A firewall forgets whatever is idle for half a second, by itself."""
    link = tcp_link(listener.getsockname(), middlebox=Middlebox(0.5, then="reset"))
    with socket.create_connection((link.host, link.port)) as client:
        KEEPALIVE.apply(client)
        with detects_break(link, within=KEEPALIVE, raises=ConnectionResetError) as detection:
            client.recv(1)
    assert (detection.fault, detection.mechanism) == ("middlebox", "reset")


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


def test_stop_reading(link: Link, client: socket.socket) -> None:
    """A slow consumer: keepalive never notices, and a write timeout does."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    client.settimeout(0.3)
    with detects_break(link, within=AT_ONCE, raises=TimeoutError) as detection:
        link.stop_reading()
        while True:
            client.sendall(bytes(65536))
    assert detection.mechanism == "own_timeout"


def test_lose_close(link: Link, client: socket.socket, listener: socket.socket) -> None:
    """The client is gone, and its server does not know: the server's keepalive finds out."""
    server, _ = listener.accept()
    with server:
        KEEPALIVE.apply(server)
        fault = link.lose_close()
        client.close()
        fault.wait_until_hit()
        with pytest.raises(TimeoutError):
            server.recv(1)


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
