"""Boxes on a path: firewalls that forget, and proxies that answer for the dead.

Owns what :class:`~pytest_tcpresilience.tcp.middleboxes.Middlebox` describes, carried out
segment by segment.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pytest_tcpresilience.tcp.middleboxes import Middlebox
from pytest_tcpresilience.virtual.machine import Machine
from pytest_tcpresilience.virtual.segment import (
    ACK,
    RST,
    SYN,
    WRAP,
    Address,
    Segment,
    reset_for,
    unwrap,
)

if TYPE_CHECKING:
    from pytest_tcpresilience.virtual.network import Network

Flow = frozenset[Address]
Inject = Callable[[Segment], None]


class Place(Protocol):
    """Where a box stands, for what it sends by itself."""

    def inject(self, segment: Segment, box: str) -> None: ...


@dataclass
class Memory:
    """What a box remembers of a flow.

    :param inside: who opened it.
    :param expects: for each side, the number that it expects next, as far as seen.
    """

    inside: Address
    seen_at: float
    expects: dict[Address, int]

    def note(self, segment: Segment, now: float, *, only_data: bool = False) -> None:
        """A segment passes. :param only_data: a bare ACK, or a probe, is no traffic."""
        if segment.flags & ACK:
            self.expects[segment.source] = segment.ack
        end = (segment.seq + segment.length) % WRAP
        known = self.expects.get(segment.destination)
        fresh = known is None or unwrap(end, known) > known
        if fresh:
            self.expects[segment.destination] = end
        if fresh or not only_data:
            self.seen_at = now


def forged_reset(source: Address, destination: Address, expects: int) -> Segment:
    """An RST that the destination believes: it has the number that is expected next."""
    return Segment(source, destination, expects, 0, RST)


class Firewall:
    """A middlebox at work: it forgets a flow that has carried no segment for a while.

    :param box: how long it remembers, and what becomes of a flow that it has forgotten.
    :param on_evict: called for each flow, at the moment when it is forgotten.
    """

    def __init__(
        self, network: Network, box: Middlebox, on_evict: Callable[[Flow], None] | None = None
    ) -> None:
        self.box = box
        self.name = box.name
        self.evictions = 0
        self._on_evict = on_evict
        self._network = network
        self._flows: dict[Flow, Memory] = {}
        self._inside: dict[Flow, Address] = {}
        self._spliced: dict[Flow, Splice] = {}

    def passes(self, segment: Segment, place: Place) -> bool:
        now, flow = self._network.now, segment.flow
        if segment.flags & (SYN | ACK) == SYN:
            self._remember(segment, place)
            return True
        if flow in self._spliced:
            self._spliced[flow].receive(segment)
            return False
        memory = self._flows.get(flow)
        if memory is not None and now - memory.seen_at < self.box.idle_timeout:
            # A proxy's own kernel answers probes: they do not count there.
            memory.note(segment, now, only_data=self.box.proxy)
            return True
        if memory is not None:
            self._forget(flow)
        return self._passes_forgotten(segment, place)

    def _forget(self, flow: Flow) -> None:
        del self._flows[flow]
        self.evictions += 1
        if self._on_evict is not None:
            self._on_evict(flow)

    def _remember(self, syn: Segment, place: Place) -> None:
        memory = Memory(syn.source, self._network.now, {})
        memory.note(syn, self._network.now)
        self._spliced.pop(syn.flow, None)
        self.adopt(syn.flow, memory, place)

    def adopt(self, flow: Flow, memory: Memory, place: Place) -> None:
        """Know a flow from now on."""
        self._flows[flow] = memory
        self._inside[flow] = memory.inside
        if self.box.eviction.at_once or self._on_evict is not None:
            self._watch(flow, memory, place)

    def _passes_forgotten(self, segment: Segment, place: Place) -> bool:
        """A segment of a flow that nobody here remembers."""
        if self.box.then == "drop_inbound" and self._inside.get(segment.flow) == segment.source:
            memory = Memory(segment.source, self._network.now, {})
            memory.note(segment, self._network.now)
            self.adopt(segment.flow, memory, place)
            return True
        answers = self.box.then in ("reset", "reset_both")
        answer = reset_for(segment) if answers else None
        if answer is not None:
            place.inject(answer, self.name)
        return False

    def _watch(self, flow: Flow, memory: Memory, place: Place) -> None:
        """Forget it at the very moment, for boxes that say so."""

        def look() -> None:
            if self._flows.get(flow) is not memory:
                return
            if self._network.now < memory.seen_at + self.box.idle_timeout:
                self._watch(flow, memory, place)
                return
            self._forget(flow)
            self._tell(flow, memory, place)

        self._network.call_at(memory.seen_at + self.box.idle_timeout, look)

    def _tell(self, flow: Flow, memory: Memory, place: Place) -> None:
        if not self.box.eviction.at_once:
            return
        if self.box.then == "fin":

            def inject(segment: Segment) -> None:
                place.inject(segment, self.name)

            self._spliced[flow] = splice = Splice(self._network, flow, inject)
            splice.hang_up(flow)
            return
        one, other = sorted(flow)
        for source, destination in ((one, other), (other, one)):
            if destination in memory.expects:
                reset = forged_reset(source, destination, memory.expects[destination])
                place.inject(reset, self.name)


class Splice:
    """A flow cut in two, each half with a stand-in for the other side.

    That is what a proxy does: it ends one TCP connection and begins another. A stand-in is
    a copy of the machine that it takes the place of, so that its numbers are right.
    """

    def __init__(self, network: Network, flow: Flow, inject: Inject) -> None:
        self._network = network
        self._inject = inject
        self._stand_ins: dict[Address, Machine] = {}
        one, other = sorted(flow)
        for local, peer in ((one, other), (other, one)):
            endpoint = network.endpoint(local, peer)
            if endpoint is not None:
                stand_in = copy.deepcopy(endpoint.machine)
                stand_in.options.keepalive = False
                self._stand_ins[local] = stand_in

    def receive(self, segment: Segment) -> None:
        """What arrives is acknowledged, and goes no further."""
        stand_in = self._stand_ins.get(segment.destination)
        if stand_in is not None:
            stand_in.receive(segment, self._network.now)
            self._settle(stand_in)

    def deafen(self, peer: Address) -> None:
        """What that peer sends is answered no more."""
        self._stand_ins = {
            local: each for local, each in self._stand_ins.items() if each.peer != peer
        }

    def hang_up(self, told: frozenset[Address]) -> None:
        """FIN to those of the peers."""
        for stand_in in self._stand_ins.values():
            if stand_in.peer in told:
                stand_in.shutdown(self._network.now)
                self._settle(stand_in)

    def reset(self, told: frozenset[Address]) -> None:
        """RST to those of the peers."""
        for stand_in in self._stand_ins.values():
            if stand_in.peer in told:
                stand_in.abort(self._network.now)
                self._settle(stand_in)

    def _settle(self, stand_in: Machine) -> None:
        network = self._network
        stand_in.incoming.read(stand_in.incoming.available)
        segments, stand_in.out = stand_in.out, []
        for segment in segments:
            self._inject(segment)
        deadline = stand_in.deadline
        if deadline != float("inf"):

            def tick() -> None:
                if stand_in.deadline <= network.now:
                    stand_in.tick(network.now)
                    self._settle(stand_in)

            network.call_at(deadline, tick)
