"""A link without faults is a TCP connection: generated scripts against a model.

The model says what each end reads: every byte in order, and how the stream ends. The same
scripts run over a direct connection, where the kernel proves the model.

A reset may cost bytes that are still on their way, on a direct connection too, so the model
wants a beginning of what was sent, and all that had been waited for.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pytest_tcpresilience.control import Engine
from tests.contract.peers import WAIT_S, RawServer, close_with_reset

Side = Literal["client", "server"]
SIDES: tuple[Side, Side] = ("client", "server")
# What one end takes while it does not read. What each side sends is more than all buffers
# on the way, and never the same.
BUFFER = 64 * 1024
PATTERN = b"".join(number.to_bytes(4, "big") for number in range(1 << 22))

# A socket that takes nothing for so long.
FULL_AFTER_S = 0.010
# Nothing comes for so long: more than any retransmission here takes, and short enough for
# the search for a smaller script that fails.
MISSING_AFTER_S = 3.0
# The toxics that lose nothing, each quick enough for hundreds of scripts.
TOXICS: dict[str, dict[str, int]] = {
    "latency": {"latency": 12, "jitter": 12},
    "slicer": {"average_size": 700, "size_variation": 300, "delay": 10},
    "bandwidth": {"rate": 200_000},
    "slow_close": {"delay": 3},
    "limit_data": {"bytes": len(PATTERN) * 2},
}


class Send(NamedTuple):
    """As much as is taken until all buffers are full."""

    side: Side
    size: int


class Read(NamedTuple):
    side: Side
    size: int


class Settle(NamedTuple):
    """Both sides read until all has arrived that was sent."""


class Fin(NamedTuple):
    side: Side


class Reset(NamedTuple):
    side: Side


class Toxic(NamedTuple):
    """Added, changed if it is there, or removed."""

    type: str
    stream: str
    remove: bool


class Hold(NamedTuple):
    """A stall or a silent drop for as long as the next step takes."""

    type: str


Step = Send | Read | Settle | Fin | Reset | Toxic | Hold

sides = st.sampled_from(SIDES)
# The largest is more than the kernels between the two ends take.
sizes = st.integers(1, 300_000) | st.integers(1, 3) | st.just(6_000_000)
traffic = st.one_of(st.builds(Send, sides, sizes), st.builds(Read, sides, sizes), st.just(Settle()))
toxics = st.builds(
    Toxic, st.sampled_from(list(TOXICS)), st.sampled_from(["upstream", "downstream"]), st.booleans()
)
endings = st.builds(Fin, sides) | st.builds(Reset, sides)
scripts = st.lists(traffic | traffic | toxics | endings | st.just(Hold("stall")), max_size=14)


@dataclass
class End:
    """One end of the connection, and what the model knows of it."""

    sock: socket.socket
    sent: int = 0
    got: bytearray = field(default_factory=bytearray)
    sure: int = 0  # bytes that are known to have arrived
    finished: bool = False
    reset: bool = False
    ended: str = ""
    told: bool = False  # by a write that failed; a read then says EOF

    def read(self, size: int) -> bool:
        """Whether anything came: bytes, or the end."""
        if self.ended or self.reset:
            return False
        try:
            data = self.sock.recv(size)
        except BlockingIOError:
            return False
        except OSError as error:
            self.ended = errno.errorcode[error.errno or 0]
            return True
        self.got += data
        self.ended = "" if data else "EOF"
        return True


class Play:
    """A script on a connection, with the model of it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.ends: dict[Side, End] = {"client": End(client), "server": End(server)}
        for end in self.ends.values():
            end.sock.setblocking(False)

    def other(self, side: Side) -> End:
        return self.ends["server" if side == "client" else "client"]

    @property
    def broken(self) -> bool:
        return any(end.reset for end in self.ends.values())

    def step(self, step: Step) -> None:
        if isinstance(step, Settle):
            self.settle()
        elif isinstance(step, Send):
            self.send(self.ends[step.side], step.size)
        elif isinstance(step, Read):
            self.ends[step.side].read(step.size)
        elif isinstance(step, Fin):
            self.finish(self.ends[step.side])
        elif isinstance(step, Reset) and not self.broken:
            self.ends[step.side].reset = True
            close_with_reset(self.ends[step.side].sock)

    @staticmethod
    def send(end: End, size: int) -> None:
        if end.finished or end.reset:
            return
        try:
            until = end.sent + size
            while end.sent < until and select.select([], [end.sock], [], FULL_AFTER_S)[1]:
                end.sent += end.sock.send(PATTERN[end.sent : until])
        except ConnectionError:
            end.told = True

    def finish(self, end: End) -> None:
        if not end.finished and not end.reset:
            end.finished = True
            with contextlib.suppress(OSError):  # the other side has reset
                end.sock.shutdown(socket.SHUT_WR)

    def settle(self) -> None:
        if self.broken:
            return
        self.read_until(lambda: all(len(self.other(s).got) == self.ends[s].sent for s in SIDES))
        for end in self.ends.values():
            end.sure = len(end.got)

    def read_until(self, done: Callable[[], bool]) -> None:
        came_at = time.monotonic()
        while not done():
            assert time.monotonic() < came_at + MISSING_AFTER_S, "bytes or ends are missing"
            waiting = [end.sock for end in self.ends.values() if not (end.ended or end.reset)]
            select.select(waiting, [], [], 0.5)
            came = [end.read(1 << 20) for end in self.ends.values()]
            if any(came):
                came_at = time.monotonic()

    def check(self) -> None:
        """Both ends finish; whatever is on its way arrives."""
        for end in self.ends.values():
            self.finish(end)
        self.read_until(lambda: all(end.ended or end.reset for end in self.ends.values()))
        for side, end in self.ends.items():
            sender = self.other(side)
            assert end.got == PATTERN[: len(end.got)], "out of order, or invented"
            assert len(end.got) <= sender.sent
            assert len(end.got) >= end.sure
            if end.reset:
                continue
            if sender.reset and not sender.finished:
                assert end.told or end.ended == "ECONNRESET"
            elif not sender.reset:
                assert (len(end.got), end.ended) == (sender.sent, "EOF")


