"""The last stage of the rescue: end a block that neither RST nor refusal has ended.

Owns one way for each kind of block: cancel a trio scope, cancel an asyncio task, signal
the main thread, raise in another thread. It does not decide when; that is
:mod:`.lifeguard`'s.

The gentle ways come first. A cancelled task can clean up, while an exception raised in
the middle of an event loop would break the loop. A signal is used for an asynchronous
block only while that block's own code is running, that is, blocking its loop.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from pytest_tcpresilience.expectations.loops import asyncio_task, in_trio

if TYPE_CHECKING:
    import asyncio

    import trio


class RescueInterrupt(BaseException):
    """Raised in a block that had to be interrupted. Not an ``Exception``, so that a
    client which swallows every error does not swallow this one."""


class Interrupter(Protocol):
    """How one block is ended.

    ``interrupt`` is called from another thread, again and again until the block has
    ended; ``attempt`` counts from 0.
    """

    def interrupt(self, attempt: int) -> None: ...

    def finish(self, error: BaseException | None) -> bool:
        """The block has ended. Whether ``error`` is this interrupter's own doing."""
        ...


# --- by force -----------------------------------------------------------------------------


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    """The frame and its callers."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def awaiting(coroutine: Any) -> Iterator[FrameType]:
    """The frames of a suspended coroutine and of those that it awaits, outermost first."""
    waiting = coroutine
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            yield frame
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)


def _up_to(block: FrameType, frame: FrameType | None) -> list[FrameType]:
    """The frames that run on the block's behalf, from ``frame`` out to the block's."""
    found: list[FrameType] = []
    for each in _stack(frame):
        found.append(each)
        if each is block:
            break
    return found


# Packages whose state a raise between two lines would break.
LOOPS = frozenset({"trio", "asyncio", "anyio", "outcome"})


class Unwinder:
    """For a client that catches even ``BaseException`` and tries again.

    A trace function raises at each line that runs in the block, its except clauses
    included, until the block is left. Python switches a trace function off when it
    raises; a profile function, which never does, switches it on again at the next call
    or return. Both replace a debugger's or a coverage tool's for that long.

    :param block: the frame that holds the ``with`` statement, and has just entered it.
    :param loop_inside: the block runs under an event loop of its thread, whose code must
        not be left at any line.
    """

    def __init__(self, block: FrameType, *, loop_inside: bool) -> None:
        self._block = block
        self._loop_inside = loop_inside
        self._with_line = block.f_lineno
        self._before: tuple[Any, Any] | None = None
        self._failed: tuple[FrameType, int] | None = None

    def begin(self, frames: Iterable[FrameType]) -> None:
        """From the block's thread; again, if it was switched off meanwhile.

        :param frames: those that run, or wait, on the block's behalf. They exist already,
            and a trace function takes hold of a frame by itself only where it begins.
        """
        if self._before is None:
            self._before = sys.gettrace(), sys.getprofile()
        sys.setprofile(self._profile)
        self._arm(frames)

    def _arm(self, frames: Iterable[FrameType]) -> None:
        for frame in frames:
            frame.f_trace = self._trace
        sys.settrace(self._trace)

    def end(self) -> None:
        """From the block's thread, when the block has been left."""
        if self._before is not None:
            trace, profile = self._before
            self._before = None
            sys.settrace(trace)
            sys.setprofile(profile)

    def _profile(self, frame: FrameType, _event: str, _arg: object) -> None:
        if self._before is not None and sys.gettrace() is None:
            self._arm(_up_to(self._block, frame))

    def _trace(self, frame: FrameType, event: str, _arg: object) -> Any:
        if self._before is None:
            return None
        if event == "exception":
            self._failed = frame, frame.f_lineno
        elif event == "line" and self._may_raise(frame):
            raise RescueInterrupt
        return self._trace

    def _may_raise(self, frame: FrameType) -> bool:
        # Leaving the block runs the line of the `with` statement.
        leaving = frame is self._block and frame.f_lineno == self._with_line
        # CPython 3.13 runs a line again that an exception has just been thrown into. Its
        # own try would catch what is raised there; the except clause comes next.
        again = self._failed == (frame, frame.f_lineno)
        self._failed = None
        return not leaving and not again and self.may_leave(frame)

    def may_leave(self, frame: FrameType | None) -> bool:
        """Whether the frame runs for the block, and may be left at any line.

        Not what runs on behalf of the block's event loop, in whatever module: to leave
        trio's code between entering and recording a cancel scope corrupts its state. And
        not this project's code, which is on its way out of the block.
        """
        for each in _stack(frame):
            if each is self._block:
                return True
            package = each.f_globals.get("__name__", "").partition(".")[0]
            if package == "pytest_tcpresilience":
                return False
            if package in LOOPS and (self._loop_inside or each is frame):
                return False
        return False


# --- the main thread ----------------------------------------------------------------------

# A real-time signal that nobody uses: SIGALRM is pytest-timeout's, SIGUSR1 and 2 are
# applications'. The handler stays installed, because a signal that arrives after its
# default action came back would end the process.
INTERRUPT_SIGNAL = signal.SIGRTMAX - 3 if sys.platform == "linux" else getattr(signal, "SIGUSR2", 0)
# Interrupts that a client may swallow before it is unwound by force.
SWALLOWED_MOST = 2

_armed: MainThread | None = None


def _on_signal(_number: int, frame: FrameType | None) -> None:
    if _armed is not None:
        _armed.strike(frame)


