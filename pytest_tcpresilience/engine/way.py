"""One direction of a connection, and the steps that carry its bytes unshaped.

Owns the bytes that have been read and not yet sent, wherever they are: in a buffer or in
a borrowed pipe. Nothing here waits: a step goes on until the kernel says "not now". Who
calls it when is :mod:`.carrier`'s; what happens to bytes that a toxic wants to see is
:mod:`.pump`'s, which takes the same object over.

A message is read into a buffer and sent from it, which costs two system calls. Once a
read is large, what follows is spliced from socket to socket through a pipe, without being
copied, for as long as much comes at a time.
"""

from __future__ import annotations

import enum
import errno
import os
from typing import Protocol

from pytest_tcpresilience.engine.legs import Leg
from pytest_tcpresilience.engine.pipes import PIPE_BYTES, Pipe, Pipes
from pytest_tcpresilience.engine.toxics import Stream
from pytest_tcpresilience.kernel import cuts

BUFFER_BYTES = 256 * 1024
# A read or splice of at least so many bytes belongs to a transfer. A splice costs more
# system calls than a read, and wins by what is not copied.
BULK_BYTES = 64 * 1024
# Reads of one direction before another one has its turn: some milliseconds at most.
ROUNDS = 8
# What splice() says where a kernel or a sandbox does not let it work on these sockets.
_NO_SPLICE = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP)
# SPLICE_F_MOVE | SPLICE_F_NONBLOCK, which Python has by name on Linux only.
_SPLICE_FLAGS = 0x01 | 0x02


class Owner(Protocol):
    """Counts what crosses."""

    def moved(self, stream: Stream, count: int) -> None:
        """The engine has read bytes, or with 0 the end of the stream."""

    def sent(self, stream: Stream, count: int) -> None:
        """The engine has written bytes."""


class Broken(Exception):
    """A socket failed."""

    def __init__(self, leg: Leg, error: OSError) -> None:
        super().__init__(leg, error)
        self.leg = leg
        self.error = error


class Halt(enum.Enum):
    """Why carrying has come to a halt, and so what it waits for."""

    DRAINED = enum.auto()  # more bytes, or the end, from the source
    BLOCKED = enum.auto()  # room at the sink
    TIRED = enum.auto()  # nothing: its turn is over
    ENDED = enum.auto()  # nothing: the end of the stream has been passed on


class Kit:
    """What all ways share: a buffer, and pipes."""

    def __init__(self, pipes: Pipes | None = None) -> None:
        self.buffer = memoryview(bytearray(BUFFER_BYTES))
        self.pipes = Pipes() if pipes is None else pipes


