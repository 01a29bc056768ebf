"""``detects_break`` on real links: what passes, what fails, and what a user then reads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
import trio

from pytest_tcpresilience import (
    ExpectationFailed,
    Keepalive,
    Link,
    LinkFactory,
    UpstreamUnreachableWarning,
    UsageError,
    detects_break,
)
from pytest_tcpresilience.control import Engine
from pytest_tcpresilience.settings import Settings
from pytest_tcpresilience.upstream import Upstream
from tests.servers import EchoServer

WAIT_S = 10.0
FAST = Keepalive(idle=1, interval=1, probes=1)

pytestmark = pytest.mark.resilience(slack=0.1)


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


# --- noticed ------------------------------------------------------------------------------


def test_keepalive_finds_a_silent_drop(link: Link, client: socket.socket) -> None:
    FAST.apply(client)
    with detects_break(link, within=FAST, raises=TimeoutError) as detection:
        fault = link.silent_drop()
        client.recv(1)
    assert detection.mechanism == "keepalive"
    assert detection.fault == "silent_drop"
    assert detection.window.earliest <= detection.after <= detection.window.latest
    assert isinstance(detection.exception, TimeoutError)
    kinds = [event.kind for event in detection.timeline]
    assert kinds.index("fault_hit") < kinds.index("client_unanswered") < kinds.index("client_gone")
    assert kinds[-1] == "watch_ended" or "error" in kinds
    assert fault.hit_at is not None


def test_the_user_timeout_finds_a_write_into_a_silent_drop(
    link: Link, client: socket.socket
) -> None:
    Keepalive(idle=60, interval=60, probes=9, user_timeout=0.5).apply(client)
    with detects_break(link, within=2.0) as detection:
        link.silent_drop()
        client.sendall(b"into the void")
        client.recv(1)
    assert detection.mechanism == "user_timeout"


def test_a_reset_is_noticed_at_once(link: Link, client: socket.socket) -> None:
    with detects_break(link, within=0.5, raises=ConnectionResetError) as detection:
        link.reset(when_idle=0.2)
        client.recv(1)
    assert detection.mechanism == "reset"


def test_a_write_into_an_evicted_flow_is_noticed_by_its_reset(
    link: Link, client: socket.socket
) -> None:
    with detects_break(link, within=0.5, raises=ConnectionResetError) as detection:
        link.evict()
        client.sendall(b"x")
        client.recv(1)
    assert (detection.fault, detection.mechanism) == ("evict_reset", "reset")


def test_an_evicted_flow_is_noticed_by_the_first_probe(link: Link, client: socket.socket) -> None:
    """Sooner than keepalive gives up, and that is fine: RST is no timer of the client's."""
    FAST.apply(client)
    with detects_break(link, within=FAST, raises=ConnectionResetError) as detection:
        link.evict()
        client.recv(1)
    assert detection.mechanism == "reset"
    assert detection.after < detection.window.earliest


def test_a_refused_connection_needs_no_earlier_one(link: Link) -> None:
    with detects_break(link, within=0.5, raises=ConnectionRefusedError) as detection:
        link.refuse_connections()
        socket.create_connection((link.host, link.port))
    assert (detection.fault, detection.mechanism) == ("refuse_connections", "refused")


def test_a_connect_timeout_needs_no_earlier_connection(link: Link) -> None:
    with detects_break(link, within=1.0, raises=TimeoutError) as detection:
        link.ignore_connections()
        socket.create_connection((link.host, link.port), timeout=0.2)
    assert (detection.fault, detection.mechanism) == ("ignore_connections", "own_timeout")
    assert detection.after >= 0.2


def test_a_reconnect_that_is_refused_is_noticed(link: Link, client: socket.socket) -> None:
    link.refuse_connections()
    link.reset()
    with contextlib.suppress(ConnectionResetError):
        client.recv(1)
    with detects_break(link, within=1.0) as detection:
        socket.create_connection((link.host, link.port))
    assert detection.mechanism == "refused"


def read_or_raise(sock: socket.socket) -> bytes:
    data = sock.recv(1)
    if not data:
        raise EOFError("the server hung up")
    return data


def test_a_fin_is_noticed_at_once(link: Link, client: socket.socket) -> None:
    with detects_break(link, within=0.5, raises=EOFError) as detection:
        link.hang_up(after=0.1)
        read_or_raise(client)
    assert detection.mechanism == "fin"


