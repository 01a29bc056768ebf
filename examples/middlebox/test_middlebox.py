import socket

import pytest

from pytest_tcpresilience import Keepalive, Middlebox, detects_break

FIREWALL = Middlebox(idle_timeout=1.5, then="reset")


def connect(link, keepalive):
    client = socket.create_connection((link.host, link.port))
    keepalive.apply(client)
    return client


def test_a_firewall_breaks_an_idle_connection(tcp_link):
    with socket.create_server(("127.0.0.1", 0)) as server:  # put your own in its place
        link = tcp_link(server.getsockname(), middlebox=FIREWALL)
        client = connect(link, Keepalive(idle=2, interval=1, probes=3))
        with client, detects_break(link, within=2.0, raises=ConnectionResetError):
            client.recv(1)  # the first probe comes after the firewall has forgotten


@pytest.mark.parametrize(
    ("firewall", "keepalive"),
    [
        (FIREWALL, Keepalive(idle=1, interval=1, probes=3)),
        (Middlebox(idle_timeout=2.5, then="reset"), Keepalive(idle=2, interval=1, probes=3)),
    ],
    ids=["faster-keepalive", "more-patient-firewall"],
)
def test_either_cure_keeps_it_alive(tcp_link, firewall, keepalive):
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = tcp_link(server.getsockname(), middlebox=firewall)
        with connect(link, keepalive) as client:
            client.settimeout(3.0)  # longer than the firewall's patience
            with pytest.raises(TimeoutError):
                client.recv(1)
            assert not [event for event in link.events if event.kind == "fault_hit"]
