"""The recording server: what it remembers, answers, and sends."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pytest_tcpresilience import RecordingServer, UsageError


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


def connect(server: RecordingServer) -> socket.socket:
    sock = socket.create_connection(server.address)
    sock.settimeout(5)
    return sock


def ask(sock: socket.socket, line: bytes) -> bytes:
    sock.sendall(line + b"\n")
    return line_from(sock)


def line_from(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        data += sock.recv(1)
    return data[:-1]


def test_each_request_is_recorded_with_its_time_and_connection(server: RecordingServer) -> None:
    begun = time.monotonic()
    with connect(server) as one, connect(server) as other:
        assert ask(one, b"a") == b"a"
        assert ask(other, b"b") == b"b"
        assert ask(one, b"a") == b"a"
    seen = server.requests
    assert [(each.connection, each.data) for each in seen] == [(1, b"a"), (2, b"b"), (1, b"a")]
    times = [each.at for each in seen]
    assert begun <= times[0] <= times[1] <= times[2] <= time.monotonic()
    assert (server.count(b"a"), server.count(b"c"), server.connections) == (2, 0, 2)
    assert repr(server).endswith(": 3 requests>")


def test_requests_in_pieces_and_in_heaps(server: RecordingServer) -> None:
    with connect(server) as sock:
        sock.sendall(b"one\ntwo\nth")
        server.wait_for(2)
        sock.sendall(b"ree\n")
        assert [each.data for each in server.wait_for(3)] == [b"one", b"two", b"three"]
        assert [line_from(sock) for _ in range(3)] == [b"one", b"two", b"three"]


def test_a_request_without_its_end_is_none(server: RecordingServer) -> None:
    with connect(server) as sock:
        sock.sendall(b"incomplete")
    with pytest.raises(UsageError, match=r"0 of 1 requests came in 0\.1 s"):
        server.wait_for(1, timeout=0.1)


def test_another_protocol() -> None:
    """Requests that end otherwise, answers of one's own, and none."""

    def answer(request: bytes) -> bytes | None:
        return None if request == b"quiet" else request.upper()

    with RecordingServer(separator=b"\0", answer=answer) as server, connect(server) as sock:
        sock.sendall(b"quiet\0a\nb\0")
        assert sock.recv(4, socket.MSG_WAITALL) == b"A\nB\0"
        assert [each.data for each in server.requests] == [b"quiet", b"a\nb"]


def test_ipv6(loopback: str) -> None:
    with RecordingServer(loopback) as server, connect(server) as sock:
        assert server.address[0] == loopback
        assert ask(sock, b"x") == b"x"


def test_those_who_subscribe_get_what_is_pushed(server: RecordingServer) -> None:
    with connect(server) as one, connect(server) as other:
        assert server.push(b"nobody") == 0
        ask(one, b"SUBSCRIBE news")
        ask(other, b"hello")
        while server.push(b"news") == 0:  # subscribed once its answer was sent
            pass
        assert line_from(one) == b"news"
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(1)
    assert server.pushes[0].data == b"nobody"
    assert server.pushes[-1].subscribers == 1
    assert server.pushes[-1].at is not None


def test_a_push_that_waits_for_a_new_subscriber(server: RecordingServer) -> None:
    with connect(server) as old:
        ask(old, b"subscribe")
        now = time.monotonic()
        push = server.push_after(b"news", now)
        assert push.subscribers == 0
        with connect(server) as new:
            ask(new, b"subscribe")
            assert line_from(new) == b"news"
        assert push.subscribers == 1
        assert push.at is not None
        assert push.at > now
        with connect(server) as newest:  # it is sent once
            assert ask(newest, b"subscribe") == b"subscribe"
            assert ask(newest, b"x") == b"x"
        old.setblocking(False)
        with pytest.raises(BlockingIOError):
            old.recv(1)


def test_whoever_has_left_is_no_subscriber(server: RecordingServer) -> None:
    with connect(server) as sock:
        ask(sock, b"subscribe")
    deadline = time.monotonic() + 5
    while server.push(b"x"):
        assert time.monotonic() < deadline


def test_a_subscriber_that_does_not_read_holds_nobody_up(server: RecordingServer) -> None:
    with connect(server) as sock:
        ask(sock, b"subscribe")
        begun = time.monotonic()
        while server.push(bytes(2**20)):
            assert time.monotonic() - begun < 30
    assert server.pushes[-1].subscribers == 0


def test_nothing_is_left() -> None:
    before = set(threading.enumerate())
    server = RecordingServer()
    sock = connect(server)
    ask(sock, b"x")
    server.close()
    assert set(threading.enumerate()) == before
    with contextlib.suppress(ConnectionResetError):
        assert sock.recv(1) == b""
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        _ = server.address


def test_a_mistake_in_a_function_of_the_tests_is_told() -> None:
    def answer(request: bytes) -> bytes:
        raise KeyError(request)

    with (
        pytest.raises(UsageError, match=r"answer= or subscribes= raised[\s\S]*KeyError: b'x'"),
        RecordingServer(answer=answer) as server,
        connect(server) as sock,
    ):
        sock.sendall(b"x\n")
        assert sock.recv(1) == b""


def test_a_separator_is_needed() -> None:
    with pytest.raises(UsageError, match="the separator is empty"):
        RecordingServer(separator=b"")
