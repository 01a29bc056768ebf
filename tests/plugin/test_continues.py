"""``survives``, ``stays_quiet`` and ``closes_within`` on real links."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from pytest_tcpresilience import (
    ExpectationFailed,
    Fault,
    Keepalive,
    Link,
    LinkFactory,
    RecordingServer,
    UsageError,
    closes_within,
    stays_quiet,
    survives,
)
from tests.plugin.clients import LineClient

pytestmark = pytest.mark.resilience(slack=0.2)

FAST = Keepalive(idle=1, interval=1, probes=1)


@pytest.fixture
def link(tcp_link: LinkFactory, recording_server: RecordingServer) -> Link:
    return tcp_link(recording_server.address)


@pytest.fixture
def client(link: Link) -> Iterator[LineClient]:
    client = LineClient(link)
    assert client.ask(b"hello") == b"hello"
    yield client
    client.close()


def failure(caught: pytest.ExceptionInfo[BaseException], *lines: str) -> None:
    text = str(caught.value)
    for line in ("expected:", "happened:", "to do:", *lines):
        assert line in text, text


@contextmanager
def lifted_in(seconds: float, fault: Fault) -> Iterator[None]:
    """Have another thread lift a fault, unless the block is over before."""
    timer = threading.Timer(seconds, fault.lift)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


# --- survives -----------------------------------------------------------------------------


def test_an_outage_that_is_shorter_than_the_window(
    link: Link, client: LineClient, recording_server: RecordingServer
) -> None:
    FAST.apply(client.sock)
    with survives(link, within=2.0) as survival:
        with link.silent_drop():
            client.send(b"into the silence")
            time.sleep(0.3)
        assert client.read() == b"into the silence"
    assert survival.time < 2.0
    assert survival.fault == "silent_drop"
    assert recording_server.connections == 1


def test_a_stall_is_survived_by_waiting(link: Link, client: LineClient) -> None:
    with survives(link, within=1.0), lifted_in(0.2, link.stall()):
        assert client.ask(b"x") == b"x"


def test_survival_in_trio(link: Link) -> None:
    async def main() -> None:
        async with await trio.open_tcp_stream(link.host, link.port) as stream:
            await stream.send_all(b"hello\n")
            assert await stream.receive_some(16) == b"hello\n"
            with survives(link, within=2.0) as survival:
                with link.silent_drop():
                    await stream.send_all(b"again\n")
                assert await stream.receive_some(16) == b"again\n"
        assert survival.health.loop_lag is not None

    trio.run(main)


def test_a_client_that_gives_up_too_soon(link: Link, client: LineClient) -> None:
    Keepalive(idle=60, interval=60, probes=9, user_timeout=0.2).apply(client.sock)
    with (
        pytest.raises(ExpectationFailed) as caught,
        survives(link, within=2.0),
        lifted_in(1.5, link.silent_drop()),
    ):
        client.ask(b"x")
    failure(caught, "did not survive the silent_drop: the operation failed", "TimeoutError")


def test_a_client_that_reconnects_for_no_need(link: Link, client: LineClient) -> None:
    with pytest.raises(ExpectationFailed) as caught, survives(link, within=1.0):
        with link.stall():
            pass
        with socket.create_connection((link.host, link.port)):
            pass
    failure(caught, "did not go on on its connection: it opened connection 2")


def test_a_client_that_closes_its_connection(link: Link, client: LineClient) -> None:
    with pytest.raises(ExpectationFailed) as caught, survives(link, within=1.0):
        with link.silent_drop():
            client.close()
        client.ask(b"x")
    failure(caught, "did not survive the silent_drop: connection 1 ended")


def test_bytes_that_nobody_takes(tcp_link: LinkFactory) -> None:
    """The server does not read: what the client has sent never arrives."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = tcp_link(server.getsockname())
        with socket.create_connection((link.host, link.port)) as sock:
            served, _ = server.accept()
            sock.setblocking(False)
            with pytest.raises(ExpectationFailed) as caught, survives(link, within=5.0):
                with link.stall():
                    pass
                with contextlib.suppress(BlockingIOError):
                    while True:
                        sock.send(bytes(2**20))
            served.close()
    failure(caught, "not every byte arrived", "bytes were not carried to the server")


@pytest.mark.resilience(slack=5.0)
def test_a_client_that_goes_on_too_late(link: Link, client: LineClient) -> None:
    with pytest.raises(ExpectationFailed) as caught, survives(link, within=0.1):
        with link.stall():
            pass
        time.sleep(0.15)
    failure(caught, "went on too late after the stall")


def test_an_outage_that_does_not_end(link: Link, client: LineClient) -> None:
    with pytest.raises(ExpectationFailed) as caught, survives(link, within=0.3):
        link.silent_drop()
        client.ask(b"x")
    failure(caught, "did not go on", "had to be woken", "why: 2 bytes were unacknowledged")


def test_nothing_to_survive(link: Link, client: LineClient) -> None:
    with pytest.raises(UsageError) as caught, survives(link, within=0.3):
        client.ask(b"x")
    failure(caught, "there was nothing to survive")


# --- stays_quiet --------------------------------------------------------------------------


def test_a_read_on_a_healthy_link(link: Link, client: LineClient) -> None:
    """It would wait for ever, and is ended with its time."""
    with stays_quiet(link, windows=2, within=0.2) as quiet:
        client.read()
    assert quiet.seconds == pytest.approx(0.4)
    assert quiet.health.seconds >= 0.4


def test_keepalive_raises_no_false_alarm(link: Link, client: LineClient) -> None:
    FAST.apply(client.sock)
    with stays_quiet(link, windows=1, within=FAST) as quiet:
        quiet.wait()
    assert quiet.seconds == 2.0
    assert client.ask(b"x") == b"x"


