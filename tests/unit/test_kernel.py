"""The kernel's recipes on real loopback sockets, and the probe that says which of them work.

On loopback a segment is delivered within the sender's system call, so looking once is
enough and nothing here waits for time to pass, but for one retransmission.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pytest_tcpresilience.kernel import capabilities, cuts, oneway, processes, sockdiag
from pytest_tcpresilience.kernel.capabilities import Capabilities, Pair, loopback_pair
from pytest_tcpresilience.kernel.sockdiag import SockDiag, SocketState

# Not the cached result: other tests change what the recipes do.
probe = capabilities.probe.__wrapped__
SYN_SENT = 2


@pytest.fixture
def pair(loopback: str) -> Iterator[Pair]:
    with loopback_pair(loopback) as made:
        yield made


@pytest.fixture
def _can_silence() -> None:
    lacks = capabilities.probe().lacks(("silence", "heal", "silence_listener"))
    if lacks:
        pytest.skip(lacks)


can_silence = pytest.mark.usefixtures("_can_silence")


def arrived(receiver: socket.socket) -> bytes | None:
    """What is there to read, or ``None`` for nothing."""
    try:
        return receiver.recv(100)
    except BlockingIOError:
        return None


def address(sock: socket.socket) -> tuple[str, int]:
    host, port = sock.getsockname()[:2]
    return host, port


def look(sock: socket.socket, peer: socket.socket) -> SocketState | None:
    with SockDiag() as diag:
        return diag.lookup(address(sock), address(peer))


@contextmanager
def dialling(listener: tuple[str, int]) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in listener[0] else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(0)
        client.connect_ex(listener)
        yield client


def tcp_state(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


# --- cuts --------------------------------------------------------------------------------


@can_silence
def test_silence_is_silence_in_both_directions(pair: Pair) -> None:
    cuts.silence(pair.accepted)
    pair.client.send(b"one")
    pair.accepted.send(b"three")
    assert arrived(pair.accepted) is None
    assert arrived(pair.client) is None
    assert cuts.unacknowledged(pair.client) == 3
    assert cuts.unacknowledged(pair.accepted) == 5
    assert tcp_state(pair.client) == 1


@can_silence
def test_silence_leaves_the_neighbour_alone(pair: Pair) -> None:
    with dialling(address(pair.listener)) as neighbour:
        cuts.silence(pair.accepted)
        accepted, _ = pair.listener.accept()
        with accepted:
            neighbour.send(b"x")
            assert accepted.recv(1) == b"x"


@can_silence
def test_silence_holds_an_end_and_a_reset(pair: Pair) -> None:
    cuts.silence(pair.accepted)
    pair.client.shutdown(socket.SHUT_WR)
    assert arrived(pair.accepted) is None
    cuts.reset(pair.accepted)
    assert arrived(pair.client) is None


@can_silence
def test_heal_loses_nothing(pair: Pair) -> None:
    cuts.silence(pair.accepted)
    pair.client.send(b"to server")
    pair.accepted.send(b"to client")
    cuts.heal(pair.accepted)
    # Both follow at the next retransmission, some 0.2 s after they were sent.
    for receiver, data in ((pair.accepted, b"to server"), (pair.client, b"to client")):
        receiver.settimeout(10)
        assert receiver.recv(100) == data


@can_silence
def test_after_heal_the_next_byte_passes_at_once(pair: Pair) -> None:
    cuts.silence(pair.accepted)
    cuts.heal(pair.accepted, address(pair.client)[0])
    pair.client.send(b"x")
    assert arrived(pair.accepted) == b"x"


@can_silence
def test_what_is_not_silent_can_be_healed(pair: Pair) -> None:
    cuts.heal(pair.accepted)
    cuts.heal_listener(pair.listener)
    pair.client.send(b"x")
    assert arrived(pair.accepted) == b"x"


def test_heal_reports_what_it_does_not_expect(pair: Pair) -> None:
    peer = address(pair.client)[0]
    pair.accepted.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        cuts.heal(pair.accepted, peer)


def test_a_socket_without_a_peer_cannot_be_silenced() -> None:
    with socket.socket() as sock, pytest.raises(OSError, match="not connected"):
        cuts.silence(sock)


@can_silence
def test_a_silent_listener(pair: Pair) -> None:
    cuts.silence_listener(pair.listener)
    with dialling(address(pair.listener)) as client:
        assert tcp_state(client) == SYN_SENT
    pair.client.send(b"x")
    assert arrived(pair.accepted) == b"x"
    cuts.heal_listener(pair.listener)
    with socket.create_connection(address(pair.listener), timeout=10):
        pass


@can_silence
def test_a_silent_listener_of_both_families() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no dual-stack sockets here")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = address(listener)[1]
        cuts.silence_listener(listener)
        for host in ("127.0.0.1", "::1"):
            with dialling((host, port)) as client:
                assert tcp_state(client) == SYN_SENT
        cuts.heal_listener(listener)
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=10).close()


@can_silence
@pytest.mark.parametrize("silent", [False, True], ids=["open", "silent"])
def test_reset(pair: Pair, silent: bool) -> None:
    """Also out of a silent cut, which would hold the RST."""
    if silent:
        cuts.silence(pair.accepted)
    cuts.reset(pair.accepted, address(pair.client)[0])
    with pytest.raises(ConnectionResetError):
        pair.client.recv(1)
    assert pair.accepted.fileno() == -1


def test_reset_of_what_is_gone_is_no_error(pair: Pair) -> None:
    cuts.reset(pair.accepted)
    cuts.reset(pair.accepted, "127.0.0.1")
    assert pair.accepted.fileno() == -1


@pytest.fixture
def _can_evict() -> None:
    lacks = capabilities.probe().lacks(("evict",))
    if lacks:
        pytest.skip(lacks)


can_evict = pytest.mark.usefixtures("_can_evict")


@can_evict
def test_an_evicted_socket_says_nothing_and_its_peers_next_segment_draws_a_reset(
    pair: Pair,
) -> None:
    cuts.evict(pair.accepted)
    pair.accepted.send(b"never")
    cuts.finish(pair.accepted)
    assert arrived(pair.client) is None
    pair.client.send(b"x")
    with pytest.raises(ConnectionResetError):
        pair.client.recv(1)


@can_evict
@pytest.mark.parametrize("end", ["accepted", "client"])
def test_an_evicted_socket_is_closed_with_a_reset_to_its_peer(pair: Pair, end: str) -> None:
    """Of the accepting side beside its listener and a neighbour, and of the dialling side."""
    pair.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    with dialling(address(pair.listener)) as client:
        neighbour, _ = pair.listener.accept()
        client.settimeout(10)
        # Bound, so that no other connection of this machine has the same port meanwhile.
        bound = (address(pair.listener)[0], 0)
        with (
            neighbour,
            socket.create_connection(address(pair.listener), source_address=bound) as dialled,
        ):
            accepted, _ = pair.listener.accept()
            evicted, peer = (accepted, dialled) if end == "accepted" else (dialled, accepted)
            with accepted:
                cuts.evict(evicted)
                cuts.reset_evicted(evicted)
                assert evicted.fileno() == -1
                peer.settimeout(10)
                with pytest.raises(ConnectionResetError):
                    peer.recv(1)
            neighbour.send(b"x")
            assert client.recv(1) == b"x"


@can_evict
def test_what_is_gone_cannot_be_evicted_and_is_closed(pair: Pair) -> None:
    cuts.reset(pair.client)
    with pytest.raises(OSError, match="not connected"):
        cuts.evict(pair.accepted)
    cuts.reset_evicted(pair.accepted)
    assert pair.accepted.fileno() == -1


def test_finish_leaves_the_other_direction_open(pair: Pair) -> None:
    cuts.finish(pair.accepted)
    assert arrived(pair.client) == b""
    pair.client.send(b"still")
    assert arrived(pair.accepted) == b"still"


def test_finish_of_what_is_gone_is_no_error(pair: Pair) -> None:
    cuts.reset(pair.client)
    cuts.finish(pair.accepted)
    with pytest.raises(ConnectionResetError):
        pair.accepted.recv(1)


def test_a_delayed_acknowledgement_is_sent_now(pair: Pair) -> None:
    pair.accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    pair.client.send(b"four")
    assert arrived(pair.accepted) == b"four"
    assert cuts.unacknowledged(pair.client) == 4
    cuts.acknowledge_now(pair.accepted)
    assert cuts.unacknowledged(pair.client) == 0


# --- sock_diag ---------------------------------------------------------------------------


def test_an_idle_socket_without_keepalive(pair: Pair) -> None:
    seen = look(pair.client, pair.accepted)
    assert seen is not None
    assert (seen.state, seen.timer, seen.unanswered) == ("established", "off", 0)
    assert (seen.unacknowledged, seen.unread) == (0, 0)
    assert seen.uid == os.getuid()
    assert seen.inode == os.fstat(pair.client.fileno()).st_ino


def test_an_idle_socket_with_keepalive(pair: Pair) -> None:
    pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 100)
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    seen = look(pair.client, pair.accepted)
    assert seen is not None
    assert seen.timer == "keepalive"
    # The timer wheel may add an eighth.
    assert 90 < seen.expires < 115


def test_bytes_that_nobody_has_read(pair: Pair) -> None:
    pair.accepted.send(b"seven77")
    seen = look(pair.client, pair.accepted)
    assert seen is not None
    assert seen.unread == 7


@can_silence
def test_bytes_that_nobody_has_acknowledged(pair: Pair) -> None:
    cuts.silence(pair.accepted)
    pair.client.send(b"three")
    seen = look(pair.client, pair.accepted)
    assert seen is not None
    assert (seen.state, seen.timer, seen.unacknowledged) == ("established", "retransmit", 5)
    assert 0 <= seen.expires <= 1


def test_each_end_has_its_own_state(pair: Pair) -> None:
    pair.accepted.shutdown(socket.SHUT_WR)
    client, accepted = look(pair.client, pair.accepted), look(pair.accepted, pair.client)
    assert client is not None
    assert accepted is not None
    assert client.state == "close-wait"
    # 1 until the FIN is acknowledged, which may be delayed.
    assert accepted.state in ("fin-wait-1", "fin-wait-2")


def test_a_socket_that_is_gone(pair: Pair) -> None:
    cuts.reset(pair.accepted)
    with SockDiag() as diag:
        assert diag.lookup(address(pair.client), address(pair.listener)) is None


def test_another_answer_is_an_error(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockdiag, "_SOCK_DIAG_BY_FAMILY", 999)
    with pytest.raises(OSError, match="Invalid argument") as caught:
        look(pair.client, pair.accepted)
    assert caught.value.errno == errno.EINVAL


def test_a_late_answer_is_not_taken_for_another(pair: Pair) -> None:
    """As after a lookup that a signal has interrupted: its answer is still in the queue."""
    with SockDiag() as diag:
        diag._send(address(pair.client), (address(pair.listener)[0], 1))
        assert diag.lookup(address(pair.client), address(pair.accepted)) is not None


def test_a_closed_netlink_socket(pair: Pair) -> None:
    with SockDiag() as diag:
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        diag.lookup(address(pair.client), address(pair.accepted))


def _message(state: int, timer: int, unanswered: int, expires_ms: int) -> bytes:
    """struct inet_diag_msg, of which 48 bytes are the socket's identity."""
    numbers = struct.pack("=IIIII", expires_ms, 11, 22, 33, 44)
    return bytes((socket.AF_INET, state, timer, unanswered)) + bytes(48) + numbers


