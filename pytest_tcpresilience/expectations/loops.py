"""Which event loop a block runs in, if any, without importing one that is not in use."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


def in_trio() -> bool:
    """Whether this is a trio task."""
    module = sys.modules.get("trio")
    return module is not None and bool(module.lowlevel.in_trio_task())


def asyncio_task() -> asyncio.Task[Any] | None:
    """The running asyncio task, if this is one."""
    module = sys.modules.get("asyncio")
    if module is None:
        return None
    try:
        task: asyncio.Task[Any] | None = module.current_task()
    except RuntimeError:
        return None
    return task


def in_event_loop() -> bool:
    """Whether to block here would block an event loop."""
    if in_trio():
        return True
    module = sys.modules.get("asyncio")
    if module is None:
        return False
    try:
        module.get_running_loop()
    except RuntimeError:
        return False
    return True


async def sleep(seconds: float) -> None:
    """Of the loop that is running, asyncio's or trio's."""
    if in_trio():
        import trio

        await trio.sleep(seconds)
    else:
        import asyncio

        await asyncio.sleep(seconds)