class MainThread:
    """Raise in the main thread, whatever it is blocked in.

    :param block: the frame that holds the ``with`` statement.
    :param loop_inside: the block runs under an event loop of this thread, so nothing may
        be raised while the block's own code is not on the stack.
    """

    def __init__(self, block: FrameType, unwinder: Unwinder, *, loop_inside: bool) -> None:
        global _armed
        self._block = block
        self._loop_inside = loop_inside
        self._unwinder = unwinder
        self._lock = threading.Lock()
        self._over = False
        self._strikes = 0
        self._outer = _armed
        signal.signal(INTERRUPT_SIGNAL, _on_signal)
        _armed = self

    def interrupt(self, attempt: int) -> None:
        with self._lock:  # finish() takes it too: no signal is sent once it has returned
            if not self._over:
                signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT_SIGNAL)

    def strike(self, frame: FrameType | None) -> None:
        """In the main thread, between two bytecodes of ``frame``."""
        if self._over or (self._loop_inside and self._block not in _stack(frame)):
            return
        self._strikes += 1
        safe = not self._loop_inside or self._unwinder.may_leave(frame)
        if not safe or self._strikes > SWALLOWED_MOST:
            # It raises as soon as the block is at a line that may be left.
            self._unwinder.begin(_up_to(self._block, frame))
        if safe:
            raise RescueInterrupt

    def finish(self, error: BaseException | None) -> bool:
        global _armed
        self._over = True
        self._unwinder.end()
        with self._lock:
            _armed = self._outer
        return isinstance(error, RescueInterrupt)


# --- other threads ------------------------------------------------------------------------


class OtherThread:
    """Raise in a thread that is not the main one, as soon as it runs Python code."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._over = False

    def interrupt(self, attempt: int) -> None:
        with self._lock:
            if not self._over:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread), ctypes.py_object(RescueInterrupt)
                )

    def finish(self, error: BaseException | None) -> bool:
        self._over = True
        try:
            with self._lock:
                pass
            # One that was sent and has not arrived does so at the next jump backwards.
            # (Calling it off instead leaves CPython 3.11 with its pending flag set for
            # good, and a trace function then hangs the interpreter.)
            for _ in range(10):
                pass
        except RescueInterrupt:
            return True
        return isinstance(error, RescueInterrupt)


# --- event loops --------------------------------------------------------------------------


class AsyncioTask:
    """Cancel the block's task; signal if the block is blocking its loop."""

    def __init__(self, task: asyncio.Task[Any], unwinder: Unwinder, signaller: Interrupter) -> None:
        self._task = task
        self._loop = task.get_loop()
        self._unwinder = unwinder
        self._signaller = signaller
        self._over = False
        self._cancels = 0

    def interrupt(self, attempt: int) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._cancel)
        if attempt >= 2:
            self._signaller.interrupt(attempt)

    def _cancel(self) -> None:
        if not self._over:
            self._cancels += 1
            if self._cancels > SWALLOWED_MOST:
                # It takes hold when the cancellation is delivered.
                self._unwinder.begin(awaiting(self._task.get_coro()))
            self._task.cancel()

    def finish(self, error: BaseException | None) -> bool:
        import asyncio

        self._over = True
        self._unwinder.end()
        signalled = self._signaller.finish(error)
        if sys.version_info >= (3, 11):
            for _ in range(self._cancels):
                self._task.uncancel()
        return signalled or (self._cancels > 0 and isinstance(error, asyncio.CancelledError))


class TrioTask:
    """Cancel a scope around the block; signal if the block is blocking its loop."""

    def __init__(self, unwinder: Unwinder, signaller: Interrupter) -> None:
        import trio

        self._unwinder = unwinder
        self._task = trio.lowlevel.current_task()
        self._token = trio.lowlevel.current_trio_token()
        self._over = False
        self._scope: trio.CancelScope = trio.CancelScope()
        self._scope.__enter__()
        self._signaller = signaller

    def interrupt(self, attempt: int) -> None:
        import trio

        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._cancel, attempt)
        if attempt >= 2:
            self._signaller.interrupt(attempt)

    def _cancel(self, attempt: int) -> None:
        if self._over:
            return
        if attempt > SWALLOWED_MOST:
            self._unwinder.begin(awaiting(self._task.coro))
        self._scope.cancel()

    def finish(self, error: BaseException | None) -> bool:
        self._over = True
        self._unwinder.end()
        signalled = self._signaller.finish(error)
        kind = type(error) if error is not None else None
        trace = error.__traceback__ if error is not None else None
        swallowed = bool(self._scope.__exit__(kind, error, trace))
        return signalled or swallowed


def for_block(block: FrameType) -> Interrupter:
    """The right interrupter for the block that begins in this frame, in this thread."""
    in_main = threading.current_thread() is threading.main_thread()
    task = asyncio_task()
    loop_inside = in_trio() or task is not None
    unwinder = Unwinder(block, loop_inside=loop_inside)
    if loop_inside:
        signaller = MainThread(block, unwinder, loop_inside=True) if in_main else _Nothing()
        if task is None:
            return TrioTask(unwinder, signaller)
        return AsyncioTask(task, unwinder, signaller)
    return MainThread(block, unwinder, loop_inside=False) if in_main else OtherThread()


class _Nothing:
    """For a loop in another thread: cancelling is all that can be done to it."""

    def interrupt(self, attempt: int) -> None:
        pass

    def finish(self, error: BaseException | None) -> bool:
        return False
