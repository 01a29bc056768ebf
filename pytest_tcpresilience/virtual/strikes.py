"""How a fault takes hold of a virtual connection, what it does to segments, and its end.

Owns one row for each fault of :data:`pytest_tcpresilience.faults.FAULTS`. When it does so
is :mod:`.link`'s to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_tcpresilience.virtual.boxes import Splice, forged_reset
from pytest_tcpresilience.virtual.flows import Flow
from pytest_tcpresilience.virtual.segment import ACK, FIN, RST, SYN, Segment, reset_for, unwrap

if TYPE_CHECKING:
    from pytest_tcpresilience.virtual.link import VirtualLink


@dataclass
class Active:
    """A fault on a link, with what has become of it.

    :param words: its arguments: ``side``, ``direction``, and of a box ``then`` and ``counts``.
    :param seconds: of a ``time_out``: the length of the stall.
    :param only: the number of the only connection that it acts on; 0 for all.
    :param struck_number: of the first segment that was sent after it struck.
    :param held: numbers of the connections that it has taken hold of.
    """

    name: str
    toxic: str
    words: dict[str, str]
    seconds: float = 0.0
    only: int = 0
    struck_at: float | None = None
    struck_number: int = 0
    lifted: bool = False
    held: set[int] = field(default_factory=set)

    @property
    def in_force(self) -> bool:
        return self.struck_at is not None and not self.lifted

    def concerns(self, number: int) -> bool:
        return self.only in (0, number)

    def lost(self, to_server: bool) -> bool:
        """Whether the fault's ``direction`` is that way."""
        direction = self.words.get("direction", "both")
        return direction in ("both", "to_server" if to_server else "to_client")


Seize = Callable[["VirtualLink", Active, Flow], None]
# Whether the segment goes on.
Judge = Callable[["VirtualLink", Active, "Flow | None", Segment], bool]


@dataclass(frozen=True)
class Strike:
    """One fault, carried out.

    :param seize: for each connection that it takes hold of.
    :param judge: for each segment while it is in force.
    :param release: for each connection, when it is lifted.
    :param meets_new: it takes hold of connections that begin later, too.
    """

    seize: Seize | None = None
    judge: Judge | None = None
    release: Seize | None = None
    meets_new: bool = False


def is_syn(segment: Segment) -> bool:
    return segment.flags & (SYN | ACK | RST) == SYN


# --- silence ------------------------------------------------------------------------------


def _drop_all(link: VirtualLink, active: Active, flow: Flow | None, segment: Segment) -> bool:
    return not active.lost(segment.destination == link.server)


def _drop_held(link: VirtualLink, active: Active, flow: Flow | None, segment: Segment) -> bool:
    return flow is None or flow.number not in active.held


def _drop_inbound(link: VirtualLink, active: Active, flow: Flow | None, segment: Segment) -> bool:
    inbound = segment.source == link.server
    return flow is None or flow.number not in active.held or not inbound


def _reset_held(link: VirtualLink, active: Active, flow: Flow | None, segment: Segment) -> bool:
    if flow is None or flow.number not in active.held:
        return True
    answer = reset_for(segment)
    if answer is not None:
        link.network.forge(answer, link.name)
    return False


# --- told ---------------------------------------------------------------------------------


def told(flow: Flow, side: str) -> frozenset[tuple[str, int]]:
    """The addresses of those whom a fault tells."""
    sides = {"client": {flow.client}, "server": {flow.server}}
    return frozenset(sides.get(side, {flow.client, flow.server}))


def reset_flow(link: VirtualLink, flow: Flow, side: str = "both") -> None:
    """RST to one end or both, with the numbers that they expect."""
    for destination in sorted(told(flow, side)):
        source = flow.server if destination == flow.client else flow.client
        expects = flow.memory.expects.get(destination)
        if expects is not None:
            link.network.forge(forged_reset(source, destination, expects), link.name)
    if side != "both":
        splice(link, flow)


def splice(link: VirtualLink, flow: Flow) -> Splice:
    """From now on each end talks to a stand-in."""
    if flow.splice is None:
        ends = frozenset((flow.client, flow.server))
        flow.splice = Splice(link.network, ends, lambda s: link.network.forge(s, link.name))
    return flow.splice


