"""The process's table of file descriptors, and what is kept back for when it is full.

Owns the limit, and a few descriptors in reserve, so that whoever asks the API why nothing
works any more gets an answer. What a full table means to a link is its proxy's.
"""

from __future__ import annotations

import contextlib
import errno
import os

# From accept() and socket(): this process's table, the machine's, no memory for another.
FULL = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
# How long to leave a listener alone when there is none free.
PAUSE_S = 0.050
# Calls that are answered side by side while the table is full.
KEPT_BACK = 4


def raise_limit() -> None:
    """As many descriptors as the process may have. Each connection wants two.

    The usual limit of 1024 is for select(); Go's programs, Toxiproxy among them, raise it
    by themselves.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # POSIX only

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Reserve:
    """Descriptors that are given up, and taken back, one at a time."""

    def __init__(self) -> None:
        self._kept: list[int] = []
        for _ in range(KEPT_BACK):
            self.take_back()

    def give_up(self) -> bool:
        """Free one. ``False`` when there is none left."""
        if not self._kept:
            return False
        os.close(self._kept.pop())
        return True

    def take_back(self) -> None:
        """Keep one more, if there is one and it is wanted."""
        if len(self._kept) < KEPT_BACK:
            with contextlib.suppress(OSError):
                self._kept.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        while self.give_up():
            pass
