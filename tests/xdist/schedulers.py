"""pytest-xdist's own schedulers, driven in virtual time by workers that run nothing."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from xdist.remote import Producer
from xdist.scheduler import (
    LoadFileScheduling,
    LoadGroupScheduling,
    LoadScheduling,
    LoadScopeScheduling,
    WorkStealingScheduling,
)

SCHEDULERS: dict[str, Any] = {
    "load": LoadScheduling,
    "worksteal": WorkStealingScheduling,
    "loadscope": LoadScopeScheduling,
    "loadfile": LoadFileScheduling,
    "loadgroup": LoadGroupScheduling,
}


@dataclass(frozen=True)
class Start:
    """A worker begins a test. Times are in seconds."""

    at: float
    worker: int
    test: str


@dataclass
class Worker:
    """As ``xdist.remote``: it begins a test only when it knows what comes next."""

    run: Run
    number: int
    queue: deque[int] = field(default_factory=deque)
    current: int | None = None
    following: int | None = None
    shutting_down: bool = False

    @property
    def gateway(self) -> Any:
        return SimpleNamespace(id=f"gw{self.number}")

    def __hash__(self) -> int:
        return self.number

    def send_runtest_some(self, indices: Sequence[int]) -> None:
        self.queue.extend(indices)
        self.run.soon(self.go_on)

    def shutdown(self) -> None:
        self.shutting_down = True
        self.run.soon(self.go_on)

    def send_steal(self, indices: Sequence[int]) -> None:
        def steal() -> None:
            there = set(indices) <= set(self.queue)
            stolen = list(indices) if there else []
            self.queue = deque(each for each in self.queue if each not in stolen)
            self.run.scheduler.remove_pending_tests_from_node(self, stolen)

        self.run.soon(steal)

    def go_on(self) -> None:
        if self.current is not None:
            return
        if self.following is None and self.queue:
            self.following = self.queue.popleft()
        if self.following is None or not (self.queue or self.shutting_down):
            return
        self.current = self.following
        self.following = self.queue.popleft() if self.queue else None
        self.run.begin(self, self.current)

    def finished(self, duration: float) -> None:
        index, self.current = self.current, None
        self.run.scheduler.mark_test_complete(self, index, duration)
        self.go_on()


class Run:
    """One run of a list of tests.

    :param durations: in seconds, by test. Each event is handled before the next one.
    """

    def __init__(
        self,
        mode: str,
        workers: int,
        tests: Sequence[str],
        durations: dict[str, float],
        *,
        chunk: int | None = None,
        by_size: bool = False,
    ) -> None:
        options: dict[str, Any] = {"tx": ["popen"] * workers, "maxschedchunk": chunk}
        config = SimpleNamespace(
            getvalue=options.__getitem__,
            getoption=options.__getitem__,
            option=SimpleNamespace(loadscopereorder=by_size),
        )
        self.scheduler = SCHEDULERS[mode](config, Producer("simulated", enabled=False))
        self.tests, self.durations = tests, durations
        self.now = 0.0
        self.starts: list[Start] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.workers = [Worker(self, number) for number in range(workers)]
        self._run()

    def soon(self, what: Callable[[], None], after: float = 0.0) -> None:
        heapq.heappush(self._events, (self.now + after, next(self._numbers), what))

    def begin(self, worker: Worker, index: int) -> None:
        test = self.tests[index]
        self.starts.append(Start(self.now, worker.number, test))
        duration = self.durations[test]
        self.soon(lambda: worker.finished(duration), duration)

    def _run(self) -> None:
        for worker in self.workers:
            self.scheduler.add_node(worker)
        for worker in self.workers:
            self.scheduler.add_node_collection(worker, self.tests)
        self.scheduler.schedule()
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()
            if self.scheduler.tests_finished:  # as xdist's DSession does after each event
                for worker in self.scheduler.nodes:
                    if not worker.shutting_down:
                        worker.shutdown()
        assert sorted(start.test for start in self.starts) == sorted(self.tests)