@pytest.mark.parametrize(
    ("state", "timer", "names"),
    [
        (1, 2, ("established", "keepalive")),
        (4, 1, ("fin-wait-1", "retransmit")),
        (8, 4, ("close-wait", "persist")),
        (6, 3, ("time-wait", "time-wait")),
        (12, 0, ("new-syn-recv", "off")),
        (99, 99, ("unknown", "unknown")),
    ],
)
def test_how_an_answer_is_read(state: int, timer: int, names: tuple[str, str]) -> None:
    seen = sockdiag._parse(_message(state, timer, unanswered=3, expires_ms=1500))
    assert seen == SocketState(
        *names,
        expires=1.5,
        unanswered=3,
        unread=11,
        unacknowledged=22,
        uid=33,
        inode=44,
    )


# --- this process's own sockets ----------------------------------------------------------


def test_own_sockets_are_shut_down_by_their_peer(pair: Pair) -> None:
    before = set(os.listdir("/proc/self/fd"))
    assert processes.shut_down_own({address(pair.listener)}) == 1
    assert set(os.listdir("/proc/self/fd")) == before
    assert arrived(pair.client) == b""
    assert arrived(pair.accepted) == b""
    pair.accepted.send(b"x")  # the other end was left alone


def test_other_sockets_are_left_alone(pair: Pair) -> None:
    other = ("127.0.0.1" if "." in address(pair.client)[0] else "::1", 1)
    assert processes.shut_down_own({other}) == 0
    pair.client.send(b"x")
    assert arrived(pair.accepted) == b"x"


