"""Each cause of the table, produced with real sockets, side by side."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from pytest_tcpresilience import (
    ExpectationFailed,
    Keepalive,
    Link,
    LinkFactory,
    Middlebox,
    detects_break,
)
from pytest_tcpresilience.evidence.diagnosis import CAUSES
from pytest_tcpresilience.expectations.monitor import LoopClock, Monitor
from tests.servers import EchoServer

pytestmark = [
    pytest.mark.resilience(slack=0.3),
    # A client that is interrupted in the middle of connecting drops its socket.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

FAST = Keepalive(idle=1, interval=1, probes=1)
SLOW = Keepalive(idle=30, interval=10, probes=3)
SOON = 0.3
# So many at a time: each block looks after its client's health, and is not to look after
# the others'.
SIDE_BY_SIDE = 8

Story = Callable[[Link, socket.socket], None]
STORIES: dict[str, Story] = {}
# These keep a CPU busy or need an event loop, so each has a test of its own below.
ALONE = {"spinning", "loop_blocked"}


def story(function: Story) -> Story:
    """A block in which the cause of that name keeps the client from noticing as promised."""
    STORIES[function.__name__] = function
    return function


def forever() -> None:
    """Wait as no client should. In steps, for only so can another thread be interrupted."""
    while True:
        time.sleep(0.01)


@contextmanager
def connected(link: Link, settings: Keepalive | None = None) -> Iterator[socket.socket]:
    with socket.create_connection((link.host, link.port)) as sock:
        if settings is not None:
            settings.apply(sock)
        sock.sendall(b"hello")
        assert sock.recv(16) == b"hello"
        yield sock


def pattern(name: str) -> str:
    """A cause's sentence, with anything in the places that are filled in."""
    (row,) = (row for row in CAUSES if row.name == name)
    pieces = re.split(r"\{\w+\}", row.why)
    return r".*".join(re.escape(piece) for piece in pieces)


# --- what the client's kernel was doing ---------------------------------------------------


@story
def keepalive_off(link: Link, sock: socket.socket) -> None:
    with detects_break(link, within=SOON):
        link.silent_drop()
        sock.recv(1)


