"""How a link toxic takes hold of connections, and lets go.

Owns one row for each toxic type below the byte stream. When it does so is
:mod:`.arming`'s to say.

Any number of toxics may be on a connection at once. What they come to does not depend on
the order in which they were added:

1. What *ends* a connection, does so whatever else is on it: ``reset``, ``hang_up``, the
   evictions that are told, ``time_out`` when its time is over, the rescue. The first one
   counts; RST breaks a silence, FIN arrives when it is lifted. So does the client by its own
   close: with ``lose_close``, the server is not told of that one.
2. *Silence* comes next: ``silent_drop``, ``evict_drop``. Neither side's kernel hears from
   the other, so nobody can see what else is in force. Silence of one direction
   (``evict_drop_inbound``) adds up: with the other direction's, it is silence.
3. What *holds* a connection: ``stall``, ``time_out``, and a toxic whose ``after_bytes`` have
   crossed, until it has struck. Segments are acknowledged, and no byte passes. With
   ``stop_reading`` none is read, until the kernel's buffer is full.
4. The stream toxics shape what is left, as :mod:`.shaping` says.

A ``middlebox`` does nothing by itself: what it forgets becomes one of the evictions, and
nothing is forgotten while a silence keeps segments from arriving at all.

Each holds by its own name, so to lift one leaves the others, in whatever order: a
connection speaks when the last silence is lifted, and its bytes flow when the last hold is.

At the listener, ``refuse_connections`` is stronger than ``ignore_connections`` and
``silent_drop``: nobody listens, so the kernel says so. Toxics of one connection never reach
the listener. An evicted connection (``evict_reset``) is over for all later toxics.

A link refuses some of these combinations (:mod:`pytest_tcpresilience.faults`), because a
test that asks for both would see one of them only. The API refuses none.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from pytest_tcpresilience.engine.connection import Connection
from pytest_tcpresilience.engine.events import EventLog
from pytest_tcpresilience.engine.flows import Flow
from pytest_tcpresilience.engine.legs import segments
from pytest_tcpresilience.engine.oneway import DIRECTIONS, Direction
from pytest_tcpresilience.engine.record import Hit
from pytest_tcpresilience.engine.toxics import STREAMS, Stream, Toxic


@dataclass
class Active:
    """A toxic on a proxy, with what has become of it.

    :param armed_at: when it was added, or the proxy was enabled after that; ``None``
        while a link toxic waits for it.
    :param struck_at: when it took effect; ``None`` while it is scheduled.
    :param hits: connections that it has taken hold of.
    """

    toxic: Toxic
    armed_at: float | None
    struck_at: float | None = None
    hits: int = 0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def pending(self) -> bool:
        """Whether it takes effect when the proxy is enabled."""
        return self.armed_at is None

    def document(self) -> dict[str, Any]:
        document = self.toxic.document()
        if self.toxic.kind.below:
            document.update(armed_at=self.armed_at, struck_at=self.struck_at, hits=self.hits)
        return document


def _record(active: Active, connection: Connection, hit: Hit) -> None:
    active.hits += 1
    connection.record.struck(
        active.toxic.name,
        active.toxic.type,
        armed_at=hit.at if active.armed_at is None else active.armed_at,
        hit_at=hit.at,
    )
    connection.proxy.events.add(
        "fault_hit",
        at=hit.at,
        toxic=active.toxic.name,
        type=active.toxic.type,
        connection=connection.number,
        client=list(connection.client_address),
        idle_for=hit.idle_for,
        settled=hit.settled,
        **active.toxic.words,
    )


def record_at_listener(active: Active, events: EventLog) -> None:
    """It acts on whoever connects, so it has hit as soon as it is in force.

    Connection 0 stands for those to come.
    """
    active.hits += 1
    events.add(
        "fault_hit",
        toxic=active.toxic.name,
        type=active.toxic.type,
        connection=0,
        idle_for=0.0,
    )


async def _silence(active: Active, connection: Connection) -> None:
    hit = await connection.cutter.silence(active.toxic.name)
    if hit is None:
        return
    if connection.proxy.toxics.get(active.toxic.name) is not active:
        connection.cutter.heal(active.toxic.name)  # removed while the connection settled
        return
    _record(active, connection, hit)


async def _lose(active: Active, connection: Connection, direction: Direction) -> None:
    hit = await connection.cutter.lose(active.toxic.name, direction)
    if hit is None:
        return
    if connection.proxy.toxics.get(active.toxic.name) is not active:
        connection.cutter.restore(active.toxic.name)  # removed while the connection settled
        return
    _record(active, connection, hit)


async def _lose_answers(active: Active, connection: Connection) -> None:
    await _lose(active, connection, "to_client")


async def _drop(active: Active, connection: Connection) -> None:
    """Both directions, or the one that the toxic names."""
    for direction in DIRECTIONS:
        if active.toxic.words["direction"] == direction:
            await _lose(active, connection, direction)
            return
    await _silence(active, connection)


async def _evict(active: Active, connection: Connection) -> None:
    hit = await connection.cutter.evict(active.toxic.name)
    if hit is not None:
        _record(active, connection, hit)


def _stall(active: Active, connection: Connection) -> None:
    connection.hold(active.toxic.name)
    _record(active, connection, connection.hit())


def _time_out(active: Active, connection: Connection) -> None:
    _stall(active, connection)
    toxic = active.toxic
    connection.timers.after(
        toxic.name,
        toxic.attributes["timeout"] / 1000,
        lambda: connection.hang_up("time_out"),
    )


def _side(active: Active) -> str:
    """Which side is told. An eviction that is told is told to both."""
    return active.toxic.words.get("side", "both")


def _reset(active: Active, connection: Connection) -> None:
    _record(active, connection, connection.reset(active.toxic.type, _side(active)))


def _hang_up(active: Active, connection: Connection) -> None:
    _record(active, connection, connection.hang_up(active.toxic.type, _side(active)))


def _stop_reading(active: Active, connection: Connection) -> None:
    connection.leave_unread(active.toxic.name, UNREAD[active.toxic.words["side"]])
    _record(active, connection, connection.hit())


def _trap_close(active: Active, connection: Connection) -> None:
    connection.lost_close.trap(active.toxic.name, lambda hit: _record(active, connection, hit))


def _put_behind(active: Active, connection: Connection) -> None:
    """The flow is forgotten once it has been idle for so long, whenever that is."""

    async def forget() -> None:
        counts = COUNTS[active.toxic.words["counts"]]
        flow = Flow(
            idle_timeout=active.toxic.attributes["idle_timeout"] / 1000,
            count=counts(connection),
            seen_at=time.monotonic(),
        )
        while (wait_s := flow.look(counts(connection), time.monotonic())) is not None:
            await trio.sleep(wait_s)
        while connection.cutter:  # no segment comes that far, whatever the box does
            await trio.sleep(flow.pause)
        await FORGET[active.toxic.words["then"]](active, connection)

    connection.timers.beside(active.toxic.name, forget)


# What keeps a flow alive: for a firewall anything, for a proxy, whose kernel answers probes
# itself, what an application has sent.
COUNTS: dict[str, Callable[[Connection], int]] = {
    "segments": lambda connection: segments(connection.legs()),
    "bytes": lambda connection: connection.counters.upstream + connection.counters.downstream,
}
# What is not read when a side shall see the window close.
UNREAD: dict[str, tuple[Stream, ...]] = {
    "client": ("upstream",),
    "server": ("downstream",),
    "both": STREAMS,
}

Strike = Callable[[Active, list[Connection]], Awaitable[None]]


def _settling(one: Callable[[Active, Connection], Awaitable[None]]) -> Strike:
    """On all connections side by side, because each has to settle first."""

    async def strike(active: Active, connections: list[Connection]) -> None:
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(one, active, connection)

    return strike


def _at_once(one: Callable[[Active, Connection], None]) -> Strike:
    """On one connection after the other: none of them waits for anything."""

    async def strike(active: Active, connections: list[Connection]) -> None:
        for connection in connections:
            one(active, connection)

    return strike


async def _at_the_listener(active: Active, connections: list[Connection]) -> None:
    """Connections that exist go on."""


# One row for each link toxic of the catalogue; a test holds the two together.
STRIKES: dict[str, Strike] = {
    "silent_drop": _settling(_drop),
    "evict_reset": _settling(_evict),
    "evict_drop": _settling(_silence),
    "evict_drop_inbound": _settling(_lose_answers),
    "evict_reset_both": _at_once(_reset),
    "evict_fin": _at_once(_hang_up),
    "refuse_connections": _at_the_listener,
    "ignore_connections": _at_the_listener,
    "stall": _at_once(_stall),
    "time_out": _at_once(_time_out),
    "stop_reading": _at_once(_stop_reading),
    "lose_close": _at_once(_trap_close),
    "reset": _at_once(_reset),
    "hang_up": _at_once(_hang_up),
    "middlebox": _at_once(_put_behind),
}


async def _reset_forgotten(active: Active, connection: Connection) -> None:
    _reset(active, connection)


async def _hang_up_forgotten(active: Active, connection: Connection) -> None:
    _hang_up(active, connection)


# What a middlebox does to a flow that it has forgotten: one row for each mode of eviction.
FORGET: dict[str, Callable[[Active, Connection], Awaitable[None]]] = {
    "reset": _evict,
    "drop": _silence,
    "drop_inbound": _lose_answers,
    "reset_both": _reset_forgotten,
    "fin": _hang_up_forgotten,
}


def meet(active: Active, connection: Connection) -> None:
    """A connection begins while the toxic is in effect."""
    toxic = active.toxic
    if toxic.type in MEET and toxic.aims_at(connection.number):
        MEET[toxic.type](active, connection)


def _drop_new(active: Active, connection: Connection) -> None:
    # It was in the accept queue when the listener fell silent, and has exchanged nothing
    # yet. It is held before anything is awaited.
    connection.hold(active.toxic.name)
    connection.proxy.start_soon(lambda: _drop(active, connection))


# What new connections meet.
MEET: dict[str, Callable[[Active, Connection], None]] = {
    "silent_drop": _drop_new,
    "stall": _stall,
    "time_out": _time_out,
    "stop_reading": _stop_reading,
    "lose_close": _trap_close,
    "middlebox": _put_behind,
}


def let_go(toxic: Toxic, connection: Connection) -> None:
    """The toxic is removed: undo what can be undone."""
    connection.timers.disarm(toxic.name)
    connection.carriage.forget(toxic.name)
    connection.record.lifted(toxic.name)
    if toxic.type in LET_GO:
        LET_GO[toxic.type](toxic, connection)


def _release(toxic: Toxic, connection: Connection) -> None:
    connection.release(toxic.name)


def _heal(toxic: Toxic, connection: Connection) -> None:
    connection.cutter.heal(toxic.name)
    connection.cutter.restore(toxic.name)


def _end_timeout(toxic: Toxic, connection: Connection) -> None:
    if connection.lucky(toxic):
        # Bytes were dropped, so what follows would not be what was sent.
        connection.hang_up("timeout_removed")


def _forget_no_more(toxic: Toxic, connection: Connection) -> None:
    """The box is taken away. What it drops arrives; an eviction that was told stays."""
    connection.cutter.restore(toxic.name)
    if not connection.cutter.evicted:
        connection.cutter.heal(toxic.name)


# How those that last let go.
LET_GO: dict[str, Callable[[Toxic, Connection], None]] = {
    "silent_drop": _heal,
    "evict_drop": _heal,
    "evict_drop_inbound": _heal,
    "stall": _release,
    "time_out": _release,
    "timeout": _end_timeout,
    "stop_reading": lambda toxic, connection: connection.read_again(toxic.name),
    "lose_close": lambda toxic, connection: connection.lost_close.let_go(toxic.name),
    "middlebox": _forget_no_more,
}
