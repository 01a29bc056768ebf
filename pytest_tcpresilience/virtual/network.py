"""The network: hosts, the paths between them, and time.

Owns the order of events: a heap of moments, each with what happens then. It knows no trio:
:meth:`Network.advance` is told how far to go, by tests of the protocol with numbers of
their own, and by :mod:`.run` with the time of trio's clock.
"""

from __future__ import annotations

import heapq
import ipaddress
import math
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.tcp.middleboxes import Middlebox
from pytest_tcpresilience.tcp.stacks import Linux, Stack
from pytest_tcpresilience.virtual.boxes import Firewall
from pytest_tcpresilience.virtual.host import Endpoint, Host
from pytest_tcpresilience.virtual.path import LATENCY_S, Path
from pytest_tcpresilience.virtual.segment import Address, Segment
from pytest_tcpresilience.virtual.states import State
from pytest_tcpresilience.virtual.trace import Passage, Trace

# From a host to itself.
LOOPBACK_S = 0.00002
_FIRST_ADDRESS = ipaddress.IPv4Address("10.0.0.1")


class Gate(Protocol):
    """What stands right before a server's port, and looks at that server's segments."""

    name: str
    server: Address

    def passes(self, segment: Segment, number: int) -> bool:
        """Whether the segment, the network's ``number``-th, goes on."""
        ...