@story
def keepalive_defaults(link: Link, sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with detects_break(link, within=SOON):
        link.silent_drop()
        sock.recv(1)


@story
def keepalive_too_slow(link: Link, sock: socket.socket) -> None:
    SLOW.apply(sock)
    with detects_break(link, within=SOON):
        link.silent_drop()
        sock.recv(1)


@story
def unacknowledged(link: Link, sock: socket.socket) -> None:
    FAST.apply(sock)
    with detects_break(link, within=SOON):
        link.silent_drop()
        sock.sendall(b"into the void")
        sock.recv(1)


@story
def user_timeout_too_long(link: Link, sock: socket.socket) -> None:
    Keepalive(idle=1, interval=1, probes=1, user_timeout=30.0).apply(sock)
    with detects_break(link, within=SOON):
        link.silent_drop()
        sock.sendall(b"into the void")
        sock.recv(1)


@story
def user_timeout_replaced_count(link: Link, sock: socket.socket) -> None:
    """The probe count says 2 s, and the user timeout makes 10 s of it."""
    Keepalive(idle=1, interval=1, probes=1, user_timeout=10.0).apply(sock)
    with detects_break(link, within=FAST):
        link.silent_drop()
        sock.recv(1)


@story
def zero_window(link: Link, sock: socket.socket) -> None:
    """Nobody reads at the other end, until all buffers between are full."""
    FAST.apply(sock)
    with detects_break(link, within=1.0):
        link.stall()
        sock.sendall(bytes(64 * 2**20))


@story
def nothing_to_wait_for(link: Link, sock: socket.socket) -> None:
    FAST.apply(sock)
    with detects_break(link, within=SOON):
        link.stop_reading()
        sock.sendall(b"a little")
        sock.recv(1)


@story
def forgotten_by_proxy(link: Link, sock: socket.socket) -> None:
    FAST.apply(sock)
    with detects_break(link, within=SOON):
        link.put_behind(Middlebox(0.2, then="drop", proxy=True))
        sock.recv(1)


@story
def forgotten_keepalive_off(link: Link, sock: socket.socket) -> None:
    with detects_break(link, within=SOON):
        link.put_behind(Middlebox(0.2, then="drop"))
        sock.recv(1)


@story
def forgotten(link: Link, sock: socket.socket) -> None:
    """The first probe is in time. The next comes after the interval, and so too late."""
    Keepalive(idle=1, interval=3, probes=1).apply(sock)
    with detects_break(link, within=SOON):
        link.put_behind(Middlebox(1.5, then="drop"))
        sock.recv(1)


# --- what the client did ------------------------------------------------------------------


@story
def told_but_silent(link: Link, sock: socket.socket) -> None:
    FAST.apply(sock)
    with detects_break(link, within=2.6):
        link.silent_drop()
        with contextlib.suppress(TimeoutError):
            sock.recv(1)
        forever()


@story
def own_timeout_late(link: Link, sock: socket.socket) -> None:
    sock.settimeout(SOON + 0.1)
    link.settings = replace(link.settings, slack=5.0)  # it ends by itself
    with detects_break(link, within=SOON):
        link.silent_drop()
        sock.recv(1)


@story
def own_timeout_early(link: Link, sock: socket.socket) -> None:
    FAST.apply(sock)
    sock.settimeout(0.2)
    with detects_break(link, within=FAST):
        link.silent_drop()
        sock.recv(1)


@story
def closed_by_client(link: Link, sock: socket.socket) -> None:
    with detects_break(link, within=SOON):
        link.silent_drop()
        sock.close()
        forever()


@story
def reconnected(link: Link, sock: socket.socket) -> None:
    with detects_break(link, within=SOON):
        link.reset()
        with contextlib.suppress(ConnectionResetError):
            sock.recv(1)
        with connected(link) as again:
            again.recv(1)


@story
def reconnected_ghost(link: Link, sock: socket.socket) -> None:
    """The client is back, and its server knows nothing of the break."""
    sock.settimeout(0.1)
    with detects_break(link, within=SOON):
        link.evict(then="drop")
        with contextlib.suppress(TimeoutError):
            sock.recv(1)
        with connected(link) as again:
            again.recv(1)


# --- what the fault was -------------------------------------------------------------------


@story
def stalled_peer(link: Link, sock: socket.socket) -> None:
    FAST.apply(sock)
    with detects_break(link, within=SOON):
        link.stall()
        sock.recv(1)


@story
def fin_unread(link: Link, sock: socket.socket) -> None:
    with detects_break(link, within=SOON):
        link.hang_up()
        forever()


@story
def reset_unread(link: Link, sock: socket.socket) -> None:
    with detects_break(link, within=SOON):
        link.reset()
        forever()


@story
def middlebox_shorter(link: Link, sock: socket.socket) -> None:
    """A box that forgets after 0.2 s, and a client that would have spoken after 1 s."""
    FAST.apply(sock)
    with detects_break(link, within=SOON):
        link.evict(when_idle=0.2)
        sock.recv(1)


@story
def evicted_noticed_by_reset(link: Link, sock: socket.socket) -> None:
    FAST.apply(sock)
    with detects_break(link, within=FAST, raises=TimeoutError):
        link.evict()
        sock.recv(1)


@story
def evicted_swallowed(link: Link, sock: socket.socket) -> None:
    FAST.apply(sock)
    with detects_break(link, within=1.5):
        link.evict()
        with contextlib.suppress(ConnectionResetError):
            sock.recv(1)
        forever()


@story
def evicted_keepalive_off(link: Link, sock: socket.socket) -> None:
    with detects_break(link, within=SOON):
        link.evict()
        sock.recv(1)


@story
def evicted_quiet(link: Link, sock: socket.socket) -> None:
    SLOW.apply(sock)
    with detects_break(link, within=SOON):
        link.evict()
        sock.recv(1)


@story
def connect_unanswered(link: Link, sock: socket.socket) -> None:
    with detects_break(link, within=SOON):
        link.ignore_connections()
        with contextlib.suppress(OSError), socket.socket() as other:
            other.connect((link.host, link.port))
        forever()


@story
def connect_refused(link: Link, sock: socket.socket) -> None:
    with detects_break(link, within=SOON):
        link.refuse_connections()
        while True:
            with contextlib.suppress(OSError), socket.socket() as other:
                other.connect((link.host, link.port))
            time.sleep(0.02)


# --- the tests ----------------------------------------------------------------------------


def told(name: str, link: Link) -> str:
    """What the user reads."""
    try:
        with connected(link) as sock:
            STORIES[name](link, sock)
    except ExpectationFailed as error:
        return str(error)
    return "the expectation was met"


def test_each_cause_is_found_for_real(tcp_link: LinkFactory, echo_server: EchoServer) -> None:
    links = {name: tcp_link(echo_server.address) for name in STORIES}
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        texts = dict(zip(links, pool.map(told, links, links.values()), strict=True))
    wrong = {
        name: text for name, text in texts.items() if not re.search(f"why: {pattern(name)}\n", text)
    }
    assert not wrong, "\n\n".join(f"--- {name}\n{text}" for name, text in wrong.items())


def test_every_cause_has_a_story() -> None:
    assert STORIES.keys() | ALONE == {row.name for row in CAUSES}


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Have the dropped sockets collected while their warnings are still ignored."""
    yield
    gc.collect()


@pytest.fixture
def silent_link(tcp_link: LinkFactory) -> Iterator[Link]:
    """To a server that has no thread in this process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield tcp_link(server.getsockname())


@pytest.fixture
def link(tcp_link: LinkFactory, echo_server: EchoServer) -> Link:
    return tcp_link(echo_server.address)


def test_a_client_that_takes_etimedout_for_a_polls_timeout_spins(link: Link) -> None:
    """The socket is dead, so each read returns at once, and the client asks again."""
    with (
        pytest.raises(ExpectationFailed, match=f"why: {pattern('spinning')}\n") as caught,
        connected(link, FAST) as sock,
        # It spins for 2 s, of which a busy host may take a part from this process.
        detects_break(link, within=4.0),
    ):
        link.silent_drop()
        data = b""
        while not data:
            with contextlib.suppress(TimeoutError):  # "nothing yet"
                data = sock.recv(1)
    # 2 s after its last byte, which came a little before the fault.
    assert re.search(
        r"after its kernel had given the connection up [12]\.\d\d s", str(caught.value)
    )
    assert "leave it at any error other than EAGAIN" in str(caught.value)


SPINNER = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
sock.setblocking(False)
print("connected", flush=True)
while True:
    try:
        sock.recv(1)
    except BlockingIOError:
        pass
    except OSError:
        break
sys.stdin.read()
"""


def test_a_child_that_spins(link: Link) -> None:
    """As a client in another process, or another language, would."""
    command = [sys.executable, "-c", SPINNER, link.host, str(link.port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with (
            pytest.raises(ExpectationFailed, match=f"why: {pattern('spinning')}\n"),
            detects_break(link, within=2.0) as detection,
        ):
            link.silent_drop()
            detection.wait()


def test_a_blocked_event_loop(link: Link) -> None:
    async def main() -> None:
        reader, _writer = await asyncio.open_connection(link.host, link.port)
        with detects_break(link, within=0.8):
            link.stall()
            asyncio.get_running_loop().call_later(0.3, time.sleep, 1.0)
            await reader.readexactly(1)

    with pytest.raises(ExpectationFailed, match=f"why: {pattern('loop_blocked')}\n") as caught:
        asyncio.run(main())
    # It was asked each 0.05 s, and the last time before it was blocked in vain.
    begun = re.search(r"from ([0-9.]+) s after the fault on", str(caught.value))
    assert begun is not None
    assert float(begun[1]) >= 0.2


# --- health, where nothing is wrong -------------------------------------------------------


def test_a_client_that_waits_is_idle(silent_link: Link) -> None:
    link = silent_link
    with (
        socket.create_connection((link.host, link.port)) as sock,
        detects_break(link, within=1.0) as detection,
    ):
        link.reset(after=0.5)
        sock.recv(1)
    health = detection.health
    assert health.seconds > 0.4
    assert health.busy < 0.5
    assert health.cpu <= health.seconds
    assert (health.loop_lag, health.threads, health.descriptors) == (None, 0, 0)


def test_a_monitor_that_cannot_start_leaves_no_watch_behind(
    silent_link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = silent_link
    with (
        monkeypatch.context() as patched,
        pytest.raises(RuntimeError, match="no more threads"),
    ):
        patched.setattr(Monitor, "start", _no_more_threads)
        with detects_break(link, within=0.5):
            pass
    with (
        socket.create_connection((link.host, link.port)) as sock,
        detects_break(link, within=1.0),
    ):
        link.reset()
        sock.recv(1)


def _no_more_threads(_monitor: Monitor) -> None:
    raise RuntimeError("no more threads")


def test_what_is_left_behind_is_counted(silent_link: Link) -> None:
    link = silent_link
    over = threading.Event()
    kept = [threading.Thread(target=over.wait) for _ in range(2)]
    with (
        socket.create_connection((link.host, link.port)) as sock,
        detects_break(link, within=0.5) as detection,
    ):
        link.reset()
        for thread in kept:
            thread.start()
        pair = socket.socketpair()
        sock.recv(1)
    over.set()
    for thread in kept:
        thread.join()
    for end in pair:
        end.close()
    assert (detection.health.threads, detection.health.descriptors) == (2, 2)


def test_the_lag_of_a_loop_is_measured(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    ask, asked = LoopClock.ask, threading.Event()
    clocks: list[LoopClock] = []

    def ask_and_tell(clock: LoopClock) -> None:
        ask(clock)
        clocks.append(clock)
        asked.set()

    def be_busy() -> None:
        # The loop answers nothing from here on; one of its last answers may still be told of.
        while not (clocks and clocks[0]._asked_at):
            asked.wait()
            asked.clear()
        time.sleep(0.25)

    monkeypatch.setattr(LoopClock, "ask", ask_and_tell)

    async def main() -> float | None:
        reader, writer = await asyncio.open_connection(link.host, link.port)
        with detects_break(link, within=1.0, raises=ConnectionError) as detection:
            link.reset(after=0.5)
            asyncio.get_running_loop().call_later(0.1, be_busy)
            await reader.readexactly(1)
        writer.close()
        return detection.health.loop_lag

    lag = asyncio.run(main())
    assert lag is not None
    assert lag >= 0.25
