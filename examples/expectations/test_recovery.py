"""After a reset the client pays once, on one new connection, within a second."""

from __future__ import annotations

import socket

from pytest_tcpresilience import LinkFactory, RecordingServer, recovers


def pay(host: str, port: int) -> bytes:
    """The client: it connects, asks, and waits for the answer."""
    with socket.create_connection((host, port)) as sock:
        sock.sendall(b"pay 17\n")
        return sock.recv(16)


def test_the_client_recovers(tcp_link: LinkFactory, recording_server: RecordingServer) -> None:
    link = tcp_link(recording_server.address)
    with socket.create_connection((link.host, link.port)) as sock:
        sock.sendall(b"hello\n")
        assert sock.recv(16) == b"hello\n"

        with recovers(link, within=1.0, server=recording_server, once=b"pay 17") as recovery:
            link.reset()
            for attempt in recovery.retrying():
                with attempt:
                    assert pay(link.host, link.port) == b"pay 17\n"
    assert recovery.attempts == 1
    assert recovery.time < 0.5