def narrow_server() -> RawServer:
    server = RawServer("127.0.0.1")
    # Inherited by what it accepts. The usual megabytes would hold a whole script, and
    # nothing would ever have to wait in the engine.
    server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    return server


def narrow_client(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    sock.settimeout(WAIT_S)
    sock.connect(address)
    return sock


@contextlib.contextmanager
def direct() -> Iterator[Play]:
    server = narrow_server()
    with contextlib.closing(server), narrow_client(server.address) as client:
        yield Play(client, server.accept())


_numbers = itertools.count()


class Line:
    """A proxy of the engine for one script."""

    def __init__(self, engine: Engine, upstream: str) -> None:
        self.engine = engine
        self.name = f"faithful-{next(_numbers)}"
        proxy = engine.call("POST", "/proxies", {"name": self.name, "upstream": upstream})
        host, _, port = proxy["listen"].rpartition(":")
        self.address = (host, int(port))
        self.toxics: set[str] = set()
        self.held = ""

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return self.engine.call(method, f"/proxies/{self.name}/toxics{path}", body)

    def lift(self) -> None:
        if self.held:
            self.call("DELETE", f"/{self.held}")
        self.held = ""

    def step(self, step: Step) -> None:
        if isinstance(step, Hold):
            self.held = step.type
            self.call("POST", "", {"name": step.type, "type": step.type})
        elif isinstance(step, Toxic):
            name = f"{step.type}_{step.stream}"
            if step.remove and name in self.toxics:
                self.toxics.remove(name)
                self.call("DELETE", f"/{name}")
            elif not step.remove:
                body = {"type": step.type, "stream": step.stream, "attributes": TOXICS[step.type]}
                new = name not in self.toxics
                self.call("POST", "" if new else f"/{name}", body)
                self.toxics.add(name)


def play_on_a_link(engine: Engine, script: list[Step]) -> None:
    server = narrow_server()
    line = Line(engine, f"127.0.0.1:{server.port}")
    with contextlib.closing(server), narrow_client(line.address) as client:
        play = Play(client, server.accept())
        for step in script:
            held = line.held
            # Nothing arrives while it is held, and a reset would be lost in silence.
            waits = isinstance(step, Settle) or (isinstance(step, Reset) and held == "silent_drop")
            if not held or not waits:
                if not held:
                    line.step(step)
                play.step(step)
            if held:
                line.lift()
        line.lift()
        play.check()
    events = engine.call("GET", f"/resilience/proxies/{line.name}/events")
    engine.call("DELETE", f"/proxies/{line.name}")
    assert not [event for event in events if event["kind"] == "internal_error"]


quickly = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(quickly, max_examples=100)
@given(script=scripts)
def test_the_model_is_what_a_direct_connection_does(script: list[Step]) -> None:
    with direct() as play:
        for step in script:
            play.step(step)
        play.check()


# What waits in the engine when a toxic goes must not be overtaken.
OVERTAKEN: list[Step] = [
    Toxic("bandwidth", "upstream", remove=False),
    Send("client", 6_000_000),
    Toxic("bandwidth", "upstream", remove=True),
    Send("client", 6_000_000),
    Settle(),
]


@settings(quickly, max_examples=120)
@example(script=OVERTAKEN)
@given(script=scripts)
def test_a_link_is_as_faithful_as_a_direct_connection(engine: Engine, script: list[Step]) -> None:
    play_on_a_link(engine, script)


@settings(quickly, max_examples=6)
@given(
    script=st.lists(traffic | toxics, max_size=6), ending=st.lists(traffic | endings, max_size=4)
)
def test_a_silent_drop_that_is_lifted_costs_nothing(
    engine: Engine, script: list[Step], ending: list[Step]
) -> None:
    """Few of them: what was sent in silence comes with the next retransmission."""
    play_on_a_link(engine, [*script, Hold("silent_drop"), *ending])


@pytest.mark.parametrize("side", SIDES)
def test_the_model_can_fail(side: Side) -> None:
    """A byte too few, one that was not sent, and an end of the wrong kind."""
    with direct() as play:
        end = play.ends[side]
        play.send(play.other(side), 5)
        play.settle()
        end.got[2] ^= 1
        with pytest.raises(AssertionError, match="out of order"):
            play.check()
        end.got[2] ^= 1
        del end.got[-1]
        with pytest.raises(AssertionError):
            play.check()
    with direct() as play:
        play.other(side).reset = True
        play.other(side).sock.close()  # FIN, where the model has a reset
        with pytest.raises(AssertionError):
            play.check()
