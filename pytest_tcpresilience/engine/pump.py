"""Moves the bytes of one direction of a connection.

Owns the order of the bytes: none is lost, doubled or overtaken, also when toxics come
and go in the middle of a transfer. It does not know which toxics there are (it asks
:func:`.shaping.decide`), nor how a connection ends (it tells its connection).

With no stream toxic the reader sends what it has read itself. With one, it fills a
queue, and a writer, started when first needed, empties it. The reader sends directly
again once the queue is empty and the writer is not in the middle of a chunk.

It carries what :mod:`.carrier` may not: bytes that a toxic wants to see, and those of a
connection that is held. All that it knows outlives its tasks, so that they can be
cancelled at any moment and the next ones, or the carrier, go on where they were.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import deque
from typing import TYPE_CHECKING

import trio

from pytest_tcpresilience.engine import shaping
from pytest_tcpresilience.engine.legs import readable, writable
from pytest_tcpresilience.engine.way import Broken, Way

if TYPE_CHECKING:
    from pytest_tcpresilience.engine.connection import Connection

READ_SIZE = 128 * 1024


class Pump:
    """One direction of a connection, in trio."""

    def __init__(self, connection: Connection, way: Way) -> None:
        self._connection = connection
        self._way = way
        self._stream = way.stream
        self._queue: deque[shaping.Chunk] = deque()
        self._queued = 0
        self._flow = shaping.Flow()
        # One for each direction: what one of them carries does not change the other's luck.
        self._random = random.Random(f"{connection.seed}/{way.stream}")
        self._sending = False
        self._closing = False
        self._writer_started = False
        self._changed = trio.Event()

    @property
    def at_rest(self) -> bool:
        """Whether all that is still to be sent is the way's."""
        return not (self._queue or self._sending)

    def wake(self) -> None:
        """Look again: the toxics changed, or the queue did."""
        self._changed.set()
        self._changed = trio.Event()

    def forget(self, name: str) -> None:
        """A toxic was removed."""
        self._flow = self._flow.without(name)

    async def run(self, nursery: trio.Nursery) -> None:
        """Read until the source ends. ``nursery`` takes the writer, if one is needed.

        To be called again where it was cancelled, if the connection goes on.
        """
        # ClosedResourceError: a fault closed the socket while this waited for it.
        with contextlib.suppress(trio.ClosedResourceError):
            await self._read(nursery)

    async def _read(self, nursery: trio.Nursery) -> None:
        if not await self._flush():
            return
        self._sending = self._writer_started = False
        if self._closing:
            await self._close()
            return
        if self._queue:
            self._start_writer(nursery)
        if not self._source_ended():
            await self._read_on(nursery)

    def _source_ended(self) -> bool:
        return self._way.end_due or bool(self._queue and not self._queue[-1].data)

    async def _read_on(self, nursery: trio.Nursery) -> None:
        while True:
            data = await self._receive()
            if data is None:
                return
            if not self.at_rest or self._connection.shapes(self._stream):
                self._enqueue(data, nursery)
            elif not await self._send(data):
                return
            if not data:
                return
            # With an empty queue there is nothing to work out, as for every read of a link
            # without toxics.
            while self._queue and self._queued > shaping.most_held(
                self._connection.shaping(self._stream)
            ):
                await self._changed.wait()

    async def _receive(self) -> bytes | None:
        """The next bytes; ``b""`` at the end of the stream; ``None`` when it broke."""
        source = self._way.source
        while True:
            await readable(source)
            if self._connection.halted(self._stream):
                await self._connection.resumed(self._stream)
                continue
            try:
                data = source.sock.recv(READ_SIZE)
            except BlockingIOError:
                continue
            except OSError as error:
                self._connection.broke(source, error)
                return None
            self._connection.moved(self._stream, len(data))
            return data

    def _enqueue(self, data: bytes, nursery: trio.Nursery) -> None:
        chunk = shaping.stamp(data, time.monotonic(), self._random)
        self._queue.append(chunk)
        self._queued += len(data)
        self.wake()
        self._start_writer(nursery)

    def _start_writer(self, nursery: trio.Nursery) -> None:
        if not self._writer_started:
            self._writer_started = True
            nursery.start_soon(self._run_writer)

    async def _run_writer(self) -> None:
        with contextlib.suppress(trio.ClosedResourceError):
            await self._write()

    async def _write(self) -> None:
        while True:
            while not self._queue:
                await self._changed.wait()
            chunk = self._queue[0]
            now = time.monotonic()
            active = self._connection.shaping(self._stream)
            verdict = shaping.decide(active, chunk, self._flow, now)
            if isinstance(verdict, shaping.Wait):
                with trio.move_on_after(verdict.until - now):
                    await self._changed.wait()
            elif isinstance(verdict, shaping.Drop):
                self._take(chunk.left)
                self.wake()
            elif isinstance(verdict, shaping.Close):
                await self._close()
                return
            elif not await self._forward(chunk, verdict):
                return

    def _take(self, count: int) -> None:
        """Remove bytes from the head of the queue, or the end of the stream."""
        chunk = self._queue[0]
        self._queued -= count
        if count < chunk.left:
            self._queue[0] = shaping.advance(chunk, count, self._random)
        else:
            self._queue.popleft()

    async def _forward(self, chunk: shaping.Chunk, verdict: shaping.Forward) -> bool:
        """Send what the verdict says. Whether more may follow."""
        self._flow = verdict.flow
        self._take(verdict.count)
        self._sending = True
        self._closing = verdict.close
        alive = await self._send(chunk.piece(verdict.count))
        self._sending = False
        self.wake()
        if alive and verdict.close:
            await self._close()
            return False
        if self._queue:
            # A slicer makes thousands of pieces from one read; others want a turn.
            await trio.lowlevel.checkpoint()
        else:
            self._connection.carriage.came_to_rest()
        return alive and bool(chunk.data)

    async def _close(self) -> None:
        await self._connection.released()
        self._connection.hang_up("limit_data")

    async def _send(self, data: bytes | memoryview) -> bool:
        """Send all of it, or FIN for no bytes.

        :returns: whether the sink still takes data.
        """
        if data:
            self._way.left = data
        else:
            self._way.end_due = True
        return await self._flush()

    async def _flush(self) -> bool:
        """Send what the way still has. Whether the sink still takes data."""
        way = self._way
        while way.left or (way.end_due and not way.ended):
            if self._connection.halted(self._stream):
                await self._connection.resumed(self._stream)
                continue
            if not way.left:
                await self._connection.finish(self._stream, way.sink)
                way.ended = True
                return True
            try:
                way.flush_left(self._connection.room(len(way.left)))
            except Broken as broken:
                self._connection.broke(broken.leg, broken.error)
                return False
            if way.left:
                await writable(way.sink)
        return True