def test_a_time_out_ends_in_a_fin(link: Link, client: socket.socket) -> None:
    with detects_break(link, within=1.0, raises=EOFError) as detection:
        link.time_out(after=0.3)
        read_or_raise(client)
    assert detection.mechanism == "fin"
    assert detection.after >= 0.3


def test_the_clients_own_timeout_is_told_from_the_kernels(
    link: Link, client: socket.socket
) -> None:
    client.settimeout(0.3)
    with detects_break(link, within=1.0, raises=TimeoutError) as detection:
        link.stall()
        client.recv(1)
    assert detection.mechanism == "own_timeout"


def test_mark_stands_for_a_client_that_raises_nothing(link: Link, client: socket.socket) -> None:
    with detects_break(link, within=0.5) as detection:
        link.reset()
        with contextlib.suppress(OSError):
            client.recv(1)
        detection.mark()
    assert detection.exception is None
    assert detection.mechanism == "reset"


@pytest.fixture
def own_link(echo_server: EchoServer) -> Iterator[Link]:
    """On an engine of its own, which may be stopped: workers of pytest-xdist share theirs."""
    engine = Engine(WAIT_S)
    upstream = Upstream.parse(echo_server.address)
    link = Link(engine, "late", upstream, Settings(), echo_server.address[0])
    yield link
    link.close()
    engine.stop()


def test_a_witness_that_comes_late_says_what_the_kernel_did(own_link: Link) -> None:
    """On a busy machine the engine may get no CPU until long after the client has noticed."""
    link = own_link

    def background() -> None:
        with pytest.raises(TimeoutError):
            client.recv(1)
        detection.mark()

    thread = threading.Thread(target=background)
    with socket.create_connection((link.host, link.port)) as client:
        client.sendall(b"hello")
        assert client.recv(16) == b"hello"
        FAST.apply(client)
        with detects_break(link, within=FAST) as detection:
            link.silent_drop()
            thread.start()
            link.wait_for("client_unanswered")
            os.kill(link.engine_pid, signal.SIGSTOP)
            try:
                detection.wait()
                time.sleep(0.1)  # the lateness is the subject
            finally:
                os.kill(link.engine_pid, signal.SIGCONT)
        thread.join()
    assert detection.mechanism == "keepalive"
    (gone,) = [event for event in detection.timeline if event.kind == "client_gone"]
    assert gone["overdue"] > 0.1


def test_a_client_that_closes_abruptly_was_not_told_by_its_kernel(
    link: Link, client: socket.socket
) -> None:
    """Its socket vanishes as if the kernel had given up, a probe unanswered."""
    Keepalive(idle=1, interval=5, probes=1).apply(client)
    with detects_break(link, within=3.0) as detection:
        link.silent_drop()
        link.wait_for("client_unanswered")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        detection.mark()
    assert detection.mechanism == "application"
    (gone,) = [event for event in detection.timeline if event.kind == "client_gone"]
    assert gone["unanswered"] == 1
    assert "it was reset, or the client closed it" in gone.describe()


def test_wait_serves_a_client_with_a_thread_of_its_own(link: Link, client: socket.socket) -> None:
    with detects_break(link, within=0.5) as detection:

        def background() -> None:
            with contextlib.suppress(OSError):
                client.recv(1)
            detection.mark("lost", reason="reset")

        thread = threading.Thread(target=background)
        thread.start()
        link.reset()
        detection.wait()
    thread.join()
    assert detection.mechanism == "reset"


def test_a_fault_may_come_before_the_block(link: Link, client: socket.socket) -> None:
    link.reset()
    with detects_break(link, within=0.5, raises=ConnectionResetError) as detection:
        client.recv(1)
    assert detection.fault == "reset"


def test_two_blocks_may_judge_two_clients_of_one_drop(link: Link) -> None:
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(2):
            sock = stack.enter_context(socket.create_connection((link.host, link.port)))
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            sock.settimeout(0.2)
            clients.append(sock)
        link.silent_drop()
        for sock in clients:
            with detects_break(link, within=1.0) as detection:
                sock.recv(1)
            assert detection.mechanism == "own_timeout"


