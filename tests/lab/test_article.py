"""A real disconnect, dissected: its scenes on real links, with seconds in place of hours.

A server probes its idle clients after two hours, and a firewall on the way forgets idle flows
long before. The server's first probe is answered with an RST that its client never sent.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_tcpresilience import Keepalive, Lab, Middlebox
from pytest_tcpresilience.fixtures import LinkFactory
from pytest_tcpresilience.lab.segment import RST
from pytest_tcpresilience.tcp.windows import idle_window
from tests.lab.peers import Ends, after, connected, ending

# Two hours, and the default of many firewalls below it.
SERVERS = Keepalive(idle=3, interval=1, probes=2)
FIREWALL_B = Middlebox(idle_timeout=2, then="reset", name="firewall B")
LATER = Middlebox(idle_timeout=5, then="reset", name="firewall B with the first cure")
SOONER = Keepalive(idle=1, interval=1, probes=2)


def test_the_first_probe_of_a_forgotten_flow_draws_a_reset_that_nobody_sent(lab: Lab) -> None:
    lab.put_behind(FIREWALL_B)
    at_client, at_server = lab.client.capture(), lab.server.capture()
    with connected(lab, server=SERVERS) as ends:
        begun = at_server.segments[-1].at
        how, at = ending(ends.server)
        assert how == "ECONNRESET"
        assert SERVERS.idle - 0.02 <= at - begun < idle_window(SERVERS).earliest
        probe, reset = after(at_server.segments, begun + 1)
        listing = at_server.listing()
        # The client's side was silent all along, and it knows nothing.
        assert after(at_client.segments, begun + 1) == []
        ends.client.sendall(b"select 1")
        assert ending(ends.client)[0] == "ECONNRESET"
        (own,) = [each for each in after(at_client.segments, begun + 1) if each.has(RST)]
    last, first = listing.splitlines()[-2:][::-1]
    assert first.endswith("[keepalive probe]")
    assert last.endswith("[forged on the way: ttl 64, its sender's have 63]")
    assert probe.outgoing
    assert (reset.source, reset.ttl, own.ttl) == (probe.destination, 64, 64)
    # The article's took 0.13 ms; this one crosses one cable and a kernel.
    assert reset.at - probe.at < 0.1


@pytest.mark.parametrize(
    ("firewall", "keepalive"),
    [(LATER, SERVERS), (FIREWALL_B, SOONER)],
    ids=["the firewall remembers for longer", "the server probes sooner"],
)
def test_each_cure_keeps_the_flow(lab: Lab, firewall: Middlebox, keepalive: Keepalive) -> None:
    lab.put_behind(firewall)
    with lab.server.capture() as capture, connected(lab, server=keepalive) as ends:
        begun = time.monotonic()
        assert ending(ends.server, 4.5)[0] == "nothing"
        idle = after(capture.segments, begun)
        ends.exchange()
        assert lab.flows == 1
    # Each probe was answered, by the client itself.
    assert [each.outgoing for each in idle] == [True, False] * (len(idle) // 2)
    assert {each.ttl for each in idle if not each.outgoing} == {63}
    assert len(idle) // 2 == (4 if keepalive is SOONER else 1)


def test_a_cable_that_was_out_while_nobody_spoke_is_never_missed(lab: Lab) -> None:
    with lab.client.capture() as capture, connected(lab) as ends:
        begun = time.monotonic()
        with lab.pull_cable("server"):
            time.sleep(0.5)
        with lab.pull_cable("client"):
            time.sleep(0.5)
        lab.router.reboot(down=0.5)
        assert after(capture.segments, begun) == []
        ends.exchange()


def test_a_crashed_client_leaves_its_server_half_open(lab: Lab) -> None:
    """Until its keepalive; or until its next segment, if the client's host is back by then."""
    with (
        make_second(lab) as other,
        connected(lab, server=SOONER) as off,
        connected(other, server=SOONER) as back,
    ):
        lab.pull_cable("client")
        off.client.close()
        begun = time.monotonic()
        other.crash("client")
        with ThreadPoolExecutor(2) as pool:
            seen = [pool.submit(ending, ends.server) for ends in (off, back)]
            # Half-open: the server's kernel holds what its client has no trace of.
            listed = lab.server.run(["ss", "-tnH", "state", "established"]).stdout
            assert len(listed.splitlines()) == 1
            (dead, dead_at), (reset, reset_at) = [each.result() for each in seen]
    assert (dead, reset) == ("ETIMEDOUT", "ECONNRESET")
    assert reset_at - begun < dead_at - begun < idle_window(SOONER).latest


def make_second(lab: Lab) -> Lab:
    return Lab(own_user=lab.in_user_namespace)


def test_a_firewall_that_was_rebooted_knows_no_flow(lab: Lab) -> None:
    lab.put_behind(Middlebox(600, "reset"))
    with connected(lab) as ends:
        assert lab.flows == 1
        lab.router.reboot(down=0.1)
        ends.server.sendall(b"x")
        assert ending(ends.server)[0] == "ECONNRESET"
        assert ending(ends.client, 0.3)[0] == "nothing"


def test_the_same_scene_on_a_link(tcp_link: LinkFactory) -> None:
    """Without privileges, in the words of the project: the middlebox forgets, once idle."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = tcp_link(listener.getsockname())
        with socket.create_connection((link.host, link.port)) as client:
            server, _ = listener.accept()
            with server:
                SERVERS.apply(server)
                ends = Ends(client, server)
                ends.exchange()
                begun = time.monotonic()
                fault = link.evict(then="reset", when_idle=FIREWALL_B.idle_timeout)
                how, at = ending(server)
                assert how == "ECONNRESET"
                assert SERVERS.idle - 0.1 <= at - begun < idle_window(SERVERS).earliest
                assert fault.hits[0]["idle_for"] >= FIREWALL_B.idle_timeout
                assert ending(client, 0.3)[0] == "nothing"
                client.sendall(b"select 1")
                assert ending(client)[0] == "ECONNRESET"
