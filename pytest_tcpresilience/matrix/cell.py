"""What happens in one cell, from connecting to closing, and how far it has come.

Owns the life of a cell in a thread of its own, and what is known of it from outside: its
phase, since when, and what came of it. It ends no one: who has hung is :mod:`.running`'s to
notice.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum
from types import FrameType
from typing import TYPE_CHECKING, Any

from pytest_tcpresilience.errors import ResilienceError
from pytest_tcpresilience.expectations.detects_break import detects_break
from pytest_tcpresilience.expectations.interrupt import awaiting
from pytest_tcpresilience.expectations.sampler import is_ours
from pytest_tcpresilience.expectations.stays_unaware import stays_unaware
from pytest_tcpresilience.kernel import threads
from pytest_tcpresilience.matrix.driving import DRIVERS, Driver
from pytest_tcpresilience.records.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from pytest_tcpresilience.expectations.detection import Detection
    from pytest_tcpresilience.link import Link
    from pytest_tcpresilience.matrix.plan import Cell

# Where a client hangs is shown by so many of its frames.
SHOWN_FRAMES = 4
OURS = "pytest_tcpresilience"


class Phase(str, Enum):
    """How far a cell has come; the words are for people."""

    CONNECT = "connect"
    WARM_UP = "warm-up"
    READY = "wait for the other cells"
    FAULT = "fault"
    CLOSE = "close"
    OVER = "end"

    def __str__(self) -> str:
        return self.value


class CellRun:
    """One cell that runs.

    :param start: set when the faults may begin.
    :param news: called whenever the phase has changed, from the cell's thread.
    :param every: seconds between one activity and the next.
    """

    def __init__(
        self,
        cell: Cell,
        link: Link,
        start: threading.Event,
        news: Callable[[], None],
        every: float,
        setup_within: float,
    ) -> None:
        self.cell = cell
        self.link = link
        self._start = start
        self._news = news
        self._every = every
        self._setup_within = setup_within
        self.phase = Phase.CONNECT
        self.since = time.monotonic()
        self.struck_at: float | None = None
        self.error: BaseException | None = None
        # In which phase it came; of several errors the first counts.
        self.failed_in: Phase | None = None
        self.detection: Detection | None = None
        self._expectation: detects_break | None = None
        self._body: Coroutine[Any, Any, None] | None = None
        self._driver: Driver | None = None
        self._ended = False
        self.group = threads.ThreadGroup.new()
        link.client = cell.client.name
        link.journal = Journal()
        link.threads = self.group
        self.thread = threading.Thread(target=self._run, name=cell.name, daemon=True)

    # --- from outside --------------------------------------------------------------------

    @property
    def over(self) -> bool:
        return self.phase is Phase.OVER

    @property
    def waits_for_others(self) -> bool:
        return self.phase is Phase.READY

    @property
    def interrupted_at(self) -> float | None:
        """When the rescue has begun to interrupt its block, if it has."""
        return self._expectation.interrupted_at if self._expectation else None

    def where(self) -> list[str]:
        """Where its client is at this moment: the innermost frames that are not ours."""
        frames = [each for each in self._frames() if not _is_ours(each)]
        return [
            f"{each.f_code.co_filename}:{each.f_lineno} in {each.f_code.co_name}"
            for each in frames[-SHOWN_FRAMES:]
        ]

    def _frames(self) -> list[FrameType]:
        """Outermost first."""
        waiting = list(awaiting(self._body))
        if self.cell.client.runner != "thread" and waiting:
            return waiting
        frame = sys._current_frames().get(self.thread.ident or 0)
        found: list[FrameType] = []
        while frame is not None:
            found.insert(0, frame)
            frame = frame.f_back
        return found

    def unlink(self) -> None:
        """Take its link away: what it reads ends, and where it connects is nobody."""
        self._ended = True
        with contextlib.suppress(ResilienceError):  # an engine that died has done so already
            self.link.disable()

    def end(self) -> None:
        """Have it stop, if it can be stopped."""
        if self._driver is not None:
            self._driver.end()

    def abandon(self) -> list[str]:
        """Have nobody watch over it any more; the threads that it leaves behind."""
        if self._expectation is not None:
            self._expectation.abandon()
        return [
            each.name
            for each in threading.enumerate()
            if not is_ours(each) and threads.mark_of(each.native_id or 0) == self.group.mark
        ]

    # --- in its thread -------------------------------------------------------------------

    def _run(self) -> None:
        self.group.join()
        try:
            DRIVERS[self.cell.client.runner](self._live)
        except BaseException as error:  # SystemExit and the like are a client's affair here
            self._fail(error)
        try:
            self.link.close(test_failed=self.error is not None)
        except Exception as error:
            self._fail(error, Phase.OVER)
        self._enter(Phase.OVER)

    async def _live(self, driver: Driver) -> None:
        self._driver = driver
        # Its own frame is the outermost, so what awaits is found from here.
        self._body = self._through(driver)
        await self._body

    async def _through(self, driver: Driver) -> None:
        client, link = self.cell.client, self.link
        held: list[Any] = []
        try:
            with self._phase(Phase.CONNECT):
                held.append(await driver.call("connect", client.connect, link))
            with self._phase(Phase.WARM_UP):
                warm_up = client.warm_up_for(self.cell.activity)
                if warm_up is not None:
                    await driver.call(*warm_up, held[0])
                if self._ended:  # it hung until its link was taken away
                    return
                link.wait_for_connection(timeout=self._setup_within)
            self._enter(Phase.READY)
            await driver.wait(self._start)
            with self._phase(Phase.FAULT):
                await self._meet_the_fault(driver, held)
        finally:
            with self._phase(Phase.CLOSE):
                for connected in held:
                    await driver.call("close", client.close, connected)

    async def _meet_the_fault(self, driver: Driver, held: list[Any]) -> None:
        cell = self.cell
        if cell.unaware:
            self._expectation = stays_unaware(self.link, within=cell.within)
        else:
            self._expectation = detects_break(self.link, within=cell.within, raises=cell.raises)
        with self._expectation as detection:
            cell.fault.strike(self.link)
            self.struck_at = time.monotonic()
            self._news()
            while True:
                if cell.activity == "connect":
                    held.append(await driver.call("connect", cell.client.connect, self.link))
                else:
                    function = cell.client.activities[cell.activity]
                    await driver.call(cell.activity, function, held[0])
                await driver.sleep(self._every)
        self.detection = None if cell.unaware else detection

    @contextlib.contextmanager
    def _phase(self, phase: Phase) -> Iterator[None]:
        self._enter(phase)
        try:
            yield
        except BaseException as error:
            self._fail(error)
            raise

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.since = time.monotonic()
        self._news()

    def _fail(self, error: BaseException, phase: Phase | None = None) -> None:
        if self.error is None:
            self.error, self.failed_in = error, phase or self.phase


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in (OURS, "threading")
