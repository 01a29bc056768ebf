"""Two hosts and one connection, driven by hand: the protocol without trio."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_tcpresilience.tcp.middleboxes import Middlebox
from pytest_tcpresilience.tcp.stacks import Stack
from pytest_tcpresilience.virtual.host import Endpoint, Host, Listener
from pytest_tcpresilience.virtual.network import Network
from pytest_tcpresilience.virtual.path import Path
from pytest_tcpresilience.virtual.states import State
from pytest_tcpresilience.virtual.timers import Options

PORT = 5432
# A loopback's: the measured tables are from one.
LATENCY_S = 0.00002
# What two ends have to tell each other in any one test is far less.
MOST_EVENTS = 100_000


@dataclass
class Wire:
    """An established connection. Both applications read nothing unless a test does."""

    network: Network
    path: Path
    client_host: Host
    server_host: Host
    listener: Listener
    client: Endpoint
    server: Endpoint

    @property
    def now(self) -> float:
        return self.network.now

    def run(self, seconds: float) -> None:
        until, events = self.network.now + seconds, 0
        while self.network.next_due <= until:
            self.network.advance(self.network.next_due)
            events += 1
            assert events < MOST_EVENTS, f"a storm of segments\n{self.network.trace}"
        self.network.advance(until)

    def run_until(self, condition: Callable[[], bool], most: float = 1e6) -> float:
        """The moment at which it first is so, to the event."""
        limit = self.network.now + most
        while not condition():
            due = self.network.next_due
            assert due <= limit, f"it never was\n{self.network.trace}"
            self.network.advance(due)
        return self.network.now

    def until_dead(self, endpoint: Endpoint, most: float = 1e6) -> float:
        """Seconds from now until that end is closed."""
        begun = self.network.now
        return self.run_until(lambda: endpoint.machine.state is State.CLOSED, most) - begun


class Numbered(random.Random):
    """Draws that give every connection that initial sequence number."""

    def __init__(self, first: int) -> None:
        super().__init__(first)
        self._first = first

    def randrange(self, *bounds: int) -> int:  # type: ignore[override]
        return self._first


def connect(
    client: Options | None = None,
    server: Options | None = None,
    *,
    client_stack: Stack | None = None,
    server_stack: Stack | None = None,
    seed: int = 0,
    first: int | None = None,
    latency: float | Sequence[float] = LATENCY_S,
    loss: float = 0.0,
    jitter: float = 0.0,
    boxes: Sequence[Middlebox] = (),
) -> Wire:
    """A network of two hosts with a connection between them.

    :param loss: once it is established; a handshake may fail of it.
    :param first: the initial sequence number of both, if it matters.
    """
    network = Network(seed)
    if first is not None:
        network.random = Numbered(first)
    here = network.add_host("client", client_stack)
    there = network.add_host("server", server_stack)
    path = network.add_path(here, there, latency=latency, jitter=jitter, boxes=boxes)
    listener = there.listen((there.address, PORT), 8, server or Options())
    local = here.claim((here.address, 0))
    end = here.connect(local, (there.address, PORT), client or Options())
    while not listener.ready:
        assert network.next_due < 1000, f"no handshake\n{network.trace}"
        network.advance(network.next_due)
    wire = Wire(network, path, here, there, listener, end, listener.ready.popleft())
    wire.run_until(lambda: end.machine.state is State.ESTABLISHED)
    path.loss = loss
    return wire
