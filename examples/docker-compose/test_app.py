"""The application's client notices that its database is gone, with Toxiproxy in between."""

import os
import socket

import pytest

from pytest_tcpresilience import Keepalive, Link, detects_break

KEEPALIVE = Keepalive(idle=1, interval=1, probes=2)


class App:
    """A client of Redis, as small as can be."""

    def __init__(self, host: str, port: int) -> None:
        self.sock = socket.create_connection((host, port))
        KEEPALIVE.apply(self.sock)

    def ping(self) -> bytes:
        self.sock.sendall(b"PING\r\n")
        return self.sock.recv(64)

    def wait_for_message(self) -> bytes:
        return self.sock.recv(64)


@pytest.fixture
def link(tcp_link) -> Link:
    return tcp_link(os.environ.get("UPSTREAM", "127.0.0.1:6379"))


def test_a_slow_database_is_waited_for(link):
    app = App(link.host, link.port)
    with link.latency(latency_ms=200):
        assert app.ping() == b"+PONG\r\n"
    app.sock.close()


def test_a_dead_connection_is_noticed(link):
    app = App(link.host, link.port)
    assert app.ping() == b"+PONG\r\n"
    with detects_break(link, within=KEEPALIVE) as detection:
        link.silent_drop()
        app.wait_for_message()
    assert detection.mechanism == "keepalive"
    app.sock.close()
