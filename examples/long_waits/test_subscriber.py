"""A test that says how long it is going to wait, so that it begins among the first."""

import socket

import pytest

from pytest_tcpresilience import Keepalive, detects_break

KEEPALIVE = Keepalive(idle=1, interval=1, probes=1)


@pytest.mark.resilience(wait=2)  # what KEEPALIVE comes to
def test_a_subscriber_notices_a_dead_connection(tcp_link, recording_server):
    link = tcp_link(recording_server.address)
    with socket.create_connection((link.host, link.port)) as subscriber:
        KEEPALIVE.apply(subscriber)
        subscriber.sendall(b"subscribe\n")
        assert subscriber.recv(100)
        with detects_break(link, within=KEEPALIVE):
            link.silent_drop()
            subscriber.recv(1)
