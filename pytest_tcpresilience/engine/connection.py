"""One client, one upstream, and what faults do to the two sockets.

Owns both sockets from accept to close, and the rule that nothing crosses while the
connection is held. It does not decide when a fault acts: its proxy does.

A fault below the byte stream acts on both sockets, so that client and server each see
it with their own kernel's timers, as with a real cable.
"""

from __future__ import annotations

import contextlib
import errno
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from pytest_tcpresilience.engine import probes, record
from pytest_tcpresilience.engine.legs import Leg, readable, settle
from pytest_tcpresilience.engine.lost_close import LostClose
from pytest_tcpresilience.engine.oneway import Direction, OneWay
from pytest_tcpresilience.engine.pump import Pump
from pytest_tcpresilience.engine.record import Ending, Record
from pytest_tcpresilience.kernel import counts, cuts
from pytest_tcpresilience.kernel.counts import Counts

if TYPE_CHECKING:
    from pytest_tcpresilience.engine.proxy import Proxy
    from pytest_tcpresilience.engine.toxics import Stream, Toxic


# Who is at the beginning of each direction.
SENDERS: dict[Stream, record.By] = {"upstream": "client", "downstream": "upstream"}


@dataclass(frozen=True)
class Hit:
    """What a fault found when it took hold of a connection.

    :param at: CLOCK_MONOTONIC, seconds.
    :param idle_for: seconds since the last byte in either direction.
    :param settled: whether all data was acknowledged on both sides.
    """

    at: float
    idle_for: float
    settled: bool


@dataclass
class Counters:
    """Bytes that the engine has read, and written, by direction."""

    upstream: int = 0
    downstream: int = 0
    written: dict[Stream, int] = field(default_factory=lambda: {"upstream": 0, "downstream": 0})


