"""Carries connections that no fault has hold of.

Owns the epoll that watches their sockets, and who has a connection: the carrier between
:meth:`Carrier.take` and :meth:`Carrier.dismiss`, and the connection's own task otherwise.
How bytes cross is :mod:`.way`'s. It knows neither faults nor toxics: whoever needs the
bytes, the silence or the sockets of a connection dismisses it first.

One task carries all of them, with an epoll of its own, which trio waits for as for any
other descriptor. A connection that is carried costs no task, and its sockets are
registered once, for edges, where trio registers a socket for each wait.

After :data:`TURNS_S` of carrying, the rest of the engine has its turn, so that a call of
the API does not wait for the data path, however many transfers there are. (Tried and
rejected: a thread. It wins nothing on a round trip, where the system calls are what
costs, and two hand-overs between threads made a short connection dearer by half.)
"""

from __future__ import annotations

import contextlib
import errno
import select
import time
from collections import deque
from collections.abc import Callable

import trio

from pytest_tcpresilience.engine.way import Halt, Kit, Way

MOST_EVENTS = 128
# Carrying in one go, at most, and one turn more. Each turn is some milliseconds at most.
TURNS_S = 0.002


class Ride:
    """A connection while the carrier has it.

    :param done: called when nothing is left to carry.
    :ivar failure: why it ended, if not by the ends of both streams. Without it, and before
        these ends, a source has failed in a way that no read can tell, because its stream has
        ended, or what was read of it is in the way.
    """

    __slots__ = ("descriptors", "done", "eager", "failed", "failure", "over", "ways")

    def __init__(self, ways: tuple[Way, Way], done: Callable[[Ride], None]) -> None:
        self.ways = ways
        # Of the sources; each is the other way's sink.
        self.descriptors = (ways[0].source.sock.fileno(), ways[1].source.sock.fileno())
        self.done = done
        # Those that have found their sink full.
        self.eager: tuple[Way, ...] = ()
        # Sources with an error that was announced and not read yet.
        self.failed: tuple[Way, ...] = ()
        self.over = False
        self.failure: Exception | None = None


class Carrier:
    """:param kit: what the ways share; for tests."""

    def __init__(self, kit: Kit | None = None) -> None:
        self._kit = Kit() if kit is None else kit
        self._rides: dict[int, Ride] = {}
        self._epoll = select.epoll()
        # Descriptors with what is to be looked at. A turn that is over goes to the end.
        self._turns: deque[tuple[int, int]] = deque()

    def close(self) -> None:
        """Dismiss all connections. There is no taking any more."""
        for ride in set(self._rides.values()):
            self.dismiss(ride)
        self._epoll.close()
        self._kit.pipes.close()

    async def run(self) -> None:
        """Carry until cancelled."""
        while True:
            if self._turns:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            self._turns.extend(self._epoll.poll(0, MOST_EVENTS))
            self._take_turns()

    def take(self, ways: tuple[Way, Way], done: Callable[[Ride], None]) -> Ride:
        """Carry both directions of a connection, beginning with what is left of before.

        :param done: called at the end of both streams, or when a socket fails, also before
            this returns. The connection has been dismissed then.
        :raises OSError: the kernel has no room for more in an epoll (ENOSPC, ENOMEM), or
            the engine is ending.
        """
        if self._epoll.closed:
            raise OSError(errno.ESHUTDOWN, "the carrier has been closed")
        ride = Ride(ways, done)
        # What has come by now, and often there is a request, needs no event.
        late = [self._turn(ride, descriptor, select.EPOLLIN) for descriptor in ride.descriptors]
        if ride.over:
            return ride
        self._turns.extend(turn for turns in late for turn in turns)
        try:
            for descriptor in ride.descriptors:
                self._rides[descriptor] = ride
                self._epoll.register(descriptor, _EDGES)
            for way in ways:
                if way.pending:
                    self._await_room(ride, way)
        except OSError:
            self._let_go(ride)
            raise
        return ride

    def dismiss(self, ride: Ride) -> None:
        """Have the connection back, with nothing lost. Does nothing the second time."""
        if not ride.over:
            self._let_go(ride)

    def _let_go(self, ride: Ride) -> None:
        ride.over = True
        for way, descriptor in zip(ride.ways, ride.descriptors, strict=True):
            way.settle(self._kit)
            if self._rides.pop(descriptor, None) is not None:
                with contextlib.suppress(OSError):  # it could not be registered
                    self._epoll.unregister(descriptor)
        if not self._rides:  # what has nothing to carry keeps no descriptors
            self._kit.pipes.close()

    def _await_room(self, ride: Ride, way: Way) -> None:
        """From now on, hear of room at the sink: for good, since it will block again.

        Room that is there already is an edge, too.
        """
        if way not in ride.eager and ride.descriptors[0] in self._rides:
            ride.eager += (way,)
            sink = ride.descriptors[1 - ride.ways.index(way)]
            self._epoll.modify(sink, _EDGES | select.EPOLLOUT)

    def _take_turns(self) -> None:
        until = time.monotonic() + TURNS_S
        while self._turns:
            descriptor, mask = self._turns.popleft()
            # Its connection may have been dismissed since, and the number may even be
            # another one's by now. That one then looks at its sockets once in vain.
            ride = self._rides.get(descriptor)
            if ride is not None:
                self._turns.extend(self._turn(ride, descriptor, mask))
            if time.monotonic() > until:
                break

    def _turn(self, ride: Ride, descriptor: int, mask: int) -> list[tuple[int, int]]:
        """Do what an event asks for. The events that stand for the rest, if there is one."""
        if ride.over:
            return []
        try:
            tired = self._step(ride, descriptor, mask)
        except Exception as error:  # of a socket, or a mistake of ours: one connection's
            ride.failure = error
        else:
            if tired is not None and not (ride.ways[0].ended and ride.ways[1].ended):
                return tired
        self._let_go(ride)
        ride.done(ride)
        return []

    def _step(self, ride: Ride, descriptor: int, mask: int) -> list[tuple[int, int]] | None:
        """``None`` where an error is left that no read tells."""
        tired = []
        for way, source in zip(ride.ways, ride.descriptors, strict=True):
            if source == descriptor:
                wanted = mask & _READABLE and not way.ended
                if mask & _ENDINGS:
                    way.ending = True
                if mask & select.EPOLLERR and way not in ride.failed:
                    ride.failed += (way,)
            else:
                wanted = mask & select.EPOLLOUT and way.pending
            halt = way.carry(self._kit) if wanted else Halt.ENDED if way.ended else None
            if way in ride.failed and halt not in (Halt.TIRED, None):
                return None
            if halt is Halt.BLOCKED:
                self._await_room(ride, way)
            elif halt is Halt.TIRED:
                tired.append((source, select.EPOLLIN))
        return tired


_ENDINGS = 0
_READABLE = 0
_EDGES = 0
if hasattr(select, "epoll"):
    _ENDINGS = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
    _READABLE = select.EPOLLIN | _ENDINGS
    _EDGES = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


_current: trio.lowlevel.RunVar[Carrier | None] = trio.lowlevel.RunVar("carrier", default=None)


def current() -> Carrier | None:
    """The carrier of this trio run; ``None`` where there is none."""
    return _current.get()


async def carry() -> None:
    """Give this trio run a carrier, where the platform allows it, until cancelled."""
    if not hasattr(select, "epoll"):
        return
    carrier = Carrier()
    _current.set(carrier)
    try:
        await carrier.run()
    finally:
        _current.set(None)
        carrier.close()
