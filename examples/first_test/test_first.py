"""A first test: does the client notice that its server has vanished?"""

import socket

from pytest_tcpresilience import Keepalive, detects_break

KEEPALIVE = Keepalive(idle=1, interval=1, probes=1)


def test_the_client_notices_a_dead_connection(tcp_link):
    with socket.create_server(("127.0.0.1", 0)) as server:  # put your own in its place
        link = tcp_link(server.getsockname())
        client = socket.create_connection((link.host, link.port))
        connection, _ = server.accept()
        with client, connection:
            KEEPALIVE.apply(client)
            connection.sendall(b"hello")
            assert client.recv(5) == b"hello"

            with detects_break(link, within=KEEPALIVE) as detection:
                link.silent_drop()  # the cable is pulled
                client.recv(1)  # the client waits for more
    assert detection.mechanism == "keepalive"
