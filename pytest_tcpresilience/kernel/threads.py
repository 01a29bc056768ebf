"""Whose a thread is: a mark that it carries, and hands on to whatever it starts.

Owns the mark, which is the name that the kernel keeps of each thread. A new thread begins
with the name of the one that has started it, whether Python or a C library did, so a mark
that is set in one thread is found on all that come from it. A thread that names itself has
left; no more is claimed of it.

Source: proc_pid_comm(5); kernel/fork.c copies ``comm`` with the rest of the task.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from dataclasses import dataclass

# The kernel keeps 15 bytes of a name.
_PREFIX = "tcpr-cell-"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class ThreadGroup:
    """The threads of one client among others in this process.

    :param mark: their name at the kernel.
    """

    mark: str

    @classmethod
    def new(cls) -> ThreadGroup:
        return cls(f"{_PREFIX}{next(_numbers) % 100_000}")

    def join(self) -> None:
        """This thread belongs to it from now on, and what it starts."""
        # Where there is no /proc nobody can read a mark either.
        with contextlib.suppress(OSError), open(_path(threading.get_native_id()), "w") as file:
            file.write(self.mark)


def mark_of(thread: int) -> str:
    """The mark of a thread of this process, by its native id; "" if it has none."""
    with contextlib.suppress(OSError), open(_path(thread)) as file:
        name = file.read().rstrip("\n")
        return name if name.startswith(_PREFIX) else ""
    return ""


def _path(thread: int) -> str:
    return f"/proc/self/task/{thread}/comm"
