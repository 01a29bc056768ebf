"""Runs all cells of a matrix at once, and sees to it that all of them end.

Owns the waiting: when the faults begin, which cell has hung and for how long that is borne.
A cell that does not end is left behind, in a daemon thread; the others do not wait for it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_tcpresilience.matrix.cell import CellRun, Phase

if TYPE_CHECKING:
    from pytest_tcpresilience.link import Link
    from pytest_tcpresilience.matrix.plan import Cell

# The faults begin together, so that connecting does not disturb the waits. Who is that much
# slower than half of the others begins later.
SLOWER = 2.0
SLOWER_S = 0.5
# A block that the rescue interrupts is over within that, or it never will be.
INTERRUPTED_S = 1.0
# For what should never be needed: an expectation that does not rescue.
BACKSTOP_S = 10.0
# From taking a hanging cell's link away to interrupting it, and from there to leaving it.
UNLINKED_S = 0.2
LEFT_S = 0.3
# The faults have hit by then, and what else there is to do does not disturb them.
BEGUN_S = 1.0
# How often the line with the progress changes.
PROGRESS_S = 0.25
# Beside clients that spin in Python, whoever comes back from a call to the kernel waits that
# long for each of them. With four of them and Python's own 5 ms, 24 cells were watched so
# rarely that it could not be told who spun.
SWITCH_S = 0.0005


@dataclass(frozen=True)
class Limits:
    """:param setup: seconds for connecting and warming up. :param close: for closing."""

    setup: float
    close: float


@dataclass
class Hang:
    """A cell that did not end in time.

    :param phase: where it was. :param seconds: for how long. :param where: its frames.
    :param left: names of the threads that are left behind; none if it has ended after all.
    """

    phase: Phase
    seconds: float
    where: list[str]
    left: list[str]


class Runs:
    """All cells that run.

    :param every: seconds between one activity and the next.
    """

    def __init__(self, limits: Limits, every: float) -> None:
        self._limits = limits
        self._every = every
        self._changed = threading.Condition()
        self._news = 0
        self.start = threading.Event()
        self._work: Callable[[], object] | None = None
        self._due_at = float("inf")
        self.runs: list[CellRun] = []
        self.hangs: dict[CellRun, Hang] = {}
        self._pressed: dict[CellRun, tuple[float, Hang]] = {}

    def add(self, cell: Cell, link: Link) -> None:
        limit = self._limits.setup
        self.runs.append(CellRun(cell, link, self.start, self._notify, self._every, limit))

    def when_begun(self, work: Callable[[], object]) -> None:
        """Have something done while the clients wait."""
        self._work = work

    def _notify(self) -> None:
        with self._changed:
            self._news += 1
            self._changed.notify()

    # --- the wait ------------------------------------------------------------------------

    def run(self, progress: Callable[[Sequence[CellRun]], None]) -> None:
        """Begin all, and return when each has ended or was left behind.

        :param progress: called now and then, with the cells that still run.
        """
        with _switching_often():
            self._begun_at = time.monotonic()
            for run in self.runs:
                run.thread.start()
            self._half_ready_at: float | None = None
            while True:
                seen = self._news
                now = time.monotonic()
                left = [run for run in self.runs if not run.over and run not in self.hangs]
                if not left:
                    return
                self._begin_faults(now)
                if self._work is not None and now >= self._due_at:
                    work, self._work = self._work, None
                    work()
                self._look_after(left, now)
                progress(left)
                with self._changed:
                    if self._news == seen:
                        self._changed.wait(PROGRESS_S)

    def _begin_faults(self, now: float) -> None:
        if self.start.is_set():
            return
        there = [run for run in self.runs if run.waits_for_others or run.over or run in self.hangs]
        if self._half_ready_at is None and 2 * len(there) >= len(self.runs):
            self._half_ready_at = now
        late = False
        if self._half_ready_at is not None:
            took = self._half_ready_at - self._begun_at
            late = now >= self._half_ready_at + max(SLOWER * took, SLOWER_S)
        if late or len(there) == len(self.runs):
            self.start.set()
            self._due_at = now + BEGUN_S

    # --- cells that hang -----------------------------------------------------------------

    def _look_after(self, left: Sequence[CellRun], now: float) -> None:
        for run in left:
            if run in self._pressed:
                self._press(run, now)
            elif now >= self._due(run):
                hang = Hang(run.phase, now - run.since, run.where(), [])
                self._pressed[run] = now, hang
                # A read on it ends now, and a retry fails at once.
                run.unlink()

    def _due(self, run: CellRun) -> float:
        """Until when a cell may be where it is."""
        if run.phase in (Phase.CONNECT, Phase.WARM_UP):
            return self._begun_at + self._limits.setup
        if run.phase in (Phase.CLOSE, Phase.OVER):
            return run.since + self._limits.close
        if run.phase is Phase.READY:
            return float("inf")
        interrupted = run.interrupted_at
        if interrupted is not None:
            return interrupted + INTERRUPTED_S
        settings = run.link.settings
        longest = settings.hit_timeout + run.cell.window.latest + settings.slack
        return run.since + longest + BACKSTOP_S

    def _press(self, run: CellRun, now: float) -> None:
        pressed_at, hang = self._pressed[run]
        if now >= pressed_at + UNLINKED_S:
            run.end()
        if now >= pressed_at + UNLINKED_S + LEFT_S:
            self.hangs[run] = hang
            hang.left = run.abandon()

    def hang_of(self, run: CellRun) -> Hang | None:
        """What is known of a cell that hung; also of one that ended once it was pressed."""
        return self._pressed[run][1] if run in self._pressed else None

    def leave(self) -> None:
        """The matrix itself is interrupted: nobody waits for any cell."""
        self.start.set()
        for run in self.runs:
            if run.thread.ident is not None and not run.over:
                run.unlink()
                run.end()
                run.abandon()


@contextmanager
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(SWITCH_S, before))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def longest_wait(left: Sequence[CellRun], now: float) -> float:
    """Seconds until the last window that is open closes."""
    waits = [0.0]
    for run in left:
        since = run.struck_at if run.struck_at is not None else now
        waits.append(since + run.cell.window.latest - now)
    return max(waits)
