"""What holds for every connection, whatever the network does to it.

Hypothesis writes a script: who writes, reads, shuts down and closes, and when the cable is
pulled, a firewall forgets, segments get lost or overtake each other. A script that breaks a
rule is shrunk and printed with the trace of its segments.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from hypothesis import given, note, settings
from hypothesis import strategies as st

from pytest_tcpresilience.tcp.middleboxes import EVICTION_MODES, Middlebox
from pytest_tcpresilience.tcp.stacks import stack_named
from pytest_tcpresilience.virtual.host import Endpoint
from pytest_tcpresilience.virtual.states import State
from pytest_tcpresilience.virtual.timers import Options
from tests.virtual.invariants import check_numbers
from tests.virtual.wire import Wire, connect

SIDES = ("client", "server")
OPEN = frozenset({State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.FIN_WAIT_2})


@dataclass
class Application:
    """One end's program: what it wrote, what it read, and whether it is through."""

    end: Endpoint
    salt: int
    written: bytearray = field(default_factory=bytearray)
    read: bytearray = field(default_factory=bytearray)
    shut: bool = False
    closed: bool = False

    def write(self, count: int) -> None:
        if self.end.machine.writable and not self.shut and not self.closed:
            start = len(self.written)
            data = bytes((self.salt + 7 * n + n // 251) % 256 for n in range(start, start + count))
            self.written += data[: self.end.write(data)]

    def receive(self, most: int) -> None:
        if not self.closed:
            self.read += self.end.read(most)

    def shutdown(self) -> None:
        if not self.shut and not self.closed and self.end.machine.state in OPEN:
            self.shut = True
            self.end.shutdown()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.end.close()


class Script:
    """Plays steps on a connection."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.client = Application(wire.client, 1)
        self.server = Application(wire.server, 100)

    def play(self, step: tuple[str, str, int]) -> None:
        verb, who, amount = step
        application = self.client if who == "client" else self.server
        if verb == "write":
            application.write(amount)
        elif verb == "read":
            application.receive(amount)
        elif verb == "shutdown":
            application.shutdown()
        elif verb == "close":
            application.close()
        elif verb == "unplug":
            self.wire.path.unplug(unreachable=who == "client")
        elif verb == "plug":
            self.wire.path.plug()
        self.wire.run(amount / 1000)
        self.check()

    def check(self) -> None:
        """Not a byte is invented, reordered, or seen twice."""
        assert self.server.written.startswith(self.client.read)
        assert self.client.written.startswith(self.server.read)

    def drain(self, seconds: float) -> None:
        """Both go on reading for so long."""
        for _ in range(200):
            self.client.receive(100_000)
            self.server.receive(100_000)
            self.wire.run(seconds / 200)
        self.client.receive(100_000)
        self.server.receive(100_000)
        self.check()


AMOUNTS = st.one_of(st.integers(1, 3000), st.integers(1, 70_000))
TALK = st.tuples(
    st.sampled_from(["write", "write", "read", "wait"]), st.sampled_from(SIDES), AMOUNTS
)
ENDING = st.tuples(st.sampled_from(["shutdown", "close"]), st.sampled_from(SIDES), AMOUNTS)
TROUBLE = st.tuples(st.sampled_from(["unplug", "plug", "plug"]), st.sampled_from(SIDES), AMOUNTS)
STACKS = st.sampled_from(["linux", "aix", "freebsd"])


def played(wire: Wire, steps: list[tuple[str, str, int]]) -> Script:
    script = Script(wire)
    for step in steps:
        script.play(step)
    return script


class _Showing:
    """Prints the trace of an example that fails."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            note(self._wire.network.trace.text())


@settings(deadline=None)
@given(
    steps=st.lists(TALK, max_size=20),
    loss=st.floats(0, 0.3),
    jitter=st.floats(0, 0.05),
    seed=st.integers(0, 2**32),
    stack=STACKS,
)
def test_nothing_is_lost_by_a_lossy_network(
    steps: list[tuple[str, str, int]], loss: float, jitter: float, seed: int, stack: str
) -> None:
    """Loss, delay and reordering are what TCP is there for."""
    wire = connect(
        server_stack=stack_named(stack), seed=seed, loss=loss, jitter=jitter, latency=0.001
    )
    with _Showing(wire):
        script = played(wire, steps)
        wire.path.loss = 0.0
        script.client.shutdown()
        script.server.shutdown()
        script.drain(4000)
        assert script.client.read == script.server.written
        assert script.server.read == script.client.written
        script.client.close()
        script.server.close()
        wire.run(1000)
        assert wire.network.endpoints == []
        assert (wire.client.machine.error, wire.server.machine.error) == (0, 0)
        check_numbers(wire.network.trace)


@settings(deadline=None)
@given(
    steps=st.lists(st.one_of(TALK, TROUBLE, ENDING), max_size=25),
    loss=st.floats(0, 0.2),
    seed=st.integers(0, 2**32),
    box=st.one_of(
        st.none(),
        st.tuples(st.floats(0.05, 20), st.sampled_from(EVICTION_MODES)),
    ),
    keepalive=st.booleans(),
)
def test_every_connection_ends(
    steps: list[tuple[str, str, int]],
    loss: float,
    seed: int,
    box: tuple[float, str] | None,
    keepalive: bool,
) -> None:
    """Whatever happens, no end stays: both close in the end, or keepalive finds out."""
    options = Options(keepalive, 10, 5, 3)
    boxes = [Middlebox(*box)] if box else []
    wire = connect(options, options, seed=seed, loss=loss, jitter=0.003, boxes=boxes)
    with _Showing(wire):
        script = played(wire, steps)
        if keepalive:
            # One is closed. Whether the other hears of it or not, it must find out.
            wire.path.unplug()
            script.client.close()
            wire.run(2000)
            assert wire.server.machine.state is State.CLOSED or script.server.closed
        script.client.close()
        script.server.close()
        wire.run(2000)
        assert wire.network.endpoints == []
        known = {0, errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE, errno.EHOSTUNREACH}
        assert {wire.client.machine.error, wire.server.machine.error} <= known
        if box is None or box[1] != "fin":  # stand-ins send in the ends' names
            check_numbers(wire.network.trace)


@settings(deadline=None, max_examples=50)
@given(steps=st.lists(st.one_of(TALK, TROUBLE, ENDING), max_size=15), seed=st.integers(0, 2**32))
def test_one_seed_one_trace(steps: list[tuple[str, str, int]], seed: int) -> None:
    def once() -> str:
        wire = connect(seed=seed, loss=0.1, jitter=0.01)
        played(wire, steps)
        wire.run(100)
        return wire.network.trace.text()

    assert once() == once()


@settings(deadline=None, max_examples=50)
@given(
    first=st.integers(2**32 - 3000, 2**32 - 1),
    writes=st.lists(st.integers(1, 4000), min_size=1, max_size=8),
    loss=st.floats(0, 0.3),
)
def test_numbers_wrap(first: int, writes: list[int], loss: float) -> None:
    """Sequence numbers pass 2**32 in mid-stream, and nobody notices."""
    wire = connect(first=first, loss=loss, latency=0.001)
    with _Showing(wire):
        script = played(wire, [("write", "client", each) for each in writes])
        wire.path.loss = 0.0
        script.drain(1000)
        assert script.server.read == script.client.written
        check_numbers(wire.network.trace)
