"""What one user may know of another's sockets, and what a socket's options say."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pytest_tcpresilience import reading
from pytest_tcpresilience.kernel import owners
from pytest_tcpresilience.kernel.capabilities import Pair, loopback_pair
from pytest_tcpresilience.kernel.owners import Denied, Refusal
from pytest_tcpresilience.kernel.sockdiag import Listed
from pytest_tcpresilience.reading import Wanted
from pytest_tcpresilience.tcp.keepalive import MAX_IDLE_S, MAX_INTERVAL_S, MAX_PROBES, Keepalive

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")


@pytest.fixture
def pair(loopback: str) -> Iterator[Pair]:
    with loopback_pair(loopback) as made:
        yield made


def wanted(pair: Pair) -> Wanted:
    client, server = pair.client.getsockname()[:2], pair.client.getpeername()[:2]
    return Wanted(3, (client[0], client[1]), (server[0], server[1]))


def test_each_in_its_place(pair: Pair) -> None:
    """What is not there does not move the others."""
    nowhere = Wanted(1, ("192.0.2.1", 1), ("192.0.2.2", 2))
    found = reading.read([nowhere, wanted(pair), nowhere])
    assert [each.complete for each in found] == [False, True, False]
    assert [each.connection for each in found] == [1, 3, 1]
    assert reading.read([]) == ()


def test_a_client_that_the_server_has_not_accepted_yet(loopback: str) -> None:
    family = socket.AF_INET6 if ":" in loopback else socket.AF_INET
    with (
        socket.create_server((loopback, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
    ):
        client_end, server_end = client.getsockname()[:2], listener.getsockname()[:2]
        (found,) = reading.read_clients(server_end, [])
        assert (found.connection, found.client, found.complete) == (0, client_end, True)
        (found,) = reading.read_clients(server_end, [Wanted(4, client_end, server_end)])
        assert found.connection == 4
        # Another address with the same port is another server; an address for all is all.
        assert reading.read_clients(("192.0.2.1", server_end[1]), []) == ()
        assert len(reading.read_clients(("0.0.0.0", server_end[1]), [])) == 1
        client.shutdown(socket.SHUT_WR)
        assert reading.read_clients(server_end, []) == ()


LOOKER = """
import os, sys
from pytest_tcpresilience import reading
os.setgroups([]); os.setgid(65534); os.setuid(65534)
host, port, server, server_port = sys.argv[1:]
print(*reading.read([reading.Wanted(0, (host, int(port)), (server, int(server_port)))]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_users_socket_is_known_by_its_timer(pair: Pair) -> None:
    Keepalive(idle=100, interval=1, probes=1).apply(pair.client)
    one = wanted(pair)
    ends = [str(part) for part in (*one.client, *one.server)]
    done = subprocess.run(
        [sys.executable, "-c", LOOKER, *ends],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ", an unknown process: keepalive on, next probe in " in done.stdout
    assert "(partial: the socket belongs to another user (uid 0))" in done.stdout


def test_a_timer_that_looks_off_is_looked_at_twice(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its handler runs a timer is not armed."""
    Keepalive(idle=100, interval=1, probes=1).apply(pair.client)
    real, looks = reading.list_connections, [0]

    def off_at_first(*, remote_port: int = 0) -> list[Listed]:
        looks[0] += 1
        found = real(remote_port=remote_port)
        if looks[0] > 1:
            return found
        return [replace(each, seen=replace(each.seen, timer="off")) for each in found]

    monkeypatch.setattr(reading, "list_connections", off_at_first)
    monkeypatch.setattr(owners, "borrow", lambda _: Denied(Refusal.FORBIDDEN, "no"))
    (found,) = reading.read([wanted(pair)])
    assert (found.enabled, looks) == (True, [2])


class Fixed(socket.socket):
    """A socket whose system has defaults that no socket can be set to."""

    def getsockopt(self, *_: int) -> int:  # type: ignore[override]
        return 86400


def test_defaults_that_are_longer_than_any_setting() -> None:
    with Fixed() as sock:
        assert reading.options_of(sock) == Keepalive(
            MAX_IDLE_S, MAX_INTERVAL_S, MAX_PROBES, user_timeout=86.4
        )


def test_the_systems_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        assert Keepalive.from_socket(sock) == replace(reading.system_defaults(), enabled=False)
    monkeypatch.setattr(reading, "_SYSCTL", "/proc/sys/net/nothing")
    assert reading.system_defaults() == Keepalive.linux_defaults()