def _reset(link: VirtualLink, active: Active, flow: Flow) -> None:
    reset_flow(link, flow, active.words.get("side", "both"))


def _hang_up(link: VirtualLink, active: Active, flow: Flow) -> None:
    splice(link, flow).hang_up(told(flow, active.words.get("side", "both")))


# --- frozen -------------------------------------------------------------------------------


def _freeze(link: VirtualLink, active: Active, flow: Flow) -> None:
    """The kernels go on; the applications see nothing of what passes from now on."""
    for end in flow.ends(link.network):
        incoming = end.machine.incoming
        passed = flow.memory.expects.get(end.local)
        end.held_from = incoming.nxt if passed is None else unwrap(passed, incoming.nxt)


def _thaw(link: VirtualLink, active: Active, flow: Flow) -> None:
    for end in flow.ends(link.network):
        end.held_from = None
        link.network.settle(end)


def _freeze_reader(link: VirtualLink, active: Active, flow: Flow) -> None:
    """Who does not read is on the other side of who finds the window closed."""
    finders = told(flow, active.words["side"])
    for end in flow.ends(link.network):
        if end.peer in finders:
            end.held_from = end.machine.incoming.position


def _time_out(link: VirtualLink, active: Active, flow: Flow) -> None:
    _freeze(link, active, flow)

    def end() -> None:
        if active.lifted or flow.closed:
            return
        parted = splice(link, flow)
        for each in flow.ends(link.network):
            held = each.machine.incoming.available - each.visible
            each.machine.incoming.forget(held)
            each.held_from = None
        parted.hang_up(told(flow, "both"))

    link.network.call_at(link.network.now + active.seconds, end)


# --- those who connect, and those who close -----------------------------------------------


def _refuse(link: VirtualLink, active: Active, flow: Flow | None, segment: Segment) -> bool:
    if is_syn(segment):
        refuse(link, segment)
    return not is_syn(segment)


def refuse(link: VirtualLink, syn: Segment) -> None:
    answer = reset_for(syn)
    assert answer is not None
    link.network.forge(answer, link.name)


def _ignore(link: VirtualLink, active: Active, flow: Flow | None, segment: Segment) -> bool:
    return not is_syn(segment)


def _swallow_close(link: VirtualLink, active: Active, flow: Flow | None, segment: Segment) -> bool:
    """The client's close looks ordinary to the client; the server is never told of it."""
    if flow is None:
        return True
    from_client = segment.source == flow.client
    if flow.number in active.held:
        return False  # nobody is there any more to whom the server could talk
    if not from_client or not segment.flags & (FIN | RST):
        return True
    stand_in = splice(link, flow)
    stand_in.deafen(flow.server)
    link.hit(active, flow)
    if segment.flags & FIN:
        stand_in.receive(segment)
        stand_in.hang_up(told(flow, "client"))
    return False


STRIKES: dict[str, Strike] = {
    "silent_drop": Strike(judge=_drop_all),
    "evict_reset": Strike(judge=_reset_held),
    "evict_drop": Strike(judge=_drop_held),
    "evict_drop_inbound": Strike(judge=_drop_inbound),
    "evict_reset_both": Strike(seize=_reset),
    "evict_fin": Strike(seize=_hang_up),
    "refuse_connections": Strike(judge=_refuse),
    "ignore_connections": Strike(judge=_ignore),
    "stall": Strike(seize=_freeze, release=_thaw, meets_new=True),
    "time_out": Strike(seize=_time_out, release=_thaw, meets_new=True),
    "stop_reading": Strike(seize=_freeze_reader, release=_thaw, meets_new=True),
    "reset": Strike(seize=_reset),
    "hang_up": Strike(seize=_hang_up),
    "lose_close": Strike(judge=_swallow_close),
    "middlebox": Strike(),  # a box of its own stands in front of the link
}
# They wait for what each connection does, and take hold of it then.
PER_FLOW = frozenset({"lose_close", "middlebox"})