def test_asyncio(link: Link) -> None:
    async def main() -> None:
        reader, writer = await asyncio.open_connection(link.host, link.port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        with detects_break(link, within=0.5, raises=ConnectionError) as detection:
            link.reset(after=0.1)
            await reader.readexactly(1)
        assert detection.mechanism == "reset"
        writer.close()

    asyncio.run(main())


def test_trio_with_the_error_in_a_group(link: Link) -> None:
    async def main() -> None:
        stream = await trio.open_tcp_stream(link.host, link.port)
        async with stream:
            await stream.send_all(b"x")
            assert await stream.receive_some(1) == b"x"
            with detects_break(link, within=0.5, raises=trio.BrokenResourceError) as detection:
                link.reset(after=0.1)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.receive_some, 1)
            assert detection.mechanism == "reset"

    trio.run(main)


# --- not noticed, or not so ---------------------------------------------------------------


def failure(caught: pytest.ExceptionInfo[BaseException], *lines: str) -> None:
    text = str(caught.value)
    for line in ("expected:", "happened:", "to do:", *lines):
        assert line in text, text


def test_unaware(link: Link, client: socket.socket) -> None:
    with pytest.raises(ExpectationFailed) as caught, detects_break(link, within=0.5):
        link.silent_drop()
    failure(caught, "did not notice the silent_drop: the block ended without an error")


def test_keepalive_off_is_the_cause(link: Link, client: socket.socket) -> None:
    with pytest.raises(ExpectationFailed) as caught, detects_break(link, within=0.3):
        link.silent_drop()
        client.recv(1)
    failure(caught, "had to be woken", "SO_KEEPALIVE is off on this socket", "TCP_KEEPIDLE")


def test_unacknowledged_data_is_the_cause(link: Link, client: socket.socket) -> None:
    FAST.apply(client)
    with pytest.raises(ExpectationFailed) as caught, detects_break(link, within=0.6):
        link.silent_drop()
        client.sendall(b"ab")
        client.recv(1)
    failure(caught, "2 bytes were unacknowledged, so keepalive did not run", "TCP_USER_TIMEOUT")


def test_a_keepalive_that_is_too_slow_is_the_cause(link: Link, client: socket.socket) -> None:
    Keepalive.linux_defaults().apply(client)
    with pytest.raises(ExpectationFailed) as caught, detects_break(link, within=0.3):
        link.silent_drop()
        client.recv(1)
    failure(caught, "Linux's defaults", "after 2 h 11 min 15 s")
    # Two hours after the last byte.
    assert re.search(r"the first probe was due (1 h 59 min 5\d s|2 h) after", str(caught.value))


def test_a_stall_is_the_cause(link: Link, client: socket.socket) -> None:
    FAST.apply(client)
    with pytest.raises(ExpectationFailed) as caught, detects_break(link, within=FAST):
        link.stall()
        client.recv(1)
    failure(caught, "this was a stall", "keepalive 1/1/1", "read timeout")


def test_an_eviction_is_the_cause(link: Link, client: socket.socket) -> None:
    with pytest.raises(ExpectationFailed) as caught, detects_break(link, within=0.3):
        link.evict()
        client.recv(1)
    failure(
        caught, "had to be woken", "the flow was evicted", "SO_KEEPALIVE is off", "TCP_KEEPIDLE"
    )
    assert isinstance(caught.value.__cause__, ConnectionResetError)  # the first stage woke it


def test_a_connect_without_a_limit_is_the_cause(link: Link) -> None:
    with pytest.raises(ExpectationFailed) as caught, detects_break(link, within=0.3):
        link.ignore_connections()
        with socket.socket() as sock:
            sock.connect((link.host, link.port))
            threading.Event().wait()  # the rescue may have let it in
    failure(caught, "nobody answered the client's SYN", "a connect timeout")


def test_retries_without_a_limit_are_the_cause(link: Link) -> None:
    with pytest.raises(ExpectationFailed) as caught, detects_break(link, within=0.3):
        link.refuse_connections()
        while True:
            with contextlib.suppress(OSError), socket.socket() as sock:
                sock.connect((link.host, link.port))
            time.sleep(0.02)
    failure(caught, "each attempt to connect was refused", "limit the client's retries")


def test_a_swallowed_error_is_the_cause(link: Link, client: socket.socket) -> None:
    FAST.apply(client)
    with pytest.raises(ExpectationFailed) as caught, detects_break(link, within=3.0):
        link.silent_drop()
        with contextlib.suppress(TimeoutError):
            client.recv(1)
        threading.Event().wait()
    failure(caught, "told the application, which did not act on it", "ETIMEDOUT is TimeoutError")