class Way:
    """A direction: from ``source`` to ``sink``.

    :ivar left: has been read and must be sent before all that comes.
    :ivar ending: the source's end or failure is announced: read until it is there.
    :ivar end_due: the source has ended; the sink is to be told after what is ``left``.
    :ivar ended: the sink has been told.
    """

    __slots__ = (
        "_bulk",
        "_owner",
        "_pipe",
        "_piped",
        "end_due",
        "ended",
        "ending",
        "left",
        "sink",
        "source",
        "stream",
    )

    def __init__(self, owner: Owner, stream: Stream, source: Leg, sink: Leg) -> None:
        self._owner = owner
        self.stream = stream
        self.source = source
        self.sink = sink
        self.left: bytes | memoryview = b""
        self.ending = False
        self.end_due = False
        self.ended = False
        self._bulk = False
        self._pipe: Pipe | None = None
        self._piped = 0

    @property
    def pending(self) -> bool:
        """Whether there is something for the sink."""
        return bool(self.left or self._piped or (self.end_due and not self.ended))

    def carry(self, kit: Kit) -> Halt:
        """Go on until the kernel says "not now".

        :raises Broken: a socket failed.
        """
        for _ in range(ROUNDS):
            if not self.flush(kit):
                return Halt.BLOCKED
            if self.ended:
                return Halt.ENDED
            if not self._take(kit):
                return Halt.DRAINED
        return Halt.TIRED

    def settle(self, kit: Kit) -> None:
        """Give the pipe back; what was in it is ``left``."""
        if self._pipe is None:
            return
        parts = []
        while self._piped:
            part = os.read(self._pipe.read_end, self._piped)
            self._piped -= len(part)
            parts.append(part)
        if parts:  # a pipe is filled only when nothing is left
            self.left = b"".join(parts)
        self._return_pipe(kit)

    # --- to the sink ---------------------------------------------------------------------

    def flush(self, kit: Kit) -> bool:
        """Send what is pending, the end included. Whether all of it is gone.

        :raises Broken: the sink failed.
        """
        if self._piped and not self._flush_pipe(kit):
            return False
        if self.left:
            self.flush_left(len(self.left))
            if self.left:
                return False
        if self.end_due and not self.ended:
            cuts.finish(self.sink.sock)
            self.ended = True
        return True

    def flush_left(self, most: int) -> None:
        """Send of what is ``left``, where the way has been settled, at most so many bytes.

        :raises Broken: the sink failed.
        """
        count = self._send(memoryview(self.left)[:most])
        # An empty view would keep its buffer.
        self.left = self.left[count:] if count < len(self.left) else b""

    def _send(self, data: memoryview) -> int:
        try:
            count = self.sink.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise Broken(self.sink, error) from error
        self._owner.sent(self.stream, count)
        return count

    def _flush_pipe(self, kit: Kit) -> bool:
        assert self._pipe is not None
        while self._piped:
            try:
                count = _splice(self._pipe.read_end, self.sink.sock.fileno(), self._piped)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno not in _NO_SPLICE:
                    raise Broken(self.sink, error) from error
                kit.pipes.give_up()
                self.settle(kit)
                return True
            self._piped -= count
            self._owner.sent(self.stream, count)
        return True

    # --- from the source -----------------------------------------------------------------

    def _take(self, kit: Kit) -> bool:
        """Read once, and send or keep it. Whether there may be more to do at once."""
        if self._bulk and self._pipe is None:
            self._pipe = kit.pipes.borrow()
        if self._pipe is not None:
            return self._fill_pipe(kit, self._pipe)
        try:
            count = self.source.sock.recv_into(kit.buffer)
        except BlockingIOError:
            self._bulk = False
            return False
        except OSError as error:
            raise Broken(self.source, error) from error
        if not count:
            self._take_end()
            return True
        self._owner.moved(self.stream, count)
        data = kit.buffer[:count]
        sent = self._send(data)
        if sent < count:
            self.left = bytes(data[sent:])
        self._bulk = count >= BULK_BYTES
        # A short read has emptied the socket: epoll(7) on edges, question 9. An end that
        # had been announced by then makes no further edge.
        return self._bulk or self.ending or bool(self.left)

    def _fill_pipe(self, kit: Kit, pipe: Pipe) -> bool:
        try:
            count = _splice(self.source.sock.fileno(), pipe.write_end, PIPE_BYTES)
        except BlockingIOError:
            self._return_pipe(kit)
            return False
        except OSError as error:
            self._return_pipe(kit)
            if error.errno not in _NO_SPLICE:
                raise Broken(self.source, error) from error
            kit.pipes.give_up()
            return True
        if not count:
            self._return_pipe(kit)
            self._take_end()
            return True
        self._piped = count
        self._bulk = count >= BULK_BYTES
        self._owner.moved(self.stream, count)
        return True

    def _take_end(self) -> None:
        self._owner.moved(self.stream, 0)
        self.end_due = True

    def _return_pipe(self, kit: Kit) -> None:
        if self._pipe is not None:
            kit.pipes.give_back(self._pipe)
            self._pipe = None


def _splice(source: int, target: int, count: int) -> int:
    # By getattr, because it is missing where the type checker's platform may be.
    splice = getattr(os, "splice")  # noqa: B009
    moved: int = splice(source, target, count, flags=_SPLICE_FLAGS)
    return moved
