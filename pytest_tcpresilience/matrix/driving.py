"""How one cell is driven: a plain function in a thread, or a coroutine in a loop of its own.

Owns the differences between the three kinds of clients, so that what happens in a cell is
written once (:mod:`.cell`). A coroutine that never waits for a loop is driven by hand.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.expectations import loops
from pytest_tcpresilience.expectations.interrupt import OtherThread

# A loop that waits for the others looks so often; it must not block, for the client may have
# heartbeats to send meanwhile.
LOOK_S = 0.010


class Driver(Protocol):
    """What a cell asks of whoever drives it."""

    async def call(self, role: str, function: Callable[..., Any], *args: Any) -> Any:
        """One of the client's functions; what comes of it."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    async def wait(self, event: threading.Event) -> None: ...

    def end(self) -> None:
        """Have it stop, if it can be stopped. From another thread."""
        ...


class InThread:
    """For clients that block."""

    def __init__(self) -> None:
        self._interrupter = OtherThread()

    async def call(self, role: str, function: Callable[..., Any], *args: Any) -> Any:
        result = function(*args)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise UsageError(
                f"{role} has returned something to await, and nobody awaits it in a thread",
                expected="plain functions, or a runner with an event loop",
                happened=f"it is a {type(result).__name__}",
                advice='give the Client runner="asyncio" or runner="trio", or write async def',
            )
        return result

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def wait(self, event: threading.Event) -> None:
        event.wait()

    def end(self) -> None:
        self._interrupter.interrupt(0)

    def finish(self) -> bool:
        """In the thread: it is over. Whether an interrupt was still on its way."""
        return self._interrupter.finish(None)


class InLoop:
    """For coroutines, on asyncio or trio.

    :param cancel: the way to cancel its task from another thread.
    """

    def __init__(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel

    async def call(self, role: str, function: Callable[..., Any], *args: Any) -> Any:
        result = function(*args)
        return await result if inspect.isawaitable(result) else result

    async def sleep(self, seconds: float) -> None:
        await loops.sleep(seconds)

    async def wait(self, event: threading.Event) -> None:
        while not event.is_set():
            await loops.sleep(LOOK_S)

    def end(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._cancel()


Life = Callable[[Driver], Coroutine[Any, Any, None]]


def _drive_in_thread(life: Life) -> None:
    driver = InThread()
    coroutine = life(driver)
    try:
        coroutine.send(None)
    except StopIteration:
        return
    finally:
        driver.finish()
    coroutine.close()
    raise AssertionError("a client that blocks has waited for an event loop")


def _drive_asyncio(life: Life) -> None:
    import asyncio

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        loop, cancel = asyncio.get_running_loop(), task.cancel
        await life(InLoop(lambda: loop.call_soon_threadsafe(cancel)))

    asyncio.run(main())


def _drive_trio(life: Life) -> None:
    import trio

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            await life(InLoop(lambda: token.run_sync_soon(scope.cancel)))

    trio.run(main)


DRIVERS: Mapping[str, Callable[[Life], None]] = {
    "thread": _drive_in_thread,
    "asyncio": _drive_asyncio,
    "trio": _drive_trio,
}
