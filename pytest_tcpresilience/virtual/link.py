"""A link in virtual time: the faults, events and words of a real one.

Owns :class:`VirtualLink`. It stands on the path right before its server, sees each segment
of that server's connections, and does to it what the faults in force say
(:mod:`.strikes`). There is no proxy: client and server are connected to each other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import SplitResult

from pytest_tcpresilience.fault import seconds
from pytest_tcpresilience.fault_methods import LinkFaults
from pytest_tcpresilience.faults import FAULTS, check_compatible
from pytest_tcpresilience.records.journal import Journal
from pytest_tcpresilience.settings import Settings
from pytest_tcpresilience.tcp.addresses import join_address
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.middleboxes import Middlebox
from pytest_tcpresilience.upstream import Upstream
from pytest_tcpresilience.virtual.boxes import Firewall, Memory
from pytest_tcpresilience.virtual.connection import VirtualConnection
from pytest_tcpresilience.virtual.fault import VirtualFault, check_start, whole_bytes
from pytest_tcpresilience.virtual.flows import Flow
from pytest_tcpresilience.virtual.host import Host
from pytest_tcpresilience.virtual.log import LinkLog
from pytest_tcpresilience.virtual.network import Network
from pytest_tcpresilience.virtual.segment import ACK, SYN, Segment
from pytest_tcpresilience.virtual.strikes import (
    PER_FLOW,
    STRIKES,
    Active,
    is_syn,
    refuse,
    reset_flow,
)
from pytest_tcpresilience.virtual.witness import Witness


def split_upstream(given: Any) -> tuple[str, int, SplitResult | None]:
    """Host name, port, and the parts of the URL if one was given.

    :raises UsageError: for a malformed upstream.
    """
    upstream = Upstream.parse(given)
    return upstream.host, upstream.port, upstream.parts


class VirtualLink(LinkLog, LinkFaults[VirtualFault]):
    """What lies before one server port of a virtual network. Made by ``virtual_tcp(...)``.

    Its times are the network's: seconds since the run began.
    """

    def __init__(
        self,
        network: Network,
        server: Host,
        port: int,
        parts: SplitResult | None,
        settings: Settings,
        *,
        client: str = "",
        journal: Journal | None = None,
    ) -> None:
        super().__init__(network)
        self.client = client
        self.journal = Journal() if journal is None else journal
        # By connection: the settings of its client's socket, as it was when a fault hit.
        self.clients: dict[int, Keepalive | None] = {}
        self.settings = settings
        self.name = f"link {len(network.links) + 1}"
        self.server = (server.address, port)
        self.judged = 0
        self.ended = False
        self.flows: dict[frozenset[tuple[str, int]], Flow] = {}
        self._server_host = server
        self._parts = parts
        self._opened = 0
        self._active: list[Active] = []
        self._faults: list[VirtualFault] = []
        self._witness = Witness(network, self.log)
        self._refusing = False
        # Faults that wait for bytes, each with how many are still to come.
        self._counting: list[tuple[Active, int]] = []
        self._box: Firewall | None = None
        network.links.append(self)

    # --- where to connect ----------------------------------------------------------------

    @property
    def host(self) -> str:
        """The name of the server's host: nothing stands in its place."""
        return self._server_host.name

    @property
    def port(self) -> int:
        """The upstream's own."""
        return self.server[1]

    @property
    def listening(self) -> tuple[str, int]:
        """The address to which clients' sockets are connected. No real socket is."""
        return self.server

    @property
    def address(self) -> str:
        """``host:port``."""
        return join_address(self.host, self.port)

    @property
    def url(self) -> str:
        """The upstream as a URL, ``tcp://host:port`` if it was not given as one."""
        return self._parts.geturl() if self._parts else f"tcp://{self.address}"

    @property
    def upstream_address(self) -> str:
        """As :attr:`address`: the client is connected to the server itself."""
        return self.address

    engine_name = "virtual"

    # --- faults --------------------------------------------------------------------------

    @property
    def faults(self) -> tuple[VirtualFault, ...]:
        """All that were begun on the link, oldest first."""
        return tuple(self._faults)

    def _put_behind(self, middlebox: Middlebox) -> VirtualFault:
        counts = "bytes" if middlebox.proxy else "segments"
        fault = self.start("middlebox", words={"then": middlebox.then, "counts": counts})
        self._box = box = Firewall(self.network, middlebox, self._forgotten_by(fault.state))
        for addresses, flow in self.flows.items():
            box.adopt(addresses, copy.deepcopy(flow.memory), self)
        return fault

    def _forgotten_by(self, active: Active) -> Callable[[frozenset[tuple[str, int]]], None]:
        def forgotten(addresses: frozenset[tuple[str, int]]) -> None:
            flow = self.flows.get(addresses)
            if flow is not None and not active.lifted:
                self.hit(active, flow)

        return forgotten

    def _start(self, name: str, **arguments: Any) -> VirtualFault:
        return self.start(name, **arguments)

    def start(
        self,
        name: str,
        *,
        connection: int = 0,
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
        timeout_ms: int | None = None,
        words: Mapping[str, str] | None = None,
    ) -> VirtualFault:
        """Begin a fault of the table.

        :param connection: the number of the only connection that it acts on; 0 for all.
        :param timeout_ms: the length of a stall, for the fault that has one.
        """
        schedules = {"when_idle": when_idle, "after": after, "after_bytes": after_bytes}
        given = {key: value for key, value in schedules.items() if value is not None}
        check_start(self.network, name, given)
        idle_s, after_s = seconds("when_idle", when_idle) / 1000, seconds("after", after) / 1000
        count = 0 if after_bytes is None else whole_bytes(after_bytes)
        self.sync()
        theirs = [each for each in self._faults if connection in (0, each.connection)]
        theirs += [each for each in self._faults if connection and not each.connection]
        check_compatible(name, [fault.name for fault in theirs if fault.active])
        toxic = f"{name}-{len(self._faults) + 1}"
        active = Active(name, toxic, dict(words or {}), (timeout_ms or 0) / 1000, connection)
        fault = VirtualFault(self, FAULTS[name], active, scheduled=bool(given))
        self._faults.append(fault)
        self.log("toxic_added", toxic=toxic, type=name)
        if idle_s:
            self._strike_when_idle(active, idle_s)
        elif after_s:
            self.network.call_at(self.network.now + after_s, lambda: self._strike(active))
        elif count:
            self._counting.append((active, count))
        else:
            self._strike(active)
        return fault

    def _strike_when_idle(self, active: Active, idle_s: float) -> None:
        flows = [flow for flow in self.open_flows if active.concerns(flow.number)]
        last = max((flow.last_byte_at for flow in flows), default=None)
        now = self.network.now
        # Without a connection there is nothing to be idle; one may come.
        due = now + idle_s if last is None else last + idle_s
        if last is not None and now >= due:
            self._strike(active)
        elif not active.lifted:
            self.network.call_at(due, lambda: self._strike_when_idle(active, idle_s))

    # --- a fault takes hold --------------------------------------------------------------

    def _strike(self, active: Active) -> None:
        if active.lifted:
            return
        active.struck_at = self.network.now
        active.struck_number = self.network.trace.sent
        self._active.append(active)
        flows = [flow for flow in self.open_flows if active.concerns(flow.number)]
        if FAULTS[active.name].listener:
            self.log("fault_hit", toxic=active.toxic, type=active.name, connection=0, idle_for=0.0)
        elif active.name not in PER_FLOW:
            for flow in flows:
                self._seize(active, flow)
        hits = len(active.held)
        self.log("fault_active", toxic=active.toxic, type=active.name, connections=hits)

    def _seize(self, active: Active, flow: Flow) -> None:
        self.hit(active, flow)
        seize = STRIKES[active.name].seize
        if seize is not None:
            seize(self, active, flow)

    def hit(self, active: Active, flow: Flow) -> None:
        """Record that it has taken hold of a connection, and follow its client."""
        active.held.add(flow.number)
        self.log(
            "fault_hit",
            toxic=active.toxic,
            type=active.name,
            connection=flow.number,
            client=list(flow.client),
            idle_for=self.network.now - flow.last_byte_at,
            **active.words,
        )
        client = flow.endpoint(self.network, flow.client)
        if client is not None:
            self._witness.follow(flow, client)

    def lift(self, active: Active) -> None:
        """For :meth:`VirtualFault.lift`."""
        self.sync()
        active.lifted = True
        if active.name == "middlebox":
            self._box = None
        release = STRIKES[active.name].release
        if release is not None:
            for flow in self.open_flows:
                if flow.number in active.held:
                    release(self, active, flow)
        self.log("toxic_removed", toxic=active.toxic, type=active.name)

    # --- what passes ---------------------------------------------------------------------

    def passes(self, segment: Segment, number: int) -> bool:
        """Whether a segment of the server's connections goes on.

        What was on its way when a fault struck still arrives: real links let connections
        settle too, lest an acknowledgement is the first to meet the fault.

        :param number: of its passage.
        """
        flow = self.flows.get(segment.flow)
        if is_syn(segment) and segment.destination == self.server:
            flow = None
        if flow is not None and flow.splice is not None:
            flow.splice.receive(segment)
            return False
        if self._refusing and is_syn(segment):
            refuse(self, segment)
            return False
        for active in self._active:
            judge = STRIKES[active.name].judge
            # What cannot be undone lasts, though its handle has been left.
            in_force = active.in_force or FAULTS[active.name].once
            in_force = in_force and number >= active.struck_number
            in_force = in_force and active.concerns(flow.number if flow else 0)
            if in_force and judge is not None and not judge(self, active, flow, segment):
                return False
        if self._box is not None and not self._box.passes(segment, self):
            return False
        self._observe(segment, flow)
        return True

    def inject(self, segment: Segment, box: str) -> None:
        """A segment that the middlebox in front of the link forges."""
        self.network.forge(segment, box)

    def _observe(self, segment: Segment, flow: Flow | None) -> None:
        now = self.network.now
        if flow is None:
            if is_syn(segment) and segment.destination == self.server:
                self._open(segment)
            return
        flow.memory.note(segment, now)
        if segment.payload:
            flow.last_byte_at = now
            if segment.source == flow.client:
                flow.bytes_to_server += len(segment.payload)
            else:
                flow.bytes_to_client += len(segment.payload)
            self._count(flow, len(segment.payload))
        if not flow.established and segment.flags & (SYN | ACK) == SYN | ACK:
            flow.established = True
            self.log("connected", connection=flow.number)
            for active in self._active:
                meets = active.in_force and not active.only
                if meets and STRIKES[active.name].meets_new:
                    self._seize(active, flow)

    def _count(self, flow: Flow, size: int) -> None:
        """For faults that wait for bytes: so many have crossed."""
        waiting, self._counting = self._counting, []
        for active, left in waiting:
            left -= size if active.concerns(flow.number) else 0
            if left > 0:
                self._counting.append((active, left))
            else:
                # Once this segment is on its way; what it answers is not yet sent.
                self.network.call_at(self.network.now, partial(self._strike, active))

    def _open(self, syn: Segment) -> None:
        now = self.network.now
        self._opened += 1
        memory = Memory(syn.source, now, {})
        memory.note(syn, now)
        flow = Flow(self._opened, syn.source, syn.destination, memory, now, now)
        self.flows[syn.flow] = flow
        self.log("opened", connection=flow.number, client=list(syn.source))
        client = flow.endpoint(self.network, flow.client)
        if client is not None:
            self._witness.expect_end(flow, client)

    # --- what was seen -------------------------------------------------------------------

    @property
    def open_flows(self) -> list[Flow]:
        return [flow for flow in self.flows.values() if flow.established and not flow.closed]

    @property
    def connections(self) -> tuple[VirtualConnection, ...]:
        """The connections that clients have open through the link, oldest first."""
        self.sync()
        return tuple(VirtualConnection(self, flow) for flow in self.open_flows)

    def in_flight(self) -> list[tuple[int, tuple[str, int], int, int]]:
        """Of each open connection: its number, its client, and the bytes that one side has
        written and the other's kernel has not got, to the server and to the client."""
        self.sync()
        return [
            (flow.number, flow.client, *flow.in_flight(self.network)) for flow in self.open_flows
        ]

    def keepalive_of(self, number: int) -> Keepalive | None:
        """The settings of a connection's client; ``None`` if its host has it no more."""
        flow = next(each for each in self.flows.values() if each.number == number)
        return flow.keepalive(self.network)

    def settings_now(self) -> dict[int, Keepalive]:
        """By connection, the settings of its client's socket."""
        found = {flow.number: flow.keepalive(self.network) for flow in self.flows.values()}
        return {number: each for number, each in found.items() if each is not None}

    def never_hit(self) -> list[VirtualFault]:
        """Faults that were scheduled, and neither hit nor were called off."""
        return [
            fault
            for fault in self._faults
            if fault.scheduled and not fault.called_off and fault.hit_at is None
        ]

    # --- the rescue ----------------------------------------------------------------------

    def rescue(self, *, refuse: bool) -> None:
        """RST on all connections, and later no new ones, as on real links."""
        self.log("rescue_refuse" if refuse else "rescue_reset")
        self._refusing = self._refusing or refuse
        for flow in self.flows.values():
            for end in flow.ends(self.network):
                end.held_from = None
            client = flow.endpoint(self.network, flow.client)
            if client is not None:
                flow.memory.expects[flow.client] = client.machine.incoming.nxt % 2**32
                reset_flow(self, flow)

    def __repr__(self) -> str:
        return f"<VirtualLink {self.address}>"
