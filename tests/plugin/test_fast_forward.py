"""``fast_forward`` on real links: hours of keepalive pass in seconds, by the same rule."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from pytest_tcpresilience import (
    ExpectationFailed,
    FaultUnavailable,
    Keepalive,
    Link,
    LinkFactory,
    UsageError,
    detects_break,
    fast_forward,
    keepalive_of,
)
from pytest_tcpresilience.expectations.fast_forward import _set
from pytest_tcpresilience.kernel import owners
from pytest_tcpresilience.kernel.owners import Denied, Refusal
from tests.servers import EchoServer

DEFAULTS = Keepalive.linux_defaults()


@pytest.fixture
def link(tcp_link: LinkFactory, echo_server: EchoServer) -> Link:
    return tcp_link(echo_server.address)


@pytest.fixture
def client(link: Link) -> Iterator[socket.socket]:
    """A connected client that has had one answer."""
    with socket.create_connection((link.host, link.port)) as sock:
        sock.sendall(b"hello")
        assert sock.recv(16) == b"hello"
        yield sock


def test_two_hours_pass_in_four_seconds(link: Link, client: socket.socket) -> None:
    DEFAULTS.apply(client)
    begun = time.monotonic()
    with fast_forward(link) as forward, detects_break(link, within=forward) as detection:
        link.silent_drop()
        client.recv(1)
    assert time.monotonic() - begun < 4.0
    assert detection.mechanism == "keepalive"
    assert detection.after < 4.0
    assert detection.nominal == forward.nominal == 7200 + 9 * 75


def test_real_time_is_its_own_nominal(link: Link, client: socket.socket) -> None:
    Keepalive(idle=1, interval=1, probes=1).apply(client)
    with detects_break(link, within=Keepalive.of(link)) as detection:
        link.silent_drop()
        client.recv(1)
    assert detection.nominal == detection.after > 1.0


def test_the_fault_may_come_first(link: Link, client: socket.socket) -> None:
    """A connection that has been idle for longer than the fast idle time probes at once."""
    Keepalive(idle=3600, interval=60, probes=4, user_timeout=3720.0).apply(client)
    link.silent_drop(when_idle=1.1).wait_until_hit(10.0)
    with detects_break(link, within=60.0) as detection:
        fast_forward(link)
        begun = time.monotonic()
        client.recv(1)
    assert 0.9 < time.monotonic() - begun < 2.5
    assert detection.mechanism == "keepalive"


def test_the_user_timeout_goes_on_deciding(link: Link, client: socket.socket) -> None:
    Keepalive(idle=600, interval=600, probes=9, user_timeout=30.0).apply(client)
    with fast_forward(link) as forward, detects_break(link, within=forward) as detection:
        link.silent_drop()
        client.sendall(b"into the void")
        client.recv(1)
    assert detection.mechanism == "user_timeout"
    assert detection.after < 4.0
    assert detection.nominal == pytest.approx(30.42)


def test_what_is_noticed_otherwise_takes_as_long_in_production(
    link: Link, client: socket.socket
) -> None:
    DEFAULTS.apply(client)
    with fast_forward(link) as forward, detects_break(link, within=forward) as detection:
        link.reset()
        client.recv(1)
    assert detection.mechanism == "reset"
    assert detection.nominal == detection.after < 1.0


def test_afterwards_the_settings_are_the_clients_own(link: Link, client: socket.socket) -> None:
    own = Keepalive(idle=7200, interval=75, probes=9, user_timeout=7800.0)
    own.apply(client)
    with fast_forward(link, probes="same") as forward:
        # Probe ticks at 1, 2, …; the user timeout is looked at at each.
        assert Keepalive.of(link) == Keepalive(1, 1, 9, user_timeout=8.5)
        assert forward.window.nominal == 9.0
        assert forward.nominal == 7800.0
        assert "1 connection(s), nominal 7800 s" in repr(forward)
    assert Keepalive.from_socket(client) == own
    Keepalive(idle=5, interval=5, probes=5).apply(client)
    forward.restore()  # once is enough
    assert Keepalive.from_socket(client).idle == 5


def test_a_client_that_has_gone_is_not_missed(link: Link, client: socket.socket) -> None:
    DEFAULTS.apply(client)
    with fast_forward(link):
        client.close()


def test_the_client_closes_for_good(link: Link, client: socket.socket) -> None:
    """No descriptor of ours holds the connection open."""
    DEFAULTS.apply(client)
    with fast_forward(link):
        client.close()
        deadline = time.monotonic() + 5.0
        while link.connections:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_client_that_would_never_notice(link: Link, client: socket.socket) -> None:
    with pytest.raises(ExpectationFailed, match="nothing to fast-forward: the client would never"):
        fast_forward(link)


def test_nobody_is_connected(link: Link) -> None:
    with pytest.raises(UsageError, match="fast_forward: no client is connected"):
        fast_forward(link)


@pytest.mark.parametrize("probes", [0, 128, True, 2.0, "all"])
def test_another_number_of_probes(link: Link, client: socket.socket, probes: object) -> None:
    with pytest.raises(UsageError, match="fast_forward: probes="):
        fast_forward(link, probes=probes)  # type: ignore[arg-type]


def test_a_socket_out_of_reach(
    link: Link, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    DEFAULTS.apply(client)
    monkeypatch.setattr(owners, "borrow", lambda _: Denied(Refusal.FORBIDDEN, "by a sandbox"))
    with pytest.raises(FaultUnavailable, match="cannot be fast-forwarded") as caught:
        fast_forward(link)
    assert "by a sandbox" in caught.value.happened


def test_out_of_reach_in_the_middle(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two clients the second cannot be changed: the first gets its own settings back."""
    with (
        socket.create_connection((link.host, link.port)) as one,
        socket.create_connection((link.host, link.port)) as two,
    ):
        for sock in (one, two):
            DEFAULTS.apply(sock)
            sock.sendall(b"hello")
            assert sock.recv(16) == b"hello"
        real, asked = owners.borrow, [0]

        def fails_at_the_fourth(owner: owners.Owner) -> socket.socket | Denied:
            asked[0] += 1  # two to read, two to change
            return Denied(Refusal.GONE, "ended") if asked[0] == 4 else real(owner)

        monkeypatch.setattr(owners, "borrow", fails_at_the_fourth)
        with pytest.raises(FaultUnavailable, match="ended"):
            fast_forward(link)
        assert Keepalive.from_socket(one) == Keepalive.from_socket(two) == DEFAULTS


CHILD = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
sock.sendall(b"hello"); sock.recv(16)
print("connected", flush=True)
try:
    sock.recv(1)
except OSError as error:
    print(error.errno, flush=True)
"""


def test_a_child_process(link: Link) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, link.host, str(link.port)],
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "connected\n"
        (reading,) = keepalive_of(link)
        if not reading.complete:
            pytest.skip(reading.partial)
        assert reading.pid == child.pid
        with fast_forward(link) as forward, detects_break(link, within=forward) as detection:
            link.silent_drop()
            assert child.stdout.readline() == "110\n"  # ETIMEDOUT
            detection.mark()
    assert detection.mechanism == "keepalive"
    assert detection.nominal == 7875.0


class Recorder:
    """A socket that only notes what is set on it."""

    def __init__(self) -> None:
        self.options: list[int] = []

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options.append(option)


def test_the_idle_time_is_set_last() -> None:
    """It arms the running timer anew, which must then find the rest in its place."""
    sock = Recorder()
    _set(sock, DEFAULTS)  # type: ignore[arg-type]
    assert sock.options[-1] == socket.TCP_KEEPIDLE
    assert len(sock.options) == 4
