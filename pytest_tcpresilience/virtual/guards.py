"""What must not happen in virtual time, noticed at once where Python lets us.

Owns an audit hook (PEP 578) that refuses real TCP sockets and ``time.sleep`` in the thread
of a virtual run, and trio's instrument that notices any other code which blocks it.
"""

from __future__ import annotations

import reprlib
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import trio

from pytest_tcpresilience.errors import UsageError

# A step of a task that takes so long blocks, if it computes for less than that share of the
# time. Who computes gets more than that of a processor, however loaded the machine.
BLOCKED_S = 1.0
COMPUTING = 0.05
# The name of the task that drives the network.
DRIVER = "virtual TCP network"

_guarded: set[int] = set()
_hooked = False


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _guarded or threading.get_ident() not in _guarded:
        return
    if event in ("socket.connect", "socket.bind") and _is_ip(args[0]):
        args[0].close()  # whoever made it does not expect this error
        raise UsageError(
            f"a real socket in a virtual network: {event.partition('.')[2]}({args[1]!r})",
            expected="trio's sockets, which this run has replaced: trio.open_tcp_stream, "
            "trio.serve_tcp, trio.socket, or a library on trio or anyio",
            happened="code of this run used the socket module itself",
            advice="use the library's trio variant, or test it with a real link (tcp_link)",
        )
    if event == "time.sleep":
        raise blocking(f"time.sleep({reprlib.repr(args[0])})")


def _is_ip(sock: object) -> bool:
    return getattr(sock, "family", None) in (socket.AF_INET, socket.AF_INET6)


def blocking(what: str) -> UsageError:
    return UsageError(
        f"{what} blocked the thread in virtual time",
        expected="code that waits with await: trio.sleep, trio's sockets and events",
        happened="while a thread is blocked, no task runs and virtual time stands still",
        advice="await trio.sleep(...) instead; what must block does not belong into virtual time",
    )


def guard_thread() -> Callable[[], None]:
    """Refuse real sockets and ``time.sleep`` in this thread, until the result is called.

    Python tells of ``time.sleep`` since 3.13; before, :class:`BlockedSteps` notices it.
    """
    global _hooked
    if not _hooked:
        # A hook cannot be removed; where no thread is guarded it returns at once.
        sys.addaudithook(_audit)
        _hooked = True
    thread = threading.get_ident()
    _guarded.add(thread)
    return lambda: _guarded.discard(thread)


class BlockedSteps(trio.abc.Instrument):
    """Reports a task's step that took long without computing.

    :param report: called with the error.
    """

    def __init__(self, report: Callable[[UsageError], None]) -> None:
        self._report = report
        self._began = _usage()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = _usage()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name == DRIVER:
            return
        wall, cpu, slept = (now - then for now, then in zip(_usage(), self._began, strict=True))
        if wall > BLOCKED_S and cpu < COMPUTING * wall and slept:
            self._report(blocking(f"task {task.name} waited {wall:.1f} s without await and"))


def _usage() -> tuple[float, float, float]:
    """Seconds of the clock and of this thread's computing, and how often it gave the
    processor up by itself, which one that computes and has to share it never does."""
    wall, cpu = time.perf_counter(), time.thread_time()
    if not hasattr(resource, "RUSAGE_THREAD"):  # Linux only
        return wall, cpu, wall
    return wall, cpu, resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