@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_quiet_in_an_event_loop(link: Link, client: LineClient, run: object) -> None:
    async def main() -> None:
        with stays_quiet(link, windows=1, within=0.2) as quiet:
            await quiet.sleep()
        with stays_quiet(link, windows=1, within=0.2) as quiet:
            await trio.sleep_forever() if run is trio.run else await asyncio.sleep(60)
        with (
            pytest.raises(UsageError, match=r"write await quiet\.sleep\(\)"),
            stays_quiet(link, windows=1, within=0.2) as quiet,
        ):
            quiet.wait()

    trio.run(main) if run is trio.run else asyncio.run(main())


def test_a_timeout_that_is_shorter_than_the_wait(link: Link, client: LineClient) -> None:
    assert client.sock is not None
    client.sock.settimeout(0.1)
    with pytest.raises(ExpectationFailed) as caught, stays_quiet(link, windows=3, within=0.2):
        client.read()
    failure(
        caught,
        "a false alarm on a healthy idle link, after ",
        "why: the client's own timeout is shorter than it may have to wait",
        "nothing to happen for 0.60 s",
    )
    after = re.search(r"a false alarm .*, after (\d\.\d\d) s", str(caught.value))
    assert after
    assert 0.1 <= float(after[1]) < 0.6


def test_a_reconnect_on_a_healthy_link(link: Link, client: LineClient) -> None:
    with (
        pytest.raises(ExpectationFailed) as caught,
        stays_quiet(link, windows=1, within=0.3) as quiet,
        socket.create_connection((link.host, link.port)),
    ):
        quiet.wait()
    failure(caught, "opened connection 2 on a healthy idle link")


def test_a_close_on_a_healthy_link(link: Link, client: LineClient) -> None:
    with (
        pytest.raises(ExpectationFailed) as caught,
        stays_quiet(link, windows=1, within=0.3) as quiet,
    ):
        client.close()
        quiet.wait()
    failure(caught, "a healthy idle link did not stay up: connection 1 ended")


def test_quiet_needs_a_client(link: Link) -> None:
    with pytest.raises(UsageError) as caught, stays_quiet(link, windows=1, within=0.1) as quiet:
        quiet.wait()
    failure(caught, "no connection was there to stay quiet")


def test_quiet_needs_a_healthy_link(link: Link, client: LineClient) -> None:
    with (
        pytest.raises(UsageError) as caught,
        link.stall(),
        stays_quiet(link, windows=1, within=0.1) as quiet,
    ):
        quiet.wait()
    failure(caught, "the link was not healthy", "stall was in force")


def test_quiet_needs_its_time(link: Link, client: LineClient) -> None:
    with pytest.raises(UsageError) as caught, stays_quiet(link, within=FAST):
        client.ask(b"x")
    failure(caught, "ended before its time was over", "of 6.00 s", "call quiet.wait()")


@pytest.mark.parametrize("windows", [0, -1, True, 1.5])
def test_a_number_of_windows(link: Link, windows: int) -> None:
    with pytest.raises(UsageError, match="is no number of windows"):
        stays_quiet(link, windows=windows, within=1)


# --- closes_within ------------------------------------------------------------------------


def test_a_close_that_does_not_wait(link: Link, client: LineClient) -> None:
    link.silent_drop()
    with closes_within(link, 0.5) as closing:
        client.close()
    assert closing.time < 0.5
    assert "client_closed" in [event.kind for event in closing.timeline]


def test_a_close_in_asyncio(link: Link) -> None:
    async def main() -> None:
        reader, writer = await asyncio.open_connection(link.host, link.port)
        writer.write(b"hello\n")
        await reader.readline()
        link.silent_drop()
        with closes_within(link, 0.5):
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


def test_a_goodbye_that_wants_an_answer(link: Link, client: LineClient) -> None:
    link.silent_drop()
    with pytest.raises(ExpectationFailed) as caught, closes_within(link, 0.2):
        client.ask(b"quit")
    failure(
        caught,
        "teardown did not end while the link was dead",
        "why: 5 bytes were unacknowledged",
        "set TCP_USER_TIMEOUT=100",
    )


@pytest.mark.resilience(slack=5.0)
def test_a_close_that_takes_too_long(link: Link, client: LineClient) -> None:
    link.stall()
    with pytest.raises(ExpectationFailed) as caught, closes_within(link, 0.1):
        client.close()
        time.sleep(0.15)
    failure(caught, "teardown took too long")


def test_a_close_that_raises(link: Link, client: LineClient) -> None:
    link.stall()
    assert client.sock is not None
    client.sock.settimeout(0.1)
    with pytest.raises(ExpectationFailed) as caught, closes_within(link, 0.5):
        client.ask(b"quit")
    failure(caught, "teardown raised while the link was dead", "TimeoutError: timed out")


def test_a_close_that_leaves_its_socket_open(link: Link, client: LineClient) -> None:
    assert client.sock is not None
    link.silent_drop()
    with socket.socket(fileno=client.sock.fileno()) as leaked:
        with pytest.raises(ExpectationFailed) as caught, closes_within(link, 0.2):
            client.sock.detach()
            client.close()
        leaked.close()
    failure(caught, "the application still holds its socket", "connection 1: the descriptor")


def test_a_link_that_is_alive(link: Link, client: LineClient) -> None:
    with link.silent_drop():
        pass
    with pytest.raises(UsageError) as caught, closes_within(link, 0.2):
        client.close()
    failure(caught, "the link was not dead")


def test_a_closing_is_read_after_the_block(link: Link, client: LineClient) -> None:
    with (
        pytest.raises(UsageError, match="the closing has nothing to tell yet"),
        closes_within(link, 0.2) as closing,
    ):
        _ = closing.time