def test_a_silent_reconnect_is_the_cause(link: Link, client: socket.socket) -> None:
    with pytest.raises(ExpectationFailed) as caught, detects_break(link, within=0.5):
        link.reset()
        with contextlib.suppress(OSError):
            client.recv(1)
        with socket.create_connection((link.host, link.port)) as again:
            again.sendall(b"x")
            assert again.recv(1) == b"x"
    failure(caught, "opened a new connection", "use recovers(link, within=...)")


def test_a_socket_that_the_client_closed_is_the_cause(link: Link, client: socket.socket) -> None:
    with pytest.raises(ExpectationFailed) as caught, detects_break(link, within=0.4):
        link.silent_drop().wait_until_hit()
        client.close()
        threading.Event().wait()
    failure(caught, "closed its socket by itself", "detection.mark()")


def test_before_the_fault(link: Link, client: socket.socket) -> None:
    client.settimeout(0.05)
    with pytest.raises(ExpectationFailed) as caught, detects_break(link, within=0.5):
        fault = link.silent_drop(after=5)
        client.recv(1)
    failure(caught, "raised before the fault", "TimeoutError: timed out came before any fault hit")
    fault.lift()


def test_a_mark_before_the_fault(link: Link, client: socket.socket) -> None:
    with pytest.raises(ExpectationFailed) as caught, detects_break(link, within=0.5) as detection:
        detection.mark()
        link.silent_drop()
    failure(caught, "before the silent_drop hit")


def test_too_late(link: Link, client: socket.socket) -> None:
    client.settimeout(0.35)
    with pytest.raises(ExpectationFailed) as caught, detects_break(link, within=0.3):
        link.silent_drop()
        client.recv(1)
    failure(caught, "too late", "noticed by own_timeout", "within 0.30 s after the fault")


def test_sooner_than_keepalive_can(link: Link, client: socket.socket) -> None:
    FAST.apply(client)
    client.settimeout(0.2)
    with pytest.raises(ExpectationFailed) as caught, detects_break(link, within=FAST):
        link.silent_drop()
        client.recv(1)
    failure(
        caught,
        "sooner than its settings can",
        "a TimeoutError without errno is the client's own timeout, not the kernel's",
        "(keepalive 1/1/1)",
    )


def test_the_wrong_error(link: Link, client: socket.socket) -> None:
    with (
        pytest.raises(ExpectationFailed) as caught,
        detects_break(link, within=0.5, raises=EOFError),
    ):
        link.reset()
        client.recv(1)
    failure(caught, "another error than expected", "ConnectionResetError", "EOFError")
    assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_nothing_was_connected(link: Link) -> None:
    with pytest.raises(UsageError) as caught, detects_break(link, within=0.2):
        link.silent_drop()
    failure(caught, "no connection was there to break")


def test_the_connection_had_gone_before_the_fault(link: Link, client: socket.socket) -> None:
    client.close()
    while link.connections:
        time.sleep(0.001)  # until the engine has heard of it
    with pytest.raises(UsageError) as caught, detects_break(link, within=0.2):
        link.silent_drop()
    failure(caught, "silent_drop acted while no connection was open")


def test_no_fault_was_started(link: Link, client: socket.socket) -> None:
    with pytest.raises(UsageError) as caught, detects_break(link, within=0.2):
        pass
    failure(caught, "no fault was started on this link")


@pytest.mark.resilience(hit_timeout=0.3)
def test_the_fault_never_hit(link: Link, client: socket.socket) -> None:
    begun = time.monotonic()
    with pytest.raises(UsageError) as caught, detects_break(link, within=0.2):
        fault = link.silent_drop(when_idle=30)
        client.recv(1)
    failure(caught, "silent_drop was armed and never hit", "resilience_hit_timeout")
    assert time.monotonic() - begun < 0.3 + 1.0
    fault.lift()


def test_a_lifted_fault_is_none(link: Link, client: socket.socket) -> None:
    with link.stall():
        pass
    with pytest.raises(UsageError) as caught, detects_break(link, within=0.2):
        pass
    failure(caught, "no fault hit while the block ran")


def test_a_reset_counts_for_one_block(link: Link, client: socket.socket) -> None:
    with detects_break(link, within=0.5):
        link.reset()
        client.recv(1)
    with pytest.raises(UsageError) as caught, detects_break(link, within=0.2):
        pass
    failure(caught, "no fault hit while the block ran")


