"""toxiproxy-python drives the engine, with a toxic that Toxiproxy does not have."""

import socket

import pytest


def test_a_reset_in_the_middle_of_idling(toxiproxy):
    with socket.create_server(("127.0.0.1", 0)) as server:
        upstream = "{}:{}".format(*server.getsockname())
        proxy = toxiproxy.create(name="db", upstream=upstream)
        host, _, port = proxy.listen.rpartition(":")
        with socket.create_connection((host, int(port))) as client:
            proxy.add_toxic(type="reset", attributes={"when_idle": 200})  # milliseconds
            with pytest.raises(ConnectionResetError):
                client.recv(1)
