"""One client and one upstream: their connection from accept to close.

Owns both sockets, how the connection ends, and who is told of it. Who carries its bytes is
:mod:`.carriage`'s, what keeps them :mod:`.holding`'s, what keeps its segments
:mod:`.cutter`'s. It does not decide when a fault acts: its proxy does.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from pytest_tcpresilience.engine import descriptors, probes, record
from pytest_tcpresilience.engine.carriage import Carriage
from pytest_tcpresilience.engine.complaints import complain
from pytest_tcpresilience.engine.cutter import Cutter
from pytest_tcpresilience.engine.holding import Held
from pytest_tcpresilience.engine.legs import Leg, data_after_fin, upstream_leg
from pytest_tcpresilience.engine.lost_close import LostClose
from pytest_tcpresilience.engine.mourning import Mourner
from pytest_tcpresilience.engine.record import Ending, Hit, Record
from pytest_tcpresilience.engine.timers import Timers
from pytest_tcpresilience.kernel import cuts
from pytest_tcpresilience.kernel.counts import Counts

if TYPE_CHECKING:
    from pytest_tcpresilience.engine.proxy import Proxy
    from pytest_tcpresilience.engine.toxics import Stream, Toxic


# Who is at the beginning of each direction.
SENDERS: dict[Stream, record.By] = {"upstream": "client", "downstream": "upstream"}


@dataclass
class Counters:
    """Bytes that the engine has read, and written, by direction."""

    upstream: int = 0
    downstream: int = 0
    written: dict[Stream, int] = field(default_factory=lambda: {"upstream": 0, "downstream": 0})


@dataclass
class Connection(Held):
    """A client's connection through a proxy.

    :param number: counts up from 1 within the proxy.
    :param epoch: how often the proxy had been disabled before.
    """

    proxy: Proxy
    number: int
    client: Leg
    client_address: tuple[str, int]
    local_address: tuple[str, int]
    epoch: int = 0
    upstream: Leg | None = None
    opened_at: float = field(default_factory=time.monotonic)
    last_byte_at: float = field(default_factory=time.monotonic)
    counters: Counters = field(default_factory=Counters)
    closed: str | None = None
    record: Record = field(default_factory=Record)
    # The last look at the client's socket, by :mod:`.probes`.
    looked: Counts | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self.seed = f"{self.proxy.seed}/{self.number}"
        self.was_given_up = False
        self.cutter = Cutter(self)
        self.lost_close: LostClose = LostClose(self)
        self.timers = Timers(self)
        self.mourner = Mourner(self)
        self.carriage: Carriage = Carriage(self)
        self._draws: dict[str, float] = {}
        self._scope = trio.CancelScope()
        self._pumping = trio.CancelScope()
        # Those that our FIN went to, and whether the other side was left as it is.
        self._finished: list[Leg] = []
        self._one_sided = False
        self.aborted = False
        self.dialled = trio.Event()
        # One of those that were not told has gone.
        self._lost = trio.Event()

    # --- life ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Dial, pump, end. Never raises for what a network does."""
        try:
            with self._scope:
                self.proxy.joined(self)
                self.watch()
                with self._pumping:
                    await self.released()
                    if await self._dial():
                        assert self.upstream is not None
                        await self.carriage.run(self.client, self.upstream)
                if self._finished:
                    await self._linger()
                await self._outlast()
                self.conclude("fin", record.by_peer(self.record.finished_by or "client"))
        finally:
            self.timers.end()
            self.conclude("internal_error", record.for_reason("internal_error", "fin"))
            self.mourner.forget()
            for leg in self.legs():
                self.cutter.close(leg)
            self.proxy.left(self)

    async def _dial(self) -> bool:
        try:
            sock = await self.proxy.dial()
        except OSError as error:
            # A full table is the engine's trouble, and not the upstream's.
            kind = "accept_failed" if error.errno in descriptors.FULL else "upstream_failed"
            reason = error.strerror or str(error)
            self.proxy.events.add(kind, connection=self.number, error=reason)
            self.reset(kind)
            return False
        if self.aborted:  # while this was on its way back
            cuts.reset(sock)
            return False
        self.upstream = upstream_leg(sock)
        self.dialled.set()
        self.mourner.watch(self.upstream)
        self.record.connected_at = self.proxy.events.add("connected", connection=self.number)
        self.cutter.join(self.upstream)
        return True

    async def _linger(self) -> None:
        """After our FIN: what a peer's kernel does whose application has closed.

        It takes the other side's FIN, and answers data with RST.
        """
        async with trio.open_nursery() as nursery:
            for leg in self._finished:
                nursery.start_soon(self._linger_on, leg)

    async def _linger_on(self, leg: Leg) -> None:
        if await data_after_fin(leg):
            self.cutter.reset(leg)

    async def _outlast(self) -> None:
        """While there is a side that was not told, it stays as it is."""
        while self._one_sided and any(leg not in self._finished for leg in self.legs()):
            await self._lost.wait()

    def conclude(self, reason: str, ending: Ending) -> None:
        """Record how it ended, unless that is known already."""
        if self.closed is not None:
            return
        probes.look(self)  # the last chance
        self.closed = reason
        # A kernel that gives a connection up says so with RST, which arrives where only the
        # other direction is lost.
        self.was_given_up = (ending.by, ending.how) == ("client", "reset")
        self.record.ending = ending
        self.record.closed_at = self.proxy.events.add(
            "closed",
            connection=self.number,
            bytes_to_server=self.counters.upstream,
            bytes_to_client=self.counters.downstream,
            **ending.document(),
        )

    def legs(self) -> Iterator[Leg]:
        """Both, or what is left of them."""
        for leg in (self.client, self.upstream):
            if leg is not None and leg.sock.fileno() >= 0:
                yield leg

    # --- what pumps ask and tell ---------------------------------------------------------

    async def finish(self, stream: Stream, sink: Leg) -> None:
        """A stream has ended, and all of it has been passed on: pass its end on."""
        if stream == "upstream" and self.lost_close.armed:
            await self.lost_close.take_fin(sink)
        else:
            cuts.finish(sink.sock)

    def shaping(self, stream: Stream) -> list[Toxic]:
        """The stream toxics that act on this direction of this connection."""
        return [toxic for toxic in self.proxy.stream_toxics(stream) if self.lucky(toxic)]

    def shapes(self, stream: Stream) -> bool:
        return bool(self.shaping(stream))

    def lucky(self, toxic: Toxic) -> bool:
        """Whether ``toxic`` acts here: drawn once for each connection and toxic."""
        if not toxic.aims_at(self.number):
            return False
        if toxic.name not in self._draws:
            # From its name, so that neither a neighbour nor the hour changes it.
            self._draws[toxic.name] = random.Random(f"{self.seed}/{toxic.name}").random()
        return self._draws[toxic.name] < toxic.toxicity

    def moved(self, stream: Stream, count: int) -> None:
        """The engine has read bytes, or with 0 the end of the stream."""
        if not count:
            self.record.finished_by = self.record.finished_by or SENDERS[stream]
            return
        self.last_byte_at = time.monotonic()
        if stream not in self.record.first_byte_at:
            self.record.first_byte_at[stream] = self.proxy.events.add(
                "first_byte",
                at=self.last_byte_at,
                connection=self.number,
                direction=record.DIRECTIONS[stream],
            )
        setattr(self.counters, stream, getattr(self.counters, stream) + count)
        self.proxy.traffic.received[stream] += count

    @property
    def counts_bytes(self) -> bool:
        """Whether each byte is counted, so that they must be written as :meth:`room` says.

        Pumps are woken (:meth:`wake`) when it changes.
        """
        return any(True for _ in self.proxy.arming.meters.on(self.number))

    def room(self, count: int) -> int:
        """How many of ``count`` bytes may be written now, when the connection is not held.

        At least one. Once all have crossed that may, the connection is held.
        """
        return self.proxy.arming.meters.room(self.number, count)

    def sent(self, stream: Stream, count: int) -> None:
        """The engine has written bytes: they have crossed."""
        self.counters.written[stream] += count
        self.proxy.traffic.sent[stream] += count
        self.proxy.arming.crossed(self.number, count)

    def broke(self, leg: Leg, error: OSError) -> None:
        """A socket failed: its peer reset it, or the kernel gave it up.

        The other side is told in the same way. Toxiproxy turns a reset into FIN here.
        """
        if not self.is_pumping:
            return  # a fault has closed the socket in the meantime
        if leg is self.client and self.lost_close.armed:
            self.lost_close.take_reset(error)
            return
        self.conclude("reset", record.by_peer(leg.side, error))
        self._abort()

    # --- what is noticed without a pump ---------------------------------------------------

    @property
    def is_pumping(self) -> bool:
        """Whether bytes cross, or will: it is not over for either side."""
        return not self._pumping.cancel_called

    @property
    def is_ending(self) -> bool:
        """Whether its task has been told to end."""
        return self._scope.cancel_called

    async def guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something for the connection that may end in a mistake, but may not do harm.

        A mistake of ours costs this connection, and not the engine with all the others. The
        test is told by the event, a reader by standard error.
        """
        try:
            await work()
        except Exception as error:
            complain(error)
            self.proxy.events.add("internal_error", connection=self.number, error=repr(error))
            self._scope.cancel()

    def watch(self) -> None:
        """Have errors noticed where nobody reads. The carrier does so for what it has."""
        for leg in self.legs():
            self.mourner.watch(leg)

    def lost(self, leg: Leg, ending: Ending) -> None:
        """A leg has failed that no pump reads any more; those told are lingered for."""
        if leg not in self._finished:
            self.conclude("reset", ending)
            self.cutter.reset(leg)
            self._lost.set()
            self._lost = trio.Event()

    # --- what faults do ------------------------------------------------------------------

    def _look_again(self) -> None:
        super()._look_again()
        self.carriage.look_again()

    def hit(self, settled: bool = True) -> Hit:
        """What a fault that takes hold now has found."""
        now = time.monotonic()
        return Hit(at=now, idle_for=now - self.last_byte_at, settled=settled)

    def part(self, name: str, ending: Ending) -> None:
        """Close towards the client, and leave the server with a silent connection.

        :param name: of the fault.
        """
        self.carriage.alight()
        self.cutter.strand(name, self.upstream)
        self.conclude(ending.how, ending)
        trio.lowlevel.notify_closing(self.client.sock)
        self.client.sock.close()
        self._one_sided = True
        self._pumping.cancel()

    def be_unknown(self) -> None:
        """After :meth:`part`: from now on the server's segments are answered with RST."""
        if self.upstream is not None and self.upstream.sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self.upstream.sock)
            # Without healing: the RST of this close is lost as well.
            cuts.reset(self.upstream.sock)
        self._scope.cancel()

    def _abort(self) -> None:
        self.carriage.alight()
        self.aborted = True
        for leg in self.legs():
            self.cutter.reset(leg)
        self._scope.cancel()

    def reset(self, how: str, side: str = "both") -> Hit:
        """RST now, whatever else is on the connection.

        :param side: who is told. The other one's side then stays as it is.
        """
        hit = self.hit()
        ending = record.for_reason(how, "reset")
        if side == "both":
            self.conclude(how, ending)
            self._abort()
            return hit
        for leg in self._told(ending, side):
            self.cutter.reset(leg)
        self._pumping.cancel()
        return hit

    def hang_up(self, how: str, side: str = "both") -> Hit:
        """FIN now. What comes back later is answered as a kernel would.

        :param side: as for :meth:`reset`.
        """
        hit = self.hit()
        self._finished = self._told(record.for_reason(how, "fin"), side)
        for leg in self._finished:
            cuts.finish(leg.sock)
        self._pumping.cancel()
        return hit

    def _told(self, ending: Ending, side: str) -> list[Leg]:
        """The legs of a side. The connection is over for a client that is told."""
        self.carriage.alight()
        if side != "server":
            self.conclude(ending.reason, ending)
        self._one_sided = side != "both"
        return [
            leg
            for leg in self.legs()
            if side == "both" or (leg.side == "client") is (side == "client")
        ]

    def end(self) -> None:
        """The proxy goes: close as an application does, or RST under a cut."""
        self.carriage.alight()
        self.conclude("proxy_ended", record.for_reason("proxy_ended", "fin"))
        self._scope.cancel()

    # --- what the API shows --------------------------------------------------------------

    def _pending(self, stream: Stream, to: Leg | None) -> int:
        """Bytes that were read, and that the peer they are for has not acknowledged."""
        unwritten = int(getattr(self.counters, stream)) - self.counters.written[stream]
        if to is None or to.sock.fileno() < 0:
            return unwritten
        return unwritten + cuts.unacknowledged(to.sock)

    def document(self) -> dict[str, Any]:
        if self.closed is None:
            probes.look(self)
        return {
            "connection": self.number,
            "client": list(self.client_address),
            "opened_at": self.opened_at,
            "last_byte_at": self.last_byte_at,
            "bytes_upstream": self.counters.upstream,
            "bytes_downstream": self.counters.downstream,
            "pending_upstream": self._pending("upstream", self.upstream),
            "pending_downstream": self._pending("downstream", self.client),
            "cut": bool(self.cutter),
            **self.record.document(),
        }