def test_an_upstream_that_refuses_is_named(tcp_link: LinkFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    link = tcp_link(address)
    with (
        pytest.raises(ExpectationFailed) as caught,
        socket.create_connection((link.host, link.port)) as sock,
        detects_break(link, within=0.5),
    ):
        sock.recv(1)
    failure(caught, "raised before the fault", "the upstream failed: Connection refused")
    with pytest.warns(UpstreamUnreachableWarning, match="Connection refused"):
        link.close()


# --- the test's own mistakes --------------------------------------------------------------


@pytest.mark.parametrize("error", [AssertionError, TypeError, KeyError, KeyboardInterrupt])
def test_a_mistake_in_the_test_is_no_detection(
    link: Link, client: socket.socket, error: type[BaseException]
) -> None:
    with pytest.raises(error), detects_break(link, within=0.5):
        link.reset()
        raise error("mine")


def test_a_skip_is_no_detection(link: Link, client: socket.socket) -> None:
    with pytest.raises(pytest.skip.Exception), detects_break(link, within=0.5):
        link.reset()
        pytest.skip("not here")


def test_a_named_mistake_is_a_detection(link: Link, client: socket.socket) -> None:
    with detects_break(link, within=0.5, raises=AttributeError) as detection:
        link.reset()
        raise AttributeError("some clients report a break so")
    assert isinstance(detection.exception, AttributeError)


@pytest.mark.parametrize("within", [0, -1, float("inf"), True, "5"])
def test_no_window(link: Link, within: float) -> None:
    with pytest.raises(UsageError, match="is no window"):
        detects_break(link, within=within)


def test_a_keepalive_that_is_off_promises_nothing(link: Link) -> None:
    with pytest.raises(UsageError, match="SO_KEEPALIVE is off"):
        detects_break(link, within=Keepalive.linux_defaults(enabled=False))


def test_no_link() -> None:
    with pytest.raises(UsageError, match="needs a link"):
        detects_break("127.0.0.1:1", within=1)  # type: ignore[arg-type]


def test_raises_must_name_exceptions(link: Link) -> None:
    with pytest.raises(UsageError, match="is no exception type"):
        detects_break(link, within=1, raises="ValueError")  # type: ignore[arg-type]


def test_one_block_at_a_time(link: Link, client: socket.socket) -> None:
    with (
        pytest.raises(UsageError, match="being watched already"),
        detects_break(link, within=0.5),
        detects_break(link, within=0.5),
    ):
        pass


def test_a_detection_is_read_after_the_block(link: Link, client: socket.socket) -> None:
    with (
        pytest.raises(UsageError, match="nothing to tell yet"),
        detects_break(link, within=0.5) as detection,
    ):
        _ = detection.after


def test_wait_would_block_an_event_loop(link: Link, client: socket.socket) -> None:
    async def main() -> None:
        with detects_break(link, within=0.5) as detection:
            detection.wait()

    with pytest.raises(UsageError, match="would block the event loop"):
        asyncio.run(main())
    with pytest.raises(UsageError, match="would block the event loop"):
        trio.run(main)


def test_contradicting_faults(link: Link, client: socket.socket) -> None:
    with link.silent_drop():
        for fault in (link.silent_drop, link.stall, link.reset, link.hang_up):
            with pytest.raises(UsageError, match="contradicts the silent_drop"):
                fault()
    link.stall()
    with pytest.raises(UsageError, match="time_out contradicts the stall"):
        link.time_out(1.0)


def test_a_reset_cannot_be_lifted(link: Link, client: socket.socket) -> None:
    fault = link.reset()
    with pytest.raises(UsageError, match="the reset cannot be lifted"):
        fault.lift()


def test_a_scheduled_reset_can_be_called_off(link: Link, client: socket.socket) -> None:
    with link.reset(after=0.2):
        pass
    client.settimeout(0.4)
    with pytest.raises(TimeoutError):
        client.recv(1)


def test_waiting_for_a_hit_that_does_not_come(link: Link, client: socket.socket) -> None:
    with (
        link.silent_drop(when_idle=60) as fault,
        pytest.raises(UsageError, match=r"did not hit in 0\.1 s"),
    ):
        fault.wait_until_hit(timeout=0.1)


@pytest.mark.parametrize("value", [0, -1, float("nan"), "1", True])
def test_a_time_that_is_none(link: Link, value: float) -> None:
    with pytest.raises(UsageError, match="is no time"):
        link.silent_drop(after=value)
    with pytest.raises(UsageError, match="is no time"):
        link.time_out(value)


def test_two_schedules(link: Link) -> None:
    with pytest.raises(UsageError, match="when_idle= and after= together"):
        link.silent_drop(when_idle=1, after=1)
