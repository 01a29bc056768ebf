"""A client that never notices costs its window, its slack and at most 1 s.

Each test here hangs by design. The limit is the product's promise and not a guess about
this machine, so it is asserted.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import trio

from pytest_tcpresilience import ExpectationFailed, Link, LinkFactory, detects_break
from tests.servers import EchoServer

WITHIN_S = 0.4
SLACK_S = 0.2
PROMISE_S = WITHIN_S + SLACK_S + 1.0

pytestmark = [
    pytest.mark.resilience(slack=SLACK_S),
    # A client that is interrupted in the middle of connecting drops its socket.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Have the dropped sockets collected while their warnings are still ignored."""
    yield
    gc.collect()


@pytest.fixture
def link(tcp_link: LinkFactory, echo_server: EchoServer) -> Link:
    return tcp_link(echo_server.address)


def connect(link: Link) -> socket.socket:
    sock = socket.create_connection((link.host, link.port))
    sock.sendall(b"hello")
    assert sock.recv(16) == b"hello"
    return sock


@contextmanager
def rescued(link: Link, match: str = "did not notice") -> Iterator[None]:
    """The block inside must end in time; what a busy machine then takes to tell is its own."""
    with pytest.raises(ExpectationFailed, match=match):
        yield
    timeline = link.journal.records[-1].timeline
    ended = [each.at for each in timeline if each.kind == "watch_ended"]
    assert WITHIN_S < ended[-1] < PROMISE_S


def test_a_blocked_read_is_woken(link: Link) -> None:
    with (
        connect(link) as sock,
        rescued(link, "had to be woken"),
        detects_break(link, within=WITHIN_S),
    ):
        link.silent_drop()
        sock.recv(1)


def test_a_client_that_reconnects_silently_and_waits_again(link: Link) -> None:
    sock = connect(link)
    with rescued(link, "had to be woken"), detects_break(link, within=WITHIN_S):
        link.silent_drop()
        try:
            sock.recv(1)
        except OSError:
            sock.close()
            sock = connect(link)
            sock.recv(1)
    sock.close()


def retry_forever(link: Link, swallow: type[BaseException]) -> None:
    while True:
        try:
            with socket.create_connection((link.host, link.port)) as sock:
                sock.recv(1)
        except swallow:
            pass


@pytest.mark.parametrize("swallow", [OSError, Exception, BaseException])
def test_a_client_that_retries_for_ever(link: Link, swallow: type[BaseException]) -> None:
    with connect(link), rescued(link, "had to be woken"), detects_break(link, within=WITHIN_S):
        link.silent_drop()
        retry_forever(link, swallow)


def test_a_loop_in_the_block_itself_that_swallows_everything(link: Link) -> None:
    with connect(link), rescued(link, "had to be woken"), detects_break(link, within=WITHIN_S):
        link.silent_drop()
        while True:
            with suppress(BaseException):
                time.sleep(0.01)


def test_a_block_that_waits_for_a_thread(link: Link) -> None:
    sock = connect(link)

    def forever() -> None:
        try:
            while True:
                sock.recv(1)
        except OSError:
            over.wait()

    over = threading.Event()
    thread = threading.Thread(target=forever)
    thread.start()
    with rescued(link, "had to be woken"), detects_break(link, within=WITHIN_S):
        link.silent_drop()
        thread.join()
    over.set()
    thread.join()
    sock.close()


def test_a_block_in_another_thread(link: Link) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with connect(link), detects_break(link, within=WITHIN_S):
                link.silent_drop()
                retry_forever(link, Exception)
        except ExpectationFailed as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    begun = time.monotonic()
    thread.start()
    thread.join(PROMISE_S)
    assert not thread.is_alive()
    assert time.monotonic() - begun < PROMISE_S
    assert "had to be woken" in str(failures[0])


async def aio_connect(link: Link) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(link.host, link.port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    return reader, writer


def test_asyncio_a_read_is_woken(link: Link) -> None:
    async def main() -> None:
        reader, _ = await aio_connect(link)
        with detects_break(link, within=WITHIN_S):
            link.silent_drop()
            await reader.read(1)

    with rescued(link, "had to be woken"):
        asyncio.run(main())


@pytest.mark.parametrize("swallow", [OSError, Exception, BaseException])
def test_asyncio_a_client_that_retries_for_ever(link: Link, swallow: type[BaseException]) -> None:
    async def main() -> None:
        _pair = await aio_connect(link)
        with detects_break(link, within=WITHIN_S):
            link.silent_drop()
            while True:
                try:  # noqa: SIM105 - a with block would be left in another way
                    await asyncio.sleep(0.1)
                except swallow:
                    pass

    with rescued(link, "had to be woken"):
        asyncio.run(main())


def test_asyncio_a_block_that_blocks_its_loop(link: Link) -> None:
    async def main() -> None:
        _pair = await aio_connect(link)
        with detects_break(link, within=WITHIN_S):
            link.silent_drop()
            retry_forever(link, Exception)

    with rescued(link, "had to be woken"):
        asyncio.run(main())


def test_trio_a_read_is_woken(link: Link) -> None:
    async def main() -> None:
        stream = await trio.open_tcp_stream(link.host, link.port)
        await stream.send_all(b"hello")
        assert await stream.receive_some(16) == b"hello"
        with detects_break(link, within=WITHIN_S):
            link.silent_drop()
            await stream.receive_some(1)

    with rescued(link, "had to be woken"):
        trio.run(main)


@pytest.mark.parametrize("swallow", [OSError, Exception, BaseException])
def test_trio_a_client_that_retries_for_ever(link: Link, swallow: type[BaseException]) -> None:
    async def main() -> None:
        _stream = await trio.open_tcp_stream(link.host, link.port)
        with detects_break(link, within=WITHIN_S):
            link.silent_drop()
            while True:
                try:  # noqa: SIM105 - a with block would be left in another way
                    await trio.sleep(0.1)
                except swallow:
                    pass

    with rescued(link, "had to be woken"):
        trio.run(main)


def test_trio_a_block_that_blocks_its_loop(link: Link) -> None:
    async def main() -> None:
        _stream = await trio.open_tcp_stream(link.host, link.port)
        with detects_break(link, within=WITHIN_S):
            link.silent_drop()
            retry_forever(link, Exception)

    with rescued(link, "had to be woken"):
        trio.run(main)
