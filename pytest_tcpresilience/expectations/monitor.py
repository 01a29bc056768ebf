"""Watches the health of the client's process while a block waits.

Owns one block's part of what :mod:`.sampler` reads, and the round trips into its event loop.
It takes nothing from the client but a callback that does nothing, 20 times a second. What
the readings mean is :mod:`pytest_tcpresilience.evidence.health`'s.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_tcpresilience.evidence.health import Counts, Health, Lag, summarize
from pytest_tcpresilience.expectations.loops import asyncio_task, in_trio
from pytest_tcpresilience.expectations.sampler import SAMPLER, Subscriber, is_ours
from pytest_tcpresilience.kernel import usage

if TYPE_CHECKING:
    from pytest_tcpresilience.link import Link

# Round trips that are shorter than that are no news; longer ones are kept one by one.
SHORT_S = 0.010

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
        self._api = frozenset({link.engine_address})
        self._subscriber = Subscriber(link.threads, link.engine_pid, self._tick)
        self._loop: LoopClock | None = None

    def start(self) -> None:
        poke = _poke_of_block()
        self._loop = LoopClock(poke) if poke else None
        self._before = self._counts()
        SAMPLER.join(self._subscriber)

    def stop(self) -> Health:
        if self._loop:
            self._loop.end()
        SAMPLER.leave(self._subscriber)
        # A sweep that was under way may have come after the last one.
        samples = sorted(self._subscriber.samples, key=lambda sample: sample.at)
        lags = None if self._loop is None else [*self._loop.lags]
        if self._loop is not None and lags == []:
            lags = [Lag(samples[0].at, self._loop.longest)]
        return summarize(samples, lags, self._before, self._counts(), os.getpid())

    def abandon(self) -> None:
        """The block will never end; from another thread."""
        SAMPLER.leave(self._subscriber)

    def _tick(self) -> None:
        if self._loop:
            self._loop.ask()

    def _counts(self) -> Counts:
        if self._subscriber.group is not None:
            # Descriptors belong to the process, where neighbours open and close theirs.
            own = os.getpid()
            last = self._subscriber.samples[-1:]
            return Counts(sum(pid == own for each in last for pid, _ in each.busy) or 1, 0)
        threads = [each for each in threading.enumerate() if not is_ours(each)]
        return Counts(len(threads), usage.descriptor_count(without=self._api))
