"""How bytes cross unshaped: each path, forced, and every change from one to another."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import trio

from pytest_tcpresilience.engine import pipes, way
from pytest_tcpresilience.engine.carrier import Carrier, Ride
from pytest_tcpresilience.engine.legs import Leg, Side
from pytest_tcpresilience.engine.pipes import Pipe, Pipes
from pytest_tcpresilience.engine.toxics import Stream
from pytest_tcpresilience.engine.way import Broken, Halt, Kit, Way
from tests.contract.peers import WAIT_S, Pair, close_with_reset, receive_all, send_in_chunks

MEGABYTE = 1024 * 1024


class Lender(Pipes):
    """Counts how often a pipe was lent."""

    lent = 0

    def borrow(self) -> Pipe | None:
        pipe = super().borrow()
        self.lent += pipe is not None
        return pipe


@dataclass
class Counts:
    """An owner of ways."""

    read: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)

    def moved(self, stream: Stream, count: int) -> None:
        self.read[stream] += count

    def sent(self, stream: Stream, count: int) -> None:
        self.written[stream] += count


@dataclass
class Crossing:
    """A connection without an engine: both ends, and the legs between them."""

    pair: Pair
    ways: tuple[Way, Way]
    counts: Counts

    def close(self) -> None:
        for sock in (*self.pair.ends, self.ways[0].source.sock, self.ways[1].source.sock):
            sock.close()


def _connected(side: Side) -> tuple[socket.socket, Leg]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        end = socket.create_connection(listener.getsockname(), timeout=WAIT_S)
        sock, _ = listener.accept()
    sock.setblocking(False)
    return end, Leg(side, sock, "127.0.0.1")


@pytest.fixture
def crossing() -> Iterator[Crossing]:
    client, client_leg = _connected("client")
    server, upstream_leg = _connected("upstream")
    counts = Counts()
    ways = (
        Way(counts, "upstream", client_leg, upstream_leg),
        Way(counts, "downstream", upstream_leg, client_leg),
    )
    made = Crossing(Pair(client, server), ways, counts)
    yield made
    made.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def _no_splice(source: int, target: int, count: int) -> int:
    raise OSError(errno.EINVAL, "not here")


_splice = way._splice


def _no_splice_to_a_socket(source: int, target: int, count: int) -> int:
    """As where a sandbox lets half of it pass: the bytes are in the pipe then."""
    if os.readlink(f"/proc/self/fd/{source}").startswith("pipe:"):
        return _no_splice(source, target, count)
    return _splice(source, target, count)


def _no_growth(write_end: int) -> int:
    """As for an unprivileged user who has many pipes, but not too many."""
    return pipes.LEAST_PIPE_BYTES


# How the bytes cross, with whether pipes are lent for it.
PATHS: dict[str, tuple[Callable[[], Lender], Callable[[int, int, int], int], bool]] = {
    "spliced": (Lender, _splice, True),
    "spliced through small pipes": (lambda: Lender(grow=_no_growth), _splice, True),
    "no pipe that is large enough": (lambda: Lender(grow=lambda end: 8192), _splice, False),
    "no splice on this platform": (lambda: Lender(available=False), _splice, False),
    "splice refused": (Lender, _no_splice, True),
    "splice refused half-way": (Lender, _no_splice_to_a_socket, True),
}


@pytest.fixture(params=list(PATHS))
def lender(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Lender:
    make, splice, _ = PATHS[request.param]
    monkeypatch.setattr(way, "_splice", splice)
    return make()


def _exchange(crossing: Crossing, pool: ThreadPoolExecutor, size: int) -> list[Future[bool]]:
    """Random bytes in both directions at once; whether they arrive as they were sent."""
    payloads = [random.Random(seed).randbytes(size) for seed in (1, 2)]

    def send(sock: socket.socket, payload: bytes) -> None:
        send_in_chunks(sock, payload, len(payload))
        sock.shutdown(socket.SHUT_WR)

    def arrives(sock: socket.socket, payload: bytes) -> bool:
        found = receive_all(sock)
        return hashlib.sha256(found).digest() == hashlib.sha256(payload).digest()

    for sock, payload in zip(crossing.pair.ends, payloads, strict=True):
        pool.submit(send, sock, payload)
    ends = zip(crossing.pair.ends[::-1], payloads, strict=True)
    return [pool.submit(arrives, sock, payload) for sock, payload in ends]


def _carried(
    crossing: Crossing,
    kit: Kit,
    meanwhile: Callable[[Carrier, Ride], Ride] = lambda carrier, ride: ride,
) -> Exception | None:
    """Carry until the end of both streams. How it failed, if it did.

    :param meanwhile: called again and again; returns the ride that goes on.
    """

    async def main() -> Exception | None:
        carrier = Carrier(kit)
        done = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(carrier.run)
            ride = carrier.take(crossing.ways, lambda ride: done.set())
            with trio.fail_after(WAIT_S):
                while not done.is_set():
                    await trio.sleep(0.001)
                    if not done.is_set():
                        ride = meanwhile(carrier, ride)
            nursery.cancel_scope.cancel()
        carrier.close()
        return ride.failure

    return trio.run(main)


# --- each path ---------------------------------------------------------------------------


def test_bytes_cross_in_both_directions_on_every_path(
    crossing: Crossing, pool: ThreadPoolExecutor, lender: Lender, request: pytest.FixtureRequest
) -> None:
    arrived = _exchange(crossing, pool, 8 * MEGABYTE)
    assert _carried(crossing, Kit(lender)) is None
    assert [each.result() for each in arrived] == [True, True]
    size = 8 * MEGABYTE
    assert crossing.counts.read == crossing.counts.written == {"upstream": size, "downstream": size}
    lends = PATHS[request.node.callspec.params["lender"]][2]
    assert bool(lender.lent) is lends


def test_bytes_survive_dismissals_in_mid_transfer_on_every_path(
    crossing: Crossing, pool: ThreadPoolExecutor, lender: Lender
) -> None:
    def swap(carrier: Carrier, ride: Ride) -> Ride:
        carrier.dismiss(ride)
        for each in crossing.ways:  # as the connection's own task does it, a little
            if each.left:
                each.flush_left(1000)
        return carrier.take(crossing.ways, ride.done)

    arrived = _exchange(crossing, pool, 8 * MEGABYTE)
    assert _carried(crossing, Kit(lender), swap) is None
    assert [each.result() for each in arrived] == [True, True]


def test_small_messages_borrow_no_pipe(crossing: Crossing) -> None:
    lender = Lender()
    kit = Kit(lender)
    for _ in range(20):
        crossing.pair.client.sendall(b"x" * 1000)
        while crossing.ways[0].carry(kit) is not Halt.DRAINED:
            pass
    assert lender.lent == 0


PAYLOAD = random.Random(3).randbytes(16 * MEGABYTE)


def _filled(crossing: Crossing, pool: ThreadPoolExecutor, kit: Kit) -> Future[bytes]:
    """Send much, and hold the receiver up until something is left behind in a pipe.

    :returns: what the receiver gets in the end.
    """

    def send() -> None:
        crossing.pair.client.sendall(PAYLOAD)
        crossing.pair.client.shutdown(socket.SHUT_WR)

    pool.submit(send)
    one = crossing.ways[0]
    received = bytearray()
    while not one._piped:
        # What is left of a read into the buffer is sent first, for which there must be room.
        if one.carry(kit) is Halt.BLOCKED and not one._piped:
            received += crossing.pair.server.recv(MEGABYTE)
    return pool.submit(lambda: bytes(received) + receive_all(crossing.pair.server))


def test_what_is_in_a_pipe_comes_before_what_comes_later(
    crossing: Crossing, pool: ThreadPoolExecutor
) -> None:
    kit = Kit()
    one = crossing.ways[0]
    arrived = _filled(crossing, pool, kit)
    held = one._piped
    one.settle(kit)
    assert len(one.left) == held > 0
    while not one.ended:
        one.carry(kit)
    assert arrived.result() == PAYLOAD


def test_an_idle_way_has_no_pipe(crossing: Crossing, pool: ThreadPoolExecutor) -> None:
    kit = Kit()
    arrived = _filled(crossing, pool, kit)
    while not crossing.ways[0].ended:
        crossing.ways[0].carry(kit)
    assert arrived.result() == PAYLOAD
    assert crossing.ways[0]._pipe is None
    assert not crossing.ways[0].pending


# --- ends --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["client", "server"])
def test_a_reset_is_told_with_the_leg_that_it_came_from(crossing: Crossing, end: str) -> None:
    close_with_reset(getattr(crossing.pair, end))
    failure = _carried(crossing, Kit())
    assert isinstance(failure, Broken)
    assert failure.leg.side == ("client" if end == "client" else "upstream")
    assert failure.error.errno == errno.ECONNRESET


def test_an_error_that_no_read_would_tell_ends_the_ride(crossing: Crossing) -> None:
    """What it means is said by whoever has the connection then."""
    crossing.pair.client.shutdown(socket.SHUT_WR)

    def reset(carrier: Carrier, ride: Ride) -> Ride:
        if crossing.ways[0].ended and crossing.pair.client.fileno() >= 0:
            close_with_reset(crossing.pair.client)
        return ride

    assert _carried(crossing, Kit(), reset) is None
    assert [way.ended for way in crossing.ways] == [True, False]


def test_an_error_behind_what_does_not_fit_ends_the_ride(crossing: Crossing) -> None:
    client = crossing.pair.client
    client.setblocking(False)

    def fill_and_reset(carrier: Carrier, ride: Ride) -> Ride:
        if client.fileno() >= 0:
            try:
                client.send(bytes(MEGABYTE))
            except BlockingIOError:
                if crossing.ways[0].pending:
                    close_with_reset(client)
        return ride

    assert _carried(crossing, Kit(), fill_and_reset) is None
    assert not crossing.ways[0].ended
    assert crossing.ways[0].left


def test_a_mistake_in_one_connection_is_that_connections(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(stream: Stream, count: int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(crossing.counts, "moved", mistaken)
    crossing.pair.client.sendall(b"x")
    assert isinstance(_carried(crossing, Kit()), ZeroDivisionError)


class Tireless(Way):
    """Has more to carry whenever it is asked, for a while."""

    until = 0.0

    def carry(self, kit: Kit) -> Halt:
        self.ended = time.monotonic() > self.until
        return Halt.ENDED if self.ended else Halt.TIRED


def test_others_have_their_turn_while_there_is_always_more_to_carry(crossing: Crossing) -> None:
    ways = [
        Tireless(crossing.counts, each.stream, each.source, each.sink) for each in crossing.ways
    ]

    async def main() -> None:
        carrier = Carrier()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(carrier.run)
            for way in ways:
                way.until = time.monotonic() + 1.0
            carrier.take((ways[0], ways[1]), lambda ride: None)
            for _ in range(10):
                await trio.lowlevel.checkpoint()
            assert not ways[0].ended, "it has carried to the end in one go"
            nursery.cancel_scope.cancel()
        carrier.close()

    trio.run(main)


def test_a_dismissed_connection_is_left_alone(crossing: Crossing) -> None:
    async def main() -> None:
        carrier = Carrier()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(carrier.run)
            ride = carrier.take(crossing.ways, lambda ride: None)
            carrier.dismiss(ride)
            carrier.dismiss(ride)
            crossing.pair.client.sendall(b"x")
            with trio.move_on_after(0.05):
                await trio.lowlevel.wait_readable(crossing.pair.server)
                pytest.fail("something came")
            nursery.cancel_scope.cancel()
        carrier.close()
        with pytest.raises(OSError, match="closed"):
            carrier.take(crossing.ways, lambda ride: None)

    trio.run(main)


# --- pipes -------------------------------------------------------------------------------


def test_pipes_are_lent_again_and_few_are_kept() -> None:
    lender = Pipes()
    lent = [lender.borrow() for _ in range(pipes.SPARE + 2)]
    for pipe in lent:
        assert pipe is not None
        lender.give_back(pipe)
    kept = {lender.borrow() for _ in range(pipes.SPARE)}
    assert kept <= set(lent)
    for pipe in kept:
        assert pipe is not None
        assert pipes.grow(pipe.write_end) >= pipes.LEAST_PIPE_BYTES
        lender.give_back(pipe)
    lender.close()


def test_where_no_pipe_is_to_be_had_the_kernel_is_not_asked_each_time() -> None:
    asked: list[int] = []

    def grow(write_end: int) -> int:
        asked.append(write_end)
        return 8192

    lender = Pipes(grow=grow)
    assert [lender.borrow() for _ in range(5)] == [None] * 5
    assert len(asked) == 1


def test_pipes_that_were_given_up_are_lent_no_more() -> None:
    lender = Pipes()
    pipe = lender.borrow()
    assert pipe is not None
    lender.give_up()
    assert lender.borrow() is None
    lender.give_back(pipe)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pipe.read_end)


# Opens pipes as an unprivileged user, who may have 64 large ones at most, until borrowing
# one more fails or gives a small one; prints what was lent last.
_UNPRIVILEGED = """
import fcntl, os
from pytest_tcpresilience.engine import pipes
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
lender = pipes.Pipes()
for count in range(200):
    pipe = lender.borrow()
    if pipe is None:
        print("none", flush=True)
        break
    size = pipes.grow(pipe.write_end)
    if size < pipes.PIPE_BYTES:
        print(size, flush=True)
        break
else:
    print("no limit")
"""


@pytest.mark.skipif(os.name != "posix", reason="pipes of Linux")
def test_an_unprivileged_user_gets_no_pipe_that_is_too_small() -> None:
    try:
        found = subprocess.run(
            [sys.executable, "-c", _UNPRIVILEGED],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=True,
        )
    except FileNotFoundError:
        pytest.skip("no subprocess here")
    last = found.stdout.strip()
    if last == "no limit":
        pytest.skip("pipe-user-pages-soft is raised or off here")
    assert last == "none" or int(last) >= pipes.LEAST_PIPE_BYTES
