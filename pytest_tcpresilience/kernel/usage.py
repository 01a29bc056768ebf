"""What processes use: CPU time, readiness to run, threads, descriptors.

Owns the reading of ``/proc``. A thread's ``schedstat`` tells how long it has run and how
long it was ready and had to wait for a CPU; their sum grows by one second a second for a
thread that spins, however busy the machine is.

Source of the layouts: proc(5); Documentation/scheduler/sched-stats.rst.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Collection

from pytest_tcpresilience.kernel.sockdiag import Address

# Where there is no sysconf, there is no /proc either.
_TICK_S = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01
# A process with more threads than this is judged by its first ones.
MOST_THREADS = 512


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _tasks(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(f"/proc/{pid}/task")[:MOST_THREADS]
    return []


def run_times(
    pid: int, *, without: Collection[int] = (), only: Collection[int] | None = None
) -> dict[int, tuple[float, float]]:
    """By thread: seconds that it has run, and that it was ready and waited for a CPU.

    :param without: threads that do not count, by their native ids.
    :param only: those that count, where they are known.
    :returns: nothing for a process that is gone.
    """
    found: dict[int, tuple[float, float]] = {}
    for name in _tasks(pid) if only is None else map(str, only):
        if int(name) in without:
            continue
        with contextlib.suppress(OSError, ValueError):  # it has just ended
            try:
                ran, waited = _read(f"/proc/{pid}/task/{name}/schedstat").split()[:2]
                found[int(name)] = int(ran) / 1e9, int(waited) / 1e9
            except FileNotFoundError:  # a kernel without CONFIG_SCHED_INFO
                found[int(name)] = _cpu_of(f"/proc/{pid}/task/{name}/stat"), 0.0
    return found


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU time of a process so far; 0 if it is gone."""
    with contextlib.suppress(OSError, ValueError):
        return _cpu_of(f"/proc/{pid}/stat")
    return 0.0


def _cpu_of(path: str) -> float:
    # The name before it is in parentheses and may contain some, and blanks.
    fields = _read(path).rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def descendants(pid: int, *, without: Collection[int] = ()) -> list[int]:
    """The processes that ``pid`` has started, and theirs.

    :param without: processes that do not count, with all that they have started.
    """
    found = descendants_by_thread(pid, without=without)
    return [child for children in found.values() for child in children]


def descendants_by_thread(pid: int, *, without: Collection[int] = ()) -> dict[int, list[int]]:
    """As :func:`descendants`, by the thread of ``pid`` that they come from.

    What a thread has started that has ended is another one's, of the kernel's choice.
    """
    found: dict[int, list[int]] = {}
    for name in _tasks(pid):
        with contextlib.suppress(OSError, ValueError):
            for child in map(int, _read(f"/proc/{pid}/task/{name}/children").split()):
                if child not in without:
                    theirs = [child, *descendants(child, without=without)]
                    found.setdefault(int(name), []).extend(theirs)
    return found


def descriptor_count(*, without: Collection[Address] = ()) -> int:
    """Open file descriptors of this process; 0 where there is no ``/proc``.

    :param without: sockets that are connected to one of these do not count.
    """
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return 0
    return sum(_counts(number, without) for number in numbers)


def _counts(number: int, without: Collection[Address]) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return True
        duplicate = os.dup(number)
    except OSError:  # the listing's own, or closed meanwhile
        return False
    # A socket object of ours would change the mode that the owner's shares with it, where
    # socket.setdefaulttimeout() is in use; it is changed back at once.
    blocking = os.get_blocking(duplicate)
    try:
        sock = socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        return True
    with sock:
        if os.get_blocking(duplicate) != blocking:
            os.set_blocking(duplicate, blocking)
        try:
            return sock.getpeername()[:2] not in without
        except (OSError, TypeError):  # not connected; no internet address
            return True