def test_no_descriptor_is_closed_twice(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two, another thread may have got the number for a file of its own."""
    close, failed = os.close, []

    def strict(descriptor: int) -> None:
        try:
            close(descriptor)
        except OSError:
            failed.append(descriptor)
            raise

    monkeypatch.setattr(os, "close", strict)
    # The listener has no peer, which ends the look at it with an error.
    processes.shut_down_own({address(pair.client)})
    assert failed == []


def test_tcp_retries2_is_the_kernels() -> None:
    with open("/proc/sys/net/ipv4/tcp_retries2") as file:
        assert processes.tcp_retries2() == int(file.read())


@pytest.mark.parametrize("error", [PermissionError(), ValueError()], ids=repr)
def test_tcp_retries2_where_it_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(processes, "open", refuse, raising=False)
    assert processes.tcp_retries2() == 15


# --- capabilities ------------------------------------------------------------------------


def test_the_probe_leaves_nothing_behind() -> None:
    before = set(os.listdir("/proc/self/fd"))
    probe()
    assert set(os.listdir("/proc/self/fd")) == before


def test_what_this_machine_can_do() -> None:
    """Every recipe rests on interfaces that each supported kernel has."""
    found = probe()
    assert found.missing.keys() <= {
        "silence",
        "heal",
        "silence_listener",
        "evict",
        "witness",
        "deafen",
        "mute",
    }
    assert found == probe()


@pytest.mark.parametrize("recipe", capabilities.RECIPES)
def test_a_recipe_that_the_kernel_refuses(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(pair: Pair) -> None:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    works = probe().missing
    monkeypatch.setitem(capabilities.RECIPES, recipe, refused)
    found = probe()
    assert found.missing.keys() - works.keys() <= {recipe}
    interface = capabilities.INTERFACES[recipe]
    assert found.missing[recipe] == f"{interface} (IPv4): [Errno 92] Protocol not available"


def _nothing(*_: object) -> None:
    """A recipe's call that succeeds and changes nothing."""


@pytest.mark.parametrize(
    ("recipe", "owner", "call"),
    [
        ("settle", cuts, "acknowledge_now"),
        ("silence", cuts, "silence"),
        ("heal", cuts, "heal"),
        ("silence_listener", cuts, "silence_listener"),
        ("evict", cuts, "evict"),
        ("deafen", oneway, "deafen"),
        ("mute", oneway, "mute"),
        ("reset", cuts, "reset"),
        ("finish", cuts, "finish"),
        ("witness", SockDiag, "lookup"),
    ],
)
def test_a_recipe_without_effect(
    recipe: str, owner: Any, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel, or a sandbox, that says yes and does nothing."""
    monkeypatch.setattr(owner, call, _nothing)
    found = probe()
    interface = capabilities.INTERFACES[recipe]
    assert found.missing.get(recipe) == f"{interface} (IPv4): has no effect"


def test_what_a_fault_lacks() -> None:
    found = Capabilities({"silence": "TCP_MD5SIG (IPv4): no", "heal": "TCP_MD5SIG (IPv4): no"})
    assert found.lacks(("reset",)) is None
    assert found.lacks(()) is None
    assert found.lacks(("settle", "silence")) == "silence: TCP_MD5SIG (IPv4): no"
    assert found.lacks(("silence", "heal")) == (
        "silence: TCP_MD5SIG (IPv4): no; heal: TCP_MD5SIG (IPv4): no"
    )


def _without(*families: str) -> Callable[[str], Any]:
    def made(at: str) -> Any:
        if at in families:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return loopback_pair(at)

    return made


def test_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = probe().missing
    monkeypatch.setattr(capabilities, "loopback_pair", _without("::1"))
    found = probe()
    assert found.notes == ("no IPv6 loopback (Cannot assign requested address)",)
    assert found.missing.keys() <= missing.keys()


def test_a_machine_without_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "loopback_pair", _without("::1", "127.0.0.1"))
    found = probe()
    assert found.missing == dict.fromkeys(capabilities.RECIPES, "no loopback interface is up")
    assert len(found.notes) == 2


def test_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    found = probe()
    assert found.missing.keys() == capabilities.RECIPES.keys() - {"reset", "finish"}
    assert set(found.missing.values()) == {"needs Linux, this is darwin"}


def test_the_kernels_name() -> None:
    system, release = capabilities.kernel_name().split()
    assert system == os.uname().sysname
    assert "-" not in release
    assert os.uname().release.startswith(release)
