"""A firewall that forgets, between two real hosts: the client sees an RST that nobody sent."""

import pytest

from pytest_tcpresilience import Keepalive, Middlebox


def test_the_first_probe_of_a_forgotten_flow_is_answered_with_rst(tcp_lab):
    tcp_lab.put_behind(Middlebox.AWS_NLB.scaled(1))  # forgets after 1 s of silence
    with tcp_lab.server.listen() as listener, tcp_lab.client.capture() as capture:
        client = tcp_lab.client.connect(listener.getsockname())
        server, _ = listener.accept()
        with client, server:
            Keepalive(idle=2, interval=1, probes=3).apply(client)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    print(capture)
    probe, reset = str(capture).splitlines()[-2:]
    assert probe.endswith("[keepalive probe]")
    assert "forged on the way" in reset
