"""One connection of a pool dies, in the middle of an answer, or before there was one."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pytest_tcpresilience import Link, LinkFactory


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def connect(link: Link) -> socket.socket:
    return socket.create_connection((link.host, link.port), timeout=5)


def test_one_of_two_connections_is_cut(tcp_link: LinkFactory, server: socket.socket) -> None:
    link = tcp_link(server.getsockname())
    with connect(link) as first, server.accept()[0] as upstream, connect(link) as second:
        link.wait_for_connection(2).reset()  # the second; the first goes on
        with pytest.raises(ConnectionResetError):
            second.recv(1)
        first.sendall(b"still here")
        assert upstream.recv(10) == b"still here"
        assert link.closed_connections[0].ending is not None
        assert link.closed_connections[0].ending.by == "fault"


def test_an_answer_is_cut_short(tcp_link: LinkFactory, server: socket.socket) -> None:
    link = tcp_link(server.getsockname())
    with connect(link) as client:
        connection = link.wait_for_connection()
        connection.hang_up(after_bytes=1000)
        with server.accept()[0] as upstream:
            upstream.sendall(bytes(5000))
        answer = b"".join(iter(lambda: client.recv(4096), b""))
        assert len(answer) == 1000
        closed = connection.wait_closed()
        assert closed.first_byte_to_client_at is not None
        assert closed.first_byte_to_server_at is None


def test_the_very_first_connection_stalls(tcp_link: LinkFactory, server: socket.socket) -> None:
    link = tcp_link(server.getsockname(), enabled=False)  # its port is known, and refuses
    with pytest.raises(ConnectionRefusedError):
        connect(link)
    stall = link.stall()
    link.enable()
    with connect(link) as client:
        client.sendall(b"hello")
        stall.wait_until_hit()
        link.wait_for("fault_hit")
        stall.lift()
        with server.accept()[0] as upstream:
            assert upstream.recv(5) == b"hello"