class Network:
    """Hosts that exchange segments in a time of their own.

    :param seed: decides every draw: sequence numbers, loss, jitter. One seed, one trace.
    :param now: the time, in seconds since the network began.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 0.0
        self.trace = Trace()
        self.hosts: dict[str, Host] = {}
        self.links: list[Gate] = []
        self.events_done = 0
        # How often it has woken, or may have woken, a task of the run.
        self.wakes = 0
        # Called when the next event has come closer.
        self.on_earlier: Callable[[], None] | None = None
        # Called to bring the network to the time of its run.
        self.on_sync: Callable[[], None] | None = None
        self.over = False
        self._paths: dict[frozenset[str], Path] = {}
        self._by_address: dict[str, Host] = {}
        self._heap: list[tuple[float, int, Endpoint | Callable[[], None]]] = []
        self._count = 0

    # --- what there is -------------------------------------------------------------------

    def add_host(self, name: str, stack: Stack | None = None, address: str = "") -> Host:
        """A new host, on Linux unless another stack is given.

        :param address: its IPv4 address; the next of 10.0.0.0/8 by default.
        :raises UsageError: for a name or an address that is taken or cannot be one.
        """
        ip = address or str(_FIRST_ADDRESS + len(self.hosts))
        try:
            ip = str(ipaddress.IPv4Address(ip))
        except ValueError:
            raise _no_host(name, f"address={address!r} is no IPv4 address") from None
        if not name or name in self.hosts:
            raise _no_host(name, "that name is taken" if name else "a host needs a name")
        if ip in self._by_address:
            raise _no_host(name, f"{self._by_address[ip].name} has the address {ip}")
        host = Host(self, name, ip, stack or Linux())
        self.hosts[name] = self._by_address[ip] = host
        self.trace.names[ip] = name
        return host

    def add_path(
        self,
        one: Host,
        other: Host,
        *,
        latency: float | Sequence[float] = LATENCY_S,
        loss: float = 0.0,
        jitter: float = 0.0,
        boxes: Sequence[Middlebox] = (),
    ) -> Path:
        """The way between two hosts, in place of the one that was there.

        :raises UsageError: for numbers that make no sense.
        """
        firewalls = [Firewall(self, box) for box in boxes]
        path = Path(self, (one, other), latency, loss, jitter, firewalls)
        self._paths[frozenset((one.name, other.name))] = path
        return path

    def path(self, one: Host, other: Host) -> Path:
        """The way between two hosts; where none was made, one without boxes or loss."""
        found = self._paths.get(frozenset((one.name, other.name)))
        return found or self.add_path(one, other)

    def host_at(self, address: str) -> Host | None:
        return self._by_address.get(address)

    def owner(self, address: str, asking: Host) -> Host | None:
        """The host with that address, as seen from another."""
        return asking if address.startswith("127.") else self._by_address.get(address)

    def endpoint(self, local: Address, peer: Address) -> Endpoint | None:
        host = self._by_address.get(local[0])
        return host.endpoints.get((local, peer)) if host else None

    @property
    def endpoints(self) -> list[Endpoint]:
        """Every end of every connection that is not over."""
        return [each for host in self.hosts.values() for each in host.endpoints.values()]

    # --- segments ------------------------------------------------------------------------

    def send(self, origin: Host, segment: Segment) -> None:
        """From a host into the network."""
        target = self.owner(segment.destination[0], origin)
        if target is origin:
            self.trace.add(passage := Passage(segment, origin.name, self.now))
            self.call_at(self.now + LOOPBACK_S, lambda: self._arrive(passage, origin))
            return
        if target is None:
            self.trace.add(Passage(segment, origin.name, self.now, fate="no such host"))
            return
        for link in self.links:
            if segment.source == link.server and not link.passes(segment, self.trace.sent):
                dropped = f"dropped by {link.name}"
                self.trace.add(Passage(segment, origin.name, self.now, fate=dropped))
                return
        self.path(origin, target).carry(segment, origin)

    def deliver(self, passage: Passage, target: Host) -> None:
        """At the end of a path. A link lies right before its server."""
        for link in self.links:
            if passage.segment.destination == link.server and not link.passes(
                passage.segment, passage.number
            ):
                passage.fate = f"dropped by {link.name}"
                return
        self._arrive(passage, target)

    def forge(self, segment: Segment, name: str) -> None:
        """A segment that a link sends by itself."""
        target = self.host_at(segment.destination[0])
        if target is None:
            return
        passage = Passage(segment, name, self.now)
        self.trace.add(passage)
        source = self.host_at(segment.source[0])
        at_server = any(segment.destination == link.server for link in self.links)
        if at_server or source is None or source is target:
            self.call_at(self.now, lambda: self._arrive(passage, target))
        else:
            path = self.path(source, target)
            forward = source is path.ends[0]
            path.hop(passage, 0 if forward else len(path.boxes), forward)

    def _arrive(self, passage: Passage, target: Host) -> None:
        passage.arrived_at = self.now
        if target.up:
            passage.target = target.name
            target.receive(passage.segment)
        else:
            passage.fate = f"{target.name} is down"

    # --- time ----------------------------------------------------------------------------

    def settle(self, endpoint: Endpoint) -> None:
        """After anything has happened to a connection: send, set its alarm, tell its owner."""
        machine = endpoint.machine
        if machine.out:
            segments, machine.out = machine.out, []
            for segment in segments:
                self.send(endpoint.host, segment)
        if machine.state is State.CLOSED:
            endpoint.host.forget(endpoint)
        else:
            self._schedule(endpoint)
        for observe in endpoint.observers:
            observe(endpoint)
        if endpoint.notify is not None:
            endpoint.notify()

    def _schedule(self, endpoint: Endpoint) -> None:
        # An entry that comes too early is put back when its time comes: moving one in a
        # heap costs more.
        deadline = endpoint.machine.deadline
        if deadline < endpoint.scheduled:
            endpoint.scheduled = deadline
            self._push(deadline, endpoint)

    def call_at(self, at: float, what: Callable[[], None]) -> None:
        self._push(at, what)

    def _push(self, at: float, what: Endpoint | Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, what))
        if self.on_earlier is not None and self._heap[0][1] == self._count:
            self.on_earlier()

    @property
    def next_due(self) -> float:
        """When the next thing happens; infinite if nothing ever will."""
        return self._heap[0][0] if self._heap else math.inf

    def advance(self, until: float) -> None:
        """Let everything happen that is due up to that time."""
        while self._heap and self._heap[0][0] <= until:
            at, _, what = heapq.heappop(self._heap)
            self.now = max(self.now, at)
            self.events_done += 1
            if isinstance(what, Endpoint):
                what.scheduled = math.inf
                if what.machine.deadline <= self.now:
                    what.host.tick(what)
                elif what.machine.state is not State.CLOSED:
                    self._schedule(what)
            else:
                what()
        self.now = max(self.now, until)


def _no_host(name: str, why: str) -> UsageError:
    return UsageError(
        f"there can be no host {name!r}",
        expected="a name and an IPv4 address that no other host of the network has",
        happened=why,
        advice="choose another, or leave address= out",
    )
