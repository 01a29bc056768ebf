"""One connection of a pool is cut off; the other one goes on."""

import socket

import pytest


def test_one_of_two_connections_is_reset_in_the_middle_of_an_answer(tcp_link):
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = tcp_link(server.getsockname())
        with (
            socket.create_connection((link.host, link.port)) as first,
            socket.create_connection((link.host, link.port)) as second,
        ):
            struck = link.wait_for_connection(2)  # the second, once there are two
            struck.reset(after_bytes=5)
            for _ in range(2):
                with server.accept()[0] as upstream:
                    upstream.sendall(b"an answer")
            assert second.recv(5) == b"an an"
            with pytest.raises(ConnectionResetError):
                second.recv(1)
            assert first.recv(9) == b"an answer"
            assert struck.wait_closed().ending.by == "fault"
