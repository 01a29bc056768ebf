"""What goes on, what stays quiet, and what ends: the same client, three more expectations."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pytest_tcpresilience import (
    Keepalive,
    Link,
    LinkFactory,
    RecordingServer,
    closes_within,
    stays_quiet,
    survives,
)

KEEPALIVE = Keepalive(idle=1, interval=1, probes=1)


@pytest.fixture
def link(tcp_link: LinkFactory, recording_server: RecordingServer) -> Link:
    return tcp_link(recording_server.address)


@pytest.fixture
def client(link: Link) -> Iterator[socket.socket]:
    """A client that has subscribed."""
    with socket.create_connection((link.host, link.port)) as sock:
        KEEPALIVE.apply(sock)
        sock.sendall(b"subscribe news\n")
        assert sock.recv(32) == b"subscribe news\n"
        yield sock


def test_a_short_outage_is_survived(link: Link, client: socket.socket) -> None:
    """The cable was out for less than the window: same connection, nothing lost."""
    with survives(link, within=2.0) as survival:
        with link.silent_drop():
            client.sendall(b"sent into the silence\n")
        assert client.recv(32) == b"sent into the silence\n"
    assert survival.health.descriptors == 0


def test_a_healthy_idle_link_raises_no_alarm(link: Link, client: socket.socket) -> None:
    """The read would wait for ever. It is ended after the windows, and that is no alarm."""
    with stays_quiet(link, windows=1, within=KEEPALIVE) as quiet:
        client.recv(1)
    assert quiet.seconds == 2.0


def test_teardown_is_bounded(link: Link, client: socket.socket) -> None:
    """A dead peer answers no goodbye."""
    link.silent_drop()
    with closes_within(link, 0.5) as closing:
        client.shutdown(socket.SHUT_WR)
        client.close()
    assert closing.time < 0.5
