"""What happened on a proxy, in order, with times of CLOCK_MONOTONIC.

Owns the log and the waiting for news. That clock is the machine's: the test process
reads the same one, so differences between the two need no round trip.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import trio

# A test reads its events within its own length; the bound keeps a proxy that serves for
# days from growing.
KEPT = 20_000


class EventLog:
    """An append-only log of dictionaries with ``seq``, ``at``, ``kind`` and more."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._next = 1
        self._news = trio.Event()

    def add(self, kind: str, *, at: float | None = None, **fields: Any) -> float:
        """Append an event and wake whoever waits.

        :param at: when it happened, if that was not now.
        :returns: the time that it carries.
        """
        at = time.monotonic() if at is None else at
        self._events.append({"seq": self._next, "at": at, "kind": kind, **fields})
        self._next += 1
        self._news.set()
        self._news = trio.Event()
        return at

    @property
    def last(self) -> int:
        """The number of the last event; 0 when there is none."""
        return self._next - 1

    def since(self, seq: int) -> list[dict[str, Any]]:
        """The events after number ``seq``, oldest first."""
        if seq >= self.last:
            return []
        return [event for event in self._events if event["seq"] > seq]

    async def wait_since(self, seq: int, timeout_s: float) -> list[dict[str, Any]]:
        """As :meth:`since`, waiting up to ``timeout_s`` for the first one."""
        with trio.move_on_after(timeout_s):
            while not self.since(seq):
                await self._news.wait()
        return self.since(seq)
