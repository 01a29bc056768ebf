"""Deaf and mute sockets, and the counting of segments, on real loopback connections."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from pytest_tcpresilience.kernel import capabilities, counts, cuts, oneway
from pytest_tcpresilience.kernel.capabilities import Pair, loopback_pair

Cut = Callable[[socket.socket], None]


@pytest.fixture
def _can_lose() -> None:
    lacks = capabilities.probe().lacks(("deafen", "mute"))
    if lacks:
        pytest.skip(lacks)


pytestmark = pytest.mark.usefixtures("_can_lose")


@pytest.fixture(params=["ipv4", "ipv6", "mapped"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """On either family, and on an IPv6 listener with a client that speaks IPv4."""
    if request.param != "mapped":
        address = {"ipv4": "127.0.0.1", "ipv6": "::1"}[request.param]
        try:
            with loopback_pair(address) as made:
                yield made
        except OSError as error:
            pytest.skip(str(error))
        return
    if not socket.has_dualstack_ipv6():
        pytest.skip("no dual-stack sockets")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(
            socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        )
        client = socket.create_connection(("127.0.0.1", listener.getsockname()[1]))
        accepted, _ = listener.accept()
        for sock in (client, accepted):
            stack.enter_context(sock)
            sock.settimeout(0)
        yield Pair(listener, client, accepted)


def arrives(sender: socket.socket, receiver: socket.socket) -> bool:
    sender.send(b"?")
    try:
        return bool(receiver.recv(100))
    except BlockingIOError:
        return False


def test_a_deaf_socket_is_heard_and_hears_nothing(pair: Pair) -> None:
    oneway.deafen(pair.accepted)
    assert arrives(pair.accepted, pair.client)
    assert not arrives(pair.client, pair.accepted)


def test_a_mute_socket_hears_and_is_not_heard(pair: Pair) -> None:
    oneway.mute(pair.accepted)
    assert arrives(pair.client, pair.accepted)
    assert not arrives(pair.accepted, pair.client)


def test_a_deaf_and_mute_socket_is_silent(pair: Pair) -> None:
    oneway.deafen(pair.accepted)
    oneway.mute(pair.accepted)
    assert not arrives(pair.client, pair.accepted)
    assert not arrives(pair.accepted, pair.client)


@pytest.mark.parametrize("cut", [oneway.deafen, oneway.mute])
def test_what_was_lost_arrives_after_it(pair: Pair, cut: Cut) -> None:
    """By retransmission: the first on loopback is due after 0.2 s."""
    cut(pair.accepted)
    for sender in (pair.client, pair.accepted):
        sender.send(b"x")
    oneway.restore(pair.accepted)
    for receiver in (pair.client, pair.accepted):
        receiver.settimeout(10.0)
        assert receiver.recv(1) == b"x"


def test_restoring_what_is_whole_or_closed_does_nothing(pair: Pair) -> None:
    oneway.restore(pair.accepted)
    assert arrives(pair.client, pair.accepted)
    assert arrives(pair.accepted, pair.client)
    pair.accepted.close()
    oneway.restore(pair.accepted)


@pytest.mark.parametrize("cut", [oneway.deafen, oneway.mute])
def test_the_end_of_a_mute_socket_is_lost_and_that_of_a_deaf_one_is_not(
    pair: Pair, cut: Cut
) -> None:
    cut(pair.accepted)
    pair.accepted.close()
    if cut is oneway.deafen:
        assert pair.client.recv(1) == b""
    else:
        with pytest.raises(BlockingIOError):
            pair.client.recv(1)


@pytest.mark.parametrize("cut", [oneway.deafen, oneway.mute])
def test_a_peer_that_is_gone_is_said_so(pair: Pair, cut: Cut) -> None:
    cuts.reset(pair.client)
    with pytest.raises(OSError, match="not connected"):
        cut(pair.accepted)


def test_a_segment_without_data_is_counted(pair: Pair) -> None:
    """As of a keepalive probe: here, the client's FIN."""
    before = counts.segments_in(pair.accepted)
    pair.client.shutdown(socket.SHUT_WR)
    assert counts.segments_in(pair.accepted) == before + 1


def test_a_kernel_that_does_not_count(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "_FIELDS", struct.Struct("=B23xI92xQQ4xI800x"))
    with pytest.raises(OSError, match="has no tcpi_segs_in") as caught:
        counts.segments_in(pair.accepted)
    assert caught.value.errno == errno.ENOPROTOOPT
