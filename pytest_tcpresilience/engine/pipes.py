"""Pipes that bytes are spliced through, lent for the length of a transfer.

Owns their number and size. What goes through them is :mod:`.way`'s.

The kernel counts the pages of the pipes of an unprivileged user
(``/proc/sys/fs/pipe-user-pages-soft``, 16384 by default: 64 pipes of 1 MiB, for all
processes of the user together). Past that a pipe cannot grow, and a new one has two
pages. So a connection borrows a pipe while it has much to carry, and where a pipe comes
out too small to be worth it there is none: the caller then uses a buffer.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

# linux/fcntl.h. Python knows it by name from 3.10 on, but not on every platform.
F_SETPIPE_SZ = 1031
F_GETPIPE_SZ = 1032
# As /proc/sys/fs/pipe-max-size has it, which no unprivileged pipe may exceed.
PIPE_BYTES = 1024 * 1024
# What Linux gives without being asked. In less there is nothing to be won over a buffer.
LEAST_PIPE_BYTES = 64 * 1024
# Kept for the next transfer. More than two transfers at a time share the CPUs anyway.
SPARE = 4
# After there was none, before the kernel is asked again.
RETRY_S = 1.0


@dataclass(frozen=True)
class Pipe:
    """Both ends, non-blocking."""

    read_end: int
    write_end: int

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self.write_end)


def grow(write_end: int) -> int:
    """Ask for a large pipe. The size that it has then, in bytes."""
    import fcntl  # POSIX only; the plugin is loaded on every platform

    with contextlib.suppress(OSError):  # EPERM, EBUSY: this user has enough of them
        fcntl.fcntl(write_end, F_SETPIPE_SZ, PIPE_BYTES)
    return fcntl.fcntl(write_end, F_GETPIPE_SZ)


class Pipes:
    """The pipes that are not in use.

    :param available: whether the platform can splice at all.
    :param grow: as the function of that name.
    """

    def __init__(
        self,
        *,
        available: bool = sys.platform == "linux" and hasattr(os, "splice"),
        grow: Callable[[int], int] = grow,
    ) -> None:
        self.available = available
        self._grow = grow
        self._spare: list[Pipe] = []
        self._none_until = 0.0

    def borrow(self) -> Pipe | None:
        """An empty pipe, or ``None`` where there is none to be had."""
        if not self.available:
            return None
        if self._spare:
            return self._spare.pop()
        now = time.monotonic()
        if now < self._none_until:
            return None
        pipe = self._make()
        if pipe is None:
            self._none_until = now + RETRY_S
        return pipe

    def _make(self) -> Pipe | None:
        try:
            read_end, write_end = os.pipe()
        except OSError:  # out of descriptors
            return None
        pipe = Pipe(read_end, write_end)
        for end in (read_end, write_end):
            os.set_blocking(end, False)
        if self._grow(write_end) < LEAST_PIPE_BYTES:
            pipe.close()
            return None
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """Return an empty pipe."""
        if self.available and len(self._spare) < SPARE:
            self._spare.append(pipe)
        else:
            pipe.close()

    def give_up(self) -> None:
        """Lend none any more: what they were for does not work here."""
        self.available = False
        self.close()

    def close(self) -> None:
        """Close those that are not in use."""
        while self._spare:
            self._spare.pop().close()
