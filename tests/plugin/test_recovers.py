"""``recovers`` on real links: what counts as a recovery, and what is wrong with others."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
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
    RecordingServer,
    UsageError,
    recovers,
)
from tests.plugin.clients import LineClient

pytestmark = pytest.mark.resilience(slack=0.2)


@pytest.fixture
def link(tcp_link: LinkFactory, recording_server: RecordingServer) -> Link:
    return tcp_link(recording_server.address)


@pytest.fixture
def client(link: Link) -> Iterator[LineClient]:
    client = LineClient(link)
    assert client.ask(b"hello") == b"hello"
    yield client
    client.close()


# --- recovered ----------------------------------------------------------------------------


def test_a_client_that_comes_back_by_itself(link: Link, client: LineClient) -> None:
    with recovers(link, within=1.0) as recovery:
        link.reset()
        client.ask_until_answered(b"again")
    assert recovery.attempts == 1
    assert recovery.spacing == ()
    assert 0 <= recovery.time < 1.0
    assert (recovery.fault, recovery.ghosts) == ("reset", 0)
    assert recovery.health.seconds > 0
    assert "opened" in [event.kind for event in recovery.timeline]


def test_trying_again_until_it_works(
    link: Link, client: LineClient, recording_server: RecordingServer
) -> None:
    with recovers(link, within=1.0, server=recording_server, once=b"pay 17") as recovery:
        link.hang_up()
        for attempt in recovery.retrying(every=0.01):
            with attempt:
                client.ask(b"pay 17")
    assert len(recovery.failures) >= 1
    assert recovery.requests == (b"pay 17",)
    assert recovery.repeated == ()
    kinds = [event.kind for event in recovery.timeline]
    assert kinds.index("tried") < kinds.index("opened", 1) < kinds.index("request", 1)


def test_the_time_counts_from_the_end_of_the_outage(link: Link, client: LineClient) -> None:
    """An outage before the block, and a client that noticed it, cost nothing."""
    fault = link.silent_drop()
    client.close()
    time.sleep(0.3)
    fault.lift()
    with recovers(link, within=0.5) as recovery:
        client.ask(b"again")
    assert recovery.time < 0.3


def test_lifting_in_the_block_starts_the_time_anew(link: Link, client: LineClient) -> None:
    with recovers(link, within=0.5) as recovery:
        with link.refuse_connections():
            link.reset()
            for _ in range(3):
                with contextlib.suppress(OSError):
                    client.ask(b"x")
                time.sleep(0.1)
        lifted_at = time.monotonic()
        client.ask(b"again")
        ended_at = time.monotonic()
    assert recovery.time <= ended_at - lifted_at + 0.1


def test_spacing_is_told(link: Link, client: LineClient) -> None:
    with recovers(link, within=2.0, attempts=3) as recovery:
        link.reset()
        for _ in range(3):
            client.close()
            client.ask(b"x")
            time.sleep(0.1)
    assert recovery.attempts == 3
    opened = [event.at for event in recovery.timeline if event.kind == "opened"][1:]
    assert recovery.spacing == (opened[1] - opened[0], opened[2] - opened[1])
    assert sum(recovery.spacing) > 0.1  # of 0.2, as the engine came to accept them


def test_a_client_in_the_background(link: Link, client: LineClient) -> None:
    with recovers(link, within=1.0) as recovery:

        def reconnect() -> None:
            client.ask_until_answered(b"x")
            recovery.mark()

        link.reset()
        thread = threading.Thread(target=reconnect)
        thread.start()
        recovery.wait()
    thread.join()
    assert recovery.attempts == 1


def test_a_subscription_is_restored(
    link: Link, client: LineClient, recording_server: RecordingServer
) -> None:
    client.ask(b"subscribe news")
    with recovers(link, within=1.0, server=recording_server) as recovery:
        link.evict(then="drop")
        push = recovery.push(b"after the break")
        client.close()
        assert client.ask(b"subscribe news") == b"subscribe news"
        assert client.read() == b"after the break"
    assert push.subscribers == 1
    assert recovery.ghosts == 1  # the server never heard of the break


def test_a_pool_that_comes_back_at_once_is_no_storm(link: Link) -> None:
    with contextlib.ExitStack() as stack:
        pool = [LineClient(link) for _ in range(12)]
        for client in pool:
            stack.callback(client.close)
            client.ask(b"hello")
        with recovers(link, within=2.0) as recovery:
            link.reset()
            for client in pool:
                client.ask_until_answered(b"again")
        assert recovery.attempts == 12


def test_asyncio(link: Link) -> None:
    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection(link.host, link.port)
        writer.write(b"hello\n")
        line = await reader.readline()
        writer.close()
        if not line:
            raise EOFError
        return line

    async def main() -> None:
        _reader, writer = await asyncio.open_connection(link.host, link.port)
        with recovers(link, within=1.0) as recovery:
            fault = link.refuse_connections()
            link.reset()
            async for attempt in recovery.retrying(every=0.02):
                with attempt:
                    if len(recovery.failures) == 3:
                        fault.lift()
                    await ask()
        assert len(recovery.failures) >= 3
        assert recovery.health.loop_lag is not None
        writer.close()

    asyncio.run(main())


def test_trio(link: Link) -> None:
    async def main() -> None:
        async with await trio.open_tcp_stream(link.host, link.port):
            with recovers(link, within=1.0) as recovery:
                link.reset()
                async for attempt in recovery.retrying(every=0.02):
                    with attempt:
                        async with await trio.open_tcp_stream(link.host, link.port) as stream:
                            await stream.send_all(b"hello\n")
                            assert await stream.receive_some(16) == b"hello\n"
        assert recovery.attempts == 1

    trio.run(main)


# --- not recovered, or not so -------------------------------------------------------------


def failure(caught: pytest.ExceptionInfo[BaseException], *lines: str) -> None:
    text = str(caught.value)
    for line in ("expected:", "happened:", "to do:", *lines):
        assert line in text, text


def test_a_client_that_waits_on_its_dead_connection(link: Link, client: LineClient) -> None:
    with pytest.raises(ExpectationFailed) as caught, recovers(link, within=0.3):
        link.silent_drop()
        client.ask(b"x")
    failure(
        caught,
        "did not recover from the silent_drop",
        "had to be woken; it opened no new connection",
        "why: 2 bytes were unacknowledged, so keepalive did not run",
        "success on a new connection within 0.30 s",
    )


def test_a_client_that_fails_and_does_not_try_again(link: Link, client: LineClient) -> None:
    with pytest.raises(ExpectationFailed) as caught, recovers(link, within=1.0):
        link.reset()
        client.ask(b"x")
    failure(caught, "the operation failed", "ConnectionResetError", "recovery.retrying()")
    assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_trying_again_ends_with_the_time(link: Link, client: LineClient) -> None:
    with pytest.raises(ExpectationFailed) as caught, recovers(link, within=0.3) as recovery:
        link.refuse_connections()
        link.reset()
        for attempt in recovery.retrying():
            with attempt:
                client.ask(b"x")
    failure(caught, "did not recover from the refuse_connections")
    after = re.search(r"tries had failed after (\d\.\d\d) s", str(caught.value))
    assert after
    assert float(after[1]) >= 0.3 + 0.2
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)  # and not interrupted


def test_the_same_connection_is_no_recovery(link: Link, client: LineClient) -> None:
    with pytest.raises(UsageError) as caught, recovers(link, within=1.0):
        with link.silent_drop():
            pass
        client.ask(b"x")
    failure(caught, "without a new connection", "use survives(link, within=...)")


def test_a_success_that_reached_nobody(
    link: Link, client: LineClient, recording_server: RecordingServer
) -> None:
    """A publish that returns at once on a dead flow."""
    with (
        pytest.raises(ExpectationFailed) as caught,
        recovers(link, within=1.0, server=recording_server, once=b"publish"),
    ):
        link.silent_drop()
        client.send(b"publish")
    failure(caught, "a false success", "no connection was there", "executing b'publish' once")


def test_a_request_that_was_lost(
    link: Link, client: LineClient, recording_server: RecordingServer
) -> None:
    with (
        pytest.raises(ExpectationFailed) as caught,
        recovers(link, within=1.0, server=recording_server, once=(b"publish", b"ping")),
    ):
        link.evict(then="drop")
        client.send(b"publish")
        client.close()
        client.ask(b"ping")
    failure(caught, "a false success", "the server never got b'publish'", "the server got b'ping'")


def test_a_reconnect_that_does_nothing(
    link: Link, client: LineClient, recording_server: RecordingServer
) -> None:
    with (
        pytest.raises(ExpectationFailed) as caught,
        recovers(link, within=1.0, server=recording_server),
    ):
        link.reset()
        client.close()
        client.connect()
    failure(caught, "a false success", "the server has executed nothing since the fault")


def test_a_request_that_was_executed_twice(tcp_link: LinkFactory) -> None:
    """The answer is lost, and the client asks again what is not to be asked twice."""
    with RecordingServer(answer=lambda _: None) as server:
        link = tcp_link(server.address)
        client = LineClient(link)
        client.connect()
        with (
            pytest.raises(ExpectationFailed) as caught,
            recovers(link, within=1.0, server=server, once=b"pay 17"),
        ):
            client.send(b"pay 17")
            server.wait_for(1)
            link.reset()
            client.close()
            client.send(b"pay 17")
            server.wait_for(2)
        client.close()
    failure(caught, "executed more than once", "b'pay 17' twice", "unless it is idempotent")


def test_a_subscription_that_is_not_restored(
    link: Link, client: LineClient, recording_server: RecordingServer
) -> None:
    client.ask(b"subscribe news")
    with (
        pytest.raises(ExpectationFailed) as caught,
        recovers(link, within=1.0, server=recording_server) as recovery,
    ):
        link.reset()
        recovery.push(b"after the break")
        client.ask_until_answered(b"hello")
    failure(caught, "reconnected and did not subscribe again", "b'after the break' waited")


def test_a_message_that_never_comes(
    link: Link, client: LineClient, recording_server: RecordingServer
) -> None:
    client.ask(b"subscribe news")
    with (
        pytest.raises(ExpectationFailed) as caught,
        recovers(link, within=0.3, server=recording_server) as recovery,
    ):
        link.reset()
        recovery.push(b"after the break")
        client.ask_until_answered(b"hello")
        client.read()
    failure(caught, "had to be woken", "why: the client reconnected and did not subscribe again")


@pytest.mark.resilience(slack=5.0)
def test_too_late(link: Link, client: LineClient) -> None:
    with pytest.raises(ExpectationFailed) as caught, recovers(link, within=0.1):
        link.reset()
        time.sleep(0.15)
        client.ask_until_answered(b"x")
    failure(caught, "recovered from the reset too late", "it opened 1 new connection")


def test_a_reconnect_storm(link: Link, client: LineClient) -> None:
    with pytest.raises(ExpectationFailed) as caught, recovers(link, within=2.0):
        link.reset()
        for _ in range(14):
            socket.create_connection((link.host, link.port)).close()
        client.ask_until_answered(b"x")
    failure(caught, "longer each time and with some randomness")
    assert re.search(r"a reconnect storm: 15 new connections within 0\.\d\d s", str(caught.value))


def test_more_connections_than_allowed(link: Link, client: LineClient) -> None:
    with pytest.raises(ExpectationFailed) as caught, recovers(link, within=1.0, attempts=1):
        link.reset()
        for _ in range(2):
            client.close()
            client.ask(b"x")
    failure(caught, "needed more than 1 new connection(s)", "with at most 1 of them")


def test_a_ghost_is_named(link: Link, client: LineClient) -> None:
    """The server refuses the client for as long as it holds its ghost."""
    Keepalive(idle=60, interval=60, probes=9).apply(client.sock)
    with pytest.raises(ExpectationFailed) as caught, recovers(link, within=1.0):
        link.evict(then="drop")
        client.close()
        client.ask(b"lock")
        raise ConnectionError("locked by another session")
    failure(caught, "why: the client opened a new connection", "the server still held the old one")


# --- the test's own mistakes --------------------------------------------------------------


def test_nothing_was_broken(link: Link, client: LineClient) -> None:
    with pytest.raises(UsageError) as caught, recovers(link, within=0.5):
        client.ask(b"x")
    failure(caught, "there was nothing to recover from")


def test_a_mistake_in_the_test_is_not_tried_again(link: Link, client: LineClient) -> None:
    with pytest.raises(AssertionError, match="mine"), recovers(link, within=0.5) as recovery:
        link.reset()
        for attempt in recovery.retrying():
            with attempt:
                raise AssertionError("mine")


def test_a_named_mistake_is_tried_again(link: Link, client: LineClient) -> None:
    with recovers(link, within=0.5) as recovery:
        link.reset()
        for attempt in recovery.retrying(every=0.01, on=(OSError, AssertionError)):
            with attempt:
                assert client.ask(b"x") == b"x"
                assert len(recovery.failures) >= 2
    assert [type(error) for _, error in recovery.failures][-1] is AssertionError


def test_a_plain_for_would_block_an_event_loop(link: Link, client: LineClient) -> None:
    async def main() -> None:
        with recovers(link, within=0.5) as recovery:
            link.reset()
            for _ in recovery.retrying():
                pass

    with pytest.raises(UsageError, match="async for attempt in"):
        asyncio.run(main())
    with pytest.raises(UsageError, match="async for attempt in"):
        trio.run(main)


def test_a_recovery_is_read_after_the_block(link: Link, client: LineClient) -> None:
    with (
        pytest.raises(UsageError, match="the recovery has nothing to tell yet"),
        recovers(link, within=0.5) as recovery,
    ):
        _ = recovery.time


def test_a_push_needs_a_server_and_a_break(
    link: Link, client: LineClient, recording_server: RecordingServer
) -> None:
    with (
        pytest.raises(UsageError, match="needs a recording server"),
        recovers(link, within=0.5) as recovery,
    ):
        link.reset()
        recovery.push(b"x")


def test_a_push_before_the_break(
    link: Link, client: LineClient, recording_server: RecordingServer
) -> None:
    with (
        pytest.raises(UsageError, match="before the break"),
        recovers(link, within=0.5, server=recording_server) as recovery,
    ):
        recovery.push(b"x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"once": b"pay"}, "once= needs a recording server"),
        ({"once": ("pay",)}, "names no requests"),
        ({"attempts": 0}, "is no limit"),
        ({"attempts": True}, "is no limit"),
        ({"within": 0}, "is no window"),
    ],
)
def test_arguments_that_make_no_sense(
    link: Link, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        recovers(link, **{"within": 1.0, **arguments})  # type: ignore[arg-type]


def test_no_link() -> None:
    with pytest.raises(UsageError, match=r"recovers\('127.0.0.1:1'\) needs a link"):
        recovers("127.0.0.1:1", within=1)  # type: ignore[arg-type]
