"""``detects_break`` with faults that wait for a connection, lose one way, or close the window."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pytest_tcpresilience import (
    ExpectationFailed,
    Keepalive,
    Link,
    LinkFactory,
    Middlebox,
    UsageError,
    detects_break,
)
from tests.servers import EchoServer

pytestmark = pytest.mark.resilience(slack=0.1)
FAST = Keepalive(idle=1, interval=1, probes=1)


@pytest.fixture
def link(tcp_link: LinkFactory, echo_server: EchoServer) -> Link:
    return tcp_link(echo_server.address)


def connect(link: Link) -> socket.socket:
    sock = socket.create_connection((link.host, link.port))
    sock.sendall(b"hello")
    assert sock.recv(16) == b"hello"
    return sock


@pytest.fixture
def client(link: Link) -> Iterator[socket.socket]:
    with connect(link) as sock:
        yield sock


def test_a_window_that_stays_closed_is_noticed_by_the_user_timeout(
    link: Link, client: socket.socket
) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    Keepalive(idle=1, interval=1, probes=1, user_timeout=0.5).apply(client)
    with detects_break(link, within=3.0, raises=TimeoutError) as detection:
        link.stop_reading()
        while True:
            client.sendall(bytes(65536))
    assert (detection.fault, detection.mechanism) == ("stop_reading", "user_timeout")
    assert any("window is 0" in event.describe() for event in detection.timeline)


def test_a_window_that_stays_closed_is_not_noticed_by_keepalive(
    link: Link, client: socket.socket
) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    FAST.apply(client)
    unnoticed = pytest.raises(ExpectationFailed, match="did not notice the stop_reading")
    with unnoticed as caught, detects_break(link, within=FAST):
        link.stop_reading()
        while True:
            client.sendall(bytes(65536))
    assert "the peer's window was 0" in caught.value.happened
    assert "write timeout" in caught.value.advice


def test_the_box_of_an_earlier_block_counts_for_the_next_connection_only(
    tcp_link: LinkFactory, echo_server: EchoServer
) -> None:
    """Each flow that is forgotten is news once."""
    link = tcp_link(echo_server.address, middlebox=Middlebox(0.8, then="reset_both"))
    for number in (1, 2):
        promise = detects_break(link, within=0.4, raises=ConnectionResetError)
        with connect(link) as client, promise as detection:
            client.recv(1)
        assert (detection.fault, detection.mechanism) == ("middlebox", "reset")
        hit = [event for event in detection.timeline if event.kind == "fault_hit"][-1]
        assert hit["connection"] == number
        assert hit["idle_for"] >= 0.8
        assert hit.describe() == (
            f"connection {number}: middlebox forgot the flow (reset_both), "
            f"{hit['idle_for']:.2f} s after the last byte"
        )


def test_a_client_without_keepalive_is_told_both_cures(
    tcp_link: LinkFactory, echo_server: EchoServer
) -> None:
    link = tcp_link(echo_server.address, middlebox=Middlebox(0.3, then="drop"))
    unnoticed = pytest.raises(ExpectationFailed, match="did not notice the middlebox")
    with connect(link) as client, unnoticed as caught, detects_break(link, within=0.3):
        client.recv(1)
    assert "and SO_KEEPALIVE is off on this socket" in caught.value.happened
    assert "with TCP_KEEPIDLE below the box's idle timeout" in caught.value.advice
    assert "or raise that" in caught.value.advice


@pytest.mark.resilience(hit_timeout=0.5)
def test_a_box_that_never_forgets_in_a_block_is_the_tests_mistake(
    tcp_link: LinkFactory, echo_server: EchoServer
) -> None:
    link = tcp_link(echo_server.address, middlebox=Middlebox(60))
    mistake = pytest.raises(UsageError, match="no fault hit while the block ran")
    with connect(link) as client, mistake as caught, detects_break(link, within=0.1):
        client.recv(1)
    assert "the middlebox did not forget a flow" in caught.value.happened


@pytest.mark.parametrize("armed_before", [True, False], ids=["before-the-block", "in-the-block"])
def test_a_lost_close_is_nothing_for_a_client_to_notice(
    link: Link, client: socket.socket, armed_before: bool
) -> None:
    if armed_before:
        fault = link.lose_close()
    mistake = pytest.raises(UsageError, match="nothing in a lose_close that a client")
    with mistake as caught, detects_break(link, within=0.1):
        if not armed_before:
            fault = link.lose_close()
        client.close()
        fault.wait_until_hit()
    assert "assert on the server" in caught.value.advice
    assert fault.hits


def test_another_fault_is_noticed_while_a_close_would_be_lost(
    link: Link, client: socket.socket
) -> None:
    fault = link.lose_close()
    with detects_break(link, within=0.5, raises=ConnectionResetError) as detection:
        link.reset()
        client.recv(1)
    assert detection.fault == "reset"
    fault.lift()


def test_the_witness_sees_a_kernel_give_up_whose_reset_arrives(
    link: Link, client: socket.socket
) -> None:
    """It ends the connection before the witness looks again."""
    FAST.apply(client)
    with detects_break(link, within=FAST, raises=TimeoutError) as detection:
        link.silent_drop(direction="to_client")
        client.recv(1)
    assert detection.mechanism == "keepalive"
    assert any("silent_drop (to_client) hit" in each.describe() for each in detection.timeline)