@dataclass
class Connection:
    """A client's connection through a proxy.

    :param number: counts up from 1 within the proxy.
    """

    proxy: Proxy
    number: int
    client: Leg
    client_address: tuple[str, int]
    local_address: tuple[str, int]
    upstream: Leg | None = None
    opened_at: float = field(default_factory=time.monotonic)
    last_byte_at: float = field(default_factory=time.monotonic)
    counters: Counters = field(default_factory=Counters)
    closed: str | None = None
    record: Record = field(default_factory=Record)
    # The last look at the client's socket, by :mod:`.probes`.
    looked: Counts | None = None

    def __post_init__(self) -> None:
        self.seed = f"{self.proxy.seed}/{self.number}"
        self._holds: set[str] = set()
        self._release = trio.Event()
        self._cuts: set[str] = set()
        self.evicted = False
        self.was_given_up = False
        self._one_way = OneWay()
        # The directions of which nothing is read, each by the name of a fault.
        self._unread: dict[str, tuple[Stream, ...]] = {}
        self.lost_close: LostClose = LostClose(self)
        self._draws: dict[str, float] = {}
        self._timers: dict[str, trio.CancelScope] = {}
        self._pumps: dict[Stream, Pump] = {}
        self._scope = trio.CancelScope()
        self._pumping = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        # Those that our FIN went to, and whether the other side was left as it is.
        self._finished: list[Leg] = []
        self._one_sided = False
        self._aborted = False

    # --- life ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Dial, pump, end. Never raises for what a network does."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self.proxy.joined(self)
                    with self._pumping:
                        await self.released()
                        if await self._dial():
                            await self._pump()
                    await self._linger()
                    if self._one_sided:
                        await trio.sleep_forever()
                    self._end("fin", record.by_peer(self.record.finished_by or "client"))
                    nursery.cancel_scope.cancel()
        finally:
            self._end("internal_error", record.for_reason("internal_error", "fin"))
            self._close_sockets()
            self.proxy.left(self)

    async def _dial(self) -> bool:
        try:
            sock = await self.proxy.dial()
        except OSError as error:
            reason = error.strerror or str(error)
            self.proxy.events.add("upstream_failed", connection=self.number, error=reason)
            self.reset("upstream_failed")
            return False
        if self._aborted:  # while this was on its way back
            cuts.reset(sock)
            return False
        self.upstream = Leg("upstream", sock, sock.getpeername()[0])
        self.record.connected_at = self.proxy.events.add("connected", connection=self.number)
        if self._cuts:  # the fault took hold while the upstream was being dialled
            cuts.silence(sock)
        if self.evicted:
            cuts.evict(sock)
        self._one_way.join(self.upstream)
        return True

    async def _pump(self) -> None:
        assert self.upstream is not None
        self._pumps = {
            "upstream": Pump(self, "upstream", self.client, self.upstream),
            "downstream": Pump(self, "downstream", self.upstream, self.client),
        }
        async with trio.open_nursery() as nursery:
            for pump in self._pumps.values():
                nursery.start_soon(pump.run, nursery)

    async def _linger(self) -> None:
        """After our FIN: what a peer's kernel does whose application has closed.

        It takes the other side's FIN, and answers data with RST.
        """
        async with trio.open_nursery() as nursery:
            for leg in self._finished:
                nursery.start_soon(self._linger_on, leg)

    async def _linger_on(self, leg: Leg) -> None:
        while True:
            try:
                await readable(leg)
                data = leg.sock.recv(1)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                return
            if data:
                self._reset_leg(leg)
            return

    def _end(self, reason: str, ending: Ending) -> None:
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

    def _reset_leg(self, leg: Leg) -> None:
        if leg.sock.fileno() >= 0:
            trio.lowlevel.notify_closing(leg.sock)
            self._one_way.let_speak(leg)
            if self.evicted:
                cuts.reset_evicted(leg.sock)
            else:
                cuts.reset(leg.sock, leg.peer)

    def _close_sockets(self) -> None:
        for leg in self.legs():
            if leg.sock.fileno() < 0:
                continue
            if self.is_cut:
                # Closed as it is, the socket would retry a FIN that nobody can read, or
                # say nothing at all.
                self._reset_leg(leg)
            else:
                trio.lowlevel.notify_closing(leg.sock)
                leg.sock.close()

    def legs(self) -> Iterator[Leg]:
        """Both, or what is left of them."""
        for leg in (self.client, self.upstream):
            if leg is not None and leg.sock.fileno() >= 0:
                yield leg

    # --- what pumps ask and tell ---------------------------------------------------------

    @property
    def held(self) -> bool:
        """Whether nothing may cross at the moment."""
        return bool(self._holds)

    async def released(self) -> None:
        """Wait until the connection is no longer held."""
        while self._holds:
            await self._release.wait()

    def halted(self, stream: Stream) -> bool:
        """Whether nothing of this direction may be read, or written, at the moment."""
        return bool(self._holds) or any(stream in each for each in self._unread.values())

    async def resumed(self, stream: Stream) -> None:
        """Wait until this direction may go on."""
        while self.halted(stream):
            await self._release.wait()

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
        if leg is self.client and self.lost_close.armed:
            self.lost_close.take_reset(error)
            return
        self._end("reset", record.by_peer(leg.side, error))
        self._abort()

    # --- what faults do ------------------------------------------------------------------

    def wake(self) -> None:
        """The stream toxics changed."""
        for pump in self._pumps.values():
            pump.wake()

    def forget(self, name: str) -> None:
        """A stream toxic was removed."""
        for pump in self._pumps.values():
            pump.forget(name)

    def hold(self, name: str) -> None:
        """Let nothing cross; ``name`` is what :meth:`release` wants."""
        self._holds.add(name)

    def release(self, name: str) -> None:
        self._holds.discard(name)
        self._look_again()

    def _look_again(self) -> None:
        self._release.set()
        self._release = trio.Event()

    def stop_reading(self, name: str, streams: tuple[Stream, ...]) -> Hit:
        """Leave what comes from one side, or from both, in the kernel's buffer.

        What has been read already waits where it is, so that nothing crosses any more.
        Once that is full the kernel closes the window, and the peer's writes have to wait.
        The buffer is left as it is: to make it smaller than what the window promises has
        the kernel drop data, and a peer whose data is lost sees no closed window.
        """
        self._unread[name] = streams
        return self.hit()

    def read_again(self, name: str) -> None:
        """Undo :meth:`stop_reading`."""
        self._unread.pop(name, None)
        self._look_again()

    def hit(self, settled: bool = True) -> Hit:
        """What a fault that takes hold now has found."""
        now = time.monotonic()
        return Hit(at=now, idle_for=now - self.last_byte_at, settled=settled)

    async def silence(self, name: str) -> Hit | None:
        """Cut both sides. ``None`` when the connection ended before it could be cut."""
        hit = await self._take_hold(name, lambda leg: cuts.silence(leg.sock))
        if hit is not None:
            self._cuts.add(name)
        return hit

    async def evict(self, name: str) -> Hit | None:
        """Have both sides' next segments answered with RST. ``None`` as for a cut.

        The connection is held for good: there is no way out for what would cross.
        """
        hit = await self._take_hold(name, lambda leg: cuts.evict(leg.sock))
        if hit is not None:
            self.evicted = True
        return hit

    async def lose(self, name: str, direction: Direction) -> Hit | None:
        """Have all that is sent in one direction vanish. ``None`` as for a cut.

        The connection is not held: the other direction goes on.
        """
        hit = await self._take_hold(name, lambda leg: self._one_way.lose(name, direction, [leg]))
        self.release(name)
        return hit

    async def _take_hold(self, name: str, recipe: Callable[[Leg], None]) -> Hit | None:
        self.hold(name)
        settled = await settle(list(self.legs()))
        try:
            if self.closed is not None:  # while it settled
                raise OSError(errno.ENOTCONN, self.closed)
            probes.look(self)  # what comes from now on is not answered
            for leg in self.legs():
                recipe(leg)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EBADF, errno.EINVAL):
                raise
            self.release(name)
            return None
        return self.hit(settled)

    def heal(self, name: str) -> None:
        """Undo :meth:`silence`; what both sides had sent meanwhile arrives."""
        self._cuts.discard(name)
        if not self._cuts:
            for leg in self.legs():
                with contextlib.suppress(OSError):
                    cuts.heal(leg.sock, leg.peer)
        self.release(name)

    def restore(self, name: str) -> None:
        """Undo :meth:`lose`; what was not acknowledged meanwhile arrives."""
        self._one_way.restore(name, self.legs())

    @property
    def is_cut(self) -> bool:
        """Whether a fault keeps segments of this connection from arriving."""
        return bool(self._cuts) or self.evicted or bool(self._one_way)

    def segments(self) -> int:
        """How many segments both peers have sent, keepalive probes included."""
        return sum(counts.segments_in(leg.sock) for leg in self.legs())

    @property
    def is_settled(self) -> bool:
        """Whether all that was sent is acknowledged, on both sides."""
        try:
            return not any(cuts.unacknowledged(leg.sock) for leg in self.legs())
        except OSError:
            return False  # gone in the meantime

    def part(self, name: str, ending: Ending) -> None:
        """Close towards the client, and leave the server with a silent connection.

        :param name: of the fault.
        """
        if self.upstream is not None:
            with contextlib.suppress(OSError):  # gone in the same moment
                cuts.silence(self.upstream.sock)
        self._cuts.add(name)
        self._end(ending.how, ending)
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

    def stall(self, name: str) -> Hit:
        self.hold(name)
        return self.hit()

    def _abort(self) -> None:
        self._aborted = True
        for leg in self.legs():
            self._reset_leg(leg)
        self._scope.cancel()

    def reset(self, how: str, side: str = "both") -> Hit:
        """RST now, whatever else is on the connection.

        :param side: who is told. The other one's side then stays as it is.
        """
        hit = self.hit()
        ending = record.for_reason(how, "reset")
        if side == "both":
            self._end(how, ending)
            self._abort()
            return hit
        for leg in self._told(ending, side):
            self._reset_leg(leg)
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
        if side != "server":
            self._end(ending.reason, ending)
        self._one_sided = side != "both"
        return [
            leg
            for leg in self.legs()
            if side == "both" or (leg.side == "client") is (side == "client")
        ]

    def end(self) -> None:
        """The proxy goes: close as an application does, or RST under a cut."""
        self._end("proxy_ended", record.for_reason("proxy_ended", "fin"))
        self._scope.cancel()

    def after(self, name: str, delay_s: float, action: Any) -> None:
        """Call ``action()`` in ``delay_s`` seconds, unless :meth:`disarm` comes first."""

        async def timer() -> None:
            await trio.sleep(delay_s)
            action()

        self.beside(name, timer)

    def beside(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work()`` until it ends, the connection ends, or :meth:`disarm` comes."""
        if self._nursery is None or self.closed:
            return
        scope = self._timers[name] = trio.CancelScope()

        async def scoped() -> None:
            with scope:
                await work()

        self._nursery.start_soon(scoped)

    def disarm(self, name: str) -> None:
        scope = self._timers.pop(name, None)
        if scope is not None:
            scope.cancel()

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
            "cut": self.is_cut,
            **self.record.document(),
        }
