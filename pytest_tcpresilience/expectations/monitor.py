"""Watches the health of the client's process while a block waits.

Owns one thread that reads ``/proc`` and makes round trips into the block's event loop.
It takes nothing from the client but a callback that does nothing, 20 times a second. What
the readings mean is :mod:`pytest_tcpresilience.evidence.health`'s.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_tcpresilience.evidence.health import Counts, Health, Lag, Sample, summarize
from pytest_tcpresilience.expectations.loops import asyncio_task, in_trio
from pytest_tcpresilience.kernel import usage

if TYPE_CHECKING:
    from pytest_tcpresilience.link import Link

INTERVAL_S = 0.050
# Of the time, at most this share goes into reading, however many threads there are.
SHARE = 0.02
# Children come and go more slowly than that, and looking for them costs as much again.
CHILDREN_EACH = 4
# Round trips that are shorter than that are no news; longer ones are kept one by one.
SHORT_S = 0.010
JOIN_S = 5.0
# Our own threads are no part of the client's process. All are named so.
OWN_THREADS = "tcpresilience-"

Poke = Callable[[Callable[[], object]], object]


def _poke_of_block() -> Poke | None:
    """How to have the running block's event loop call something; ``None`` without one."""
    if in_trio():
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
    task = asyncio_task()
    return None if task is None else task.get_loop().call_soon_threadsafe


class LoopClock:
    """Round trips into one event loop, one at a time."""

    def __init__(self, poke: Poke) -> None:
        self._poke = poke
        self._asked_at: float | None = None
        self._over = False
        self.lags: list[Lag] = []
        self.longest = 0.0

    def ask(self) -> None:
        """Begin a round trip, unless one is under way."""
        if self._asked_at is None and not self._over:
            self._asked_at = time.monotonic()
            try:
                self._poke(self._answer)
            except RuntimeError:  # the loop is closed; trio.RunFinishedError is one, too
                self._asked_at, self._over = None, True

    def _answer(self) -> None:
        self._keep()

    def _keep(self) -> None:
        asked_at, self._asked_at = self._asked_at, None
        if asked_at is None or self._over:
            return
        seconds = time.monotonic() - asked_at
        self.longest = max(self.longest, seconds)
        if seconds >= SHORT_S:
            self.lags.append(Lag(asked_at, seconds))

    def end(self) -> None:
        """In the loop's own thread, at the end of the block."""
        # One that is under way has waited until now, and if that is long it tells.
        self._keep()
        self._over = True


class Monitor:
    """Follows one block: :meth:`start` in its thread and loop, :meth:`stop` likewise."""

    def __init__(self, link: Link) -> None:
        self._engine = frozenset({link.engine_pid})
        self._api = frozenset({link.engine_address})
        self._samples: list[Sample] = []
        self._children: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{OWN_THREADS}monitor")
        self._thread.daemon = True
        self._loop: LoopClock | None = None

    def start(self) -> None:
        poke = _poke_of_block()
        self._loop = LoopClock(poke) if poke else None
        self._before = self._counts()
        self._samples.append(self._sample())
        self._thread.start()

    def stop(self) -> Health:
        if self._loop:
            self._loop.end()
        self._over.set()
        self._thread.join(JOIN_S)
        self._samples.append(self._sample())
        lags = None if self._loop is None else [*self._loop.lags]
        if self._loop is not None and lags == []:
            lags = [Lag(self._samples[0].at, self._loop.longest)]
        return summarize(self._samples, lags, self._before, self._counts(), os.getpid())

    def _run(self) -> None:
        pause = INTERVAL_S
        while not self._over.wait(pause):
            if self._loop:
                self._loop.ask()
            begun = time.monotonic()
            self._samples.append(self._sample())
            pause = max(INTERVAL_S, (time.monotonic() - begun) / SHARE)

    def _sample(self) -> Sample:
        own = os.getpid()
        ours = {each.native_id or 0 for each in threading.enumerate() if _is_ours(each)}
        if len(self._samples) % CHILDREN_EACH == 0:
            self._children = usage.descendants(own, without=self._engine)
        pids = [own, *self._children]
        busy = {
            (pid, thread): times
            for pid in pids
            for thread, times in usage.run_times(pid, without=ours).items()
        }
        return Sample(time.monotonic(), busy, {pid: usage.cpu_seconds(pid) for pid in pids})

    def _counts(self) -> Counts:
        threads = [each for each in threading.enumerate() if not _is_ours(each)]
        return Counts(len(threads), usage.descriptor_count(without=self._api))


def _is_ours(thread: threading.Thread) -> bool:
    return thread.name.startswith(OWN_THREADS)
