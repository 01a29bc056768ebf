"""What a client's settings are worth: judged without waiting, and two hours in seconds."""

import socket

import pytest

from pytest_tcpresilience import (
    Keepalive,
    Middlebox,
    assert_keepalive,
    detects_break,
    fast_forward,
    keepalive_of,
)


@pytest.fixture
def link(tcp_link):
    with socket.create_server(("127.0.0.1", 0)) as server:  # put your own in its place
        yield tcp_link(server.getsockname())


def test_the_settings_are_good_enough(link):
    with socket.create_connection((link.host, link.port)) as client:
        Keepalive(idle=10, interval=10, probes=3, user_timeout=40.0).apply(client)

        (reading,) = keepalive_of(link)  # whoever made the socket, in whatever language
        assert reading.idle == 10
        assert_keepalive(link, within=60, writes_within=60, behind=Middlebox.AWS_NLB)


def test_what_the_client_does_after_two_hours(link):
    with socket.create_connection((link.host, link.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # with Linux's defaults

        with fast_forward(link) as forward, detects_break(link, within=forward) as detection:
            link.silent_drop()
            client.recv(1)
    assert detection.after < 4.0
    assert detection.nominal == 7875.0  # 2 h 11 min 15 s
