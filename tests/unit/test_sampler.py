"""One sampler for all blocks: whose threads are whose, and who keeps whom from running."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import cycle

import pytest

from pytest_tcpresilience.evidence.health import busy_share, competing
from pytest_tcpresilience.expectations.sampler import OWN_THREADS, Sampler, Subscriber
from pytest_tcpresilience.kernel import usage
from pytest_tcpresilience.kernel.threads import ThreadGroup, mark_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc as Linux has it")
SEEN_S = 10.0


@pytest.mark.parametrize(
    ("busy", "found"),
    [
        pytest.param({}, set(), id="nobody"),
        pytest.param({1: 0.02, 2: 0.01}, set(), id="all-wait"),
        pytest.param({1: 0.97, 2: 0.01}, {1}, id="one-spins"),
        pytest.param({1: 0.5, 2: 0.48, 3: 0.01}, {1, 2}, id="two-take-turns"),
        pytest.param({1: 0.3, 2: 0.3, 3: 0.3, 4: 0.05}, {1, 2, 3}, id="three"),
        pytest.param({1: 0.4, 2: 0.3}, set(), id="there-is-time-left"),
    ],
)
def test_who_competes(busy: dict[int, float], found: set[int]) -> None:
    assert competing(busy, 1.0) == found


class Cell:
    """A client of a group of its own, in a thread that starts another one."""

    def __init__(self, *, spins: bool) -> None:
        self.group = ThreadGroup.new()
        self._over = threading.Event()
        self._spins = spins
        self.inner: list[int] = []
        self._there = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._there.wait(SEEN_S)

    def _run(self) -> None:
        self.group.join()
        inner = threading.Thread(target=self._work)
        inner.start()
        inner.join()

    def _work(self) -> None:
        self.inner.append(threading.get_native_id())
        self._there.set()
        while self._spins and not self._over.is_set():
            pass
        self._over.wait()

    def end(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture
def cells() -> Iterator[list[Cell]]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    found = [Cell(spins=True), Cell(spins=True), Cell(spins=False)]
    yield found
    for cell in found:
        cell.end()
    sys.setswitchinterval(before)


def test_each_group_has_its_own_threads(cells: list[Cell]) -> None:
    sampler = Sampler()
    ticks: list[int] = []
    subscribers = [Subscriber(each.group, 0, lambda: ticks.append(1)) for each in cells]
    everyone = Subscriber(None, 0, lambda: None)
    for each in (*subscribers, everyone):
        sampler.join(each)
    limit = time.monotonic() + SEEN_S
    while len(everyone.samples) < 12 and time.monotonic() < limit:
        time.sleep(0.01)
    for each in (*subscribers, everyone):
        sampler.leave(each)
    sampler.leave(everyone)  # does nothing
    shares = []
    for cell, each in zip(cells, subscribers, strict=True):
        threads = {thread for sample in each.samples for _, thread in sample.busy}
        others = {other.inner[0] for other in cells if other is not cell}
        assert cell.inner[0] in threads
        assert not others & threads
        shares.append(busy_share(each.samples, each.samples[2].at, each.samples[-2].at))
    # Two that spin share one interpreter, and each is busy all the time.
    assert shares[0] > 0.8
    assert shares[1] > 0.8
    assert shares[2] < 0.2
    assert {cell.inner[0] for cell in cells} <= {thread for _, thread in everyone.samples[-1].busy}
    assert ticks
    assert f"{OWN_THREADS}monitor" not in [each.name for each in threading.enumerate()]


@pytest.mark.parametrize(
    ("cost_s", "begins"),
    [(0.0, ["tick", "sweep", "tick", "sweep"]), (60.0, ["tick", "sweep", "tick", "tick"])],
    ids=["cheap", "costly"],
)
def test_costly_sweeps_are_rare_and_ticks_are_not(
    monkeypatch: pytest.MonkeyPatch, cost_s: float, begins: list[str]
) -> None:
    """How precisely an event loop's lag is known must not depend on the cost of sweeps."""
    happened: list[str] = []
    seen = threading.Event()

    def note(what: str) -> None:
        happened.append(what)
        if len(happened) == len(begins):
            seen.set()

    readings = cycle([0.0, cost_s])
    monkeypatch.setattr(time, "thread_time", lambda: next(readings))
    sampler = Sampler()
    monkeypatch.setattr(sampler, "_sweep", lambda _subscribers: note("sweep"))
    subscriber = Subscriber(None, 0, lambda: note("tick"))
    sampler.join(subscriber)
    assert seen.wait(SEEN_S)
    sampler.leave(subscriber)
    assert happened[: len(begins)] == begins


def test_a_child_belongs_to_the_thread_that_has_started_it() -> None:
    group = ThreadGroup.new()
    found: list[tuple[int, int]] = []
    over = threading.Event()
    there = threading.Event()

    def work() -> None:
        group.join()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            found.append((threading.get_native_id(), child.pid))
            there.set()
            over.wait()
            child.communicate(b"\n")

    thread = threading.Thread(target=work)
    thread.start()
    assert there.wait(SEEN_S)
    starter, pid = found[0]
    assert usage.descendants_by_thread(os.getpid())[starter] == [pid]
    assert mark_of(starter) == group.mark
    assert mark_of(threading.get_native_id()) == ""
    sampler = Sampler()
    subscriber = Subscriber(group, 0, lambda: None)
    sampler.join(subscriber)
    limit = time.monotonic() + SEEN_S
    while time.monotonic() < limit and not any(pid in each.cpu for each in subscriber.samples):
        time.sleep(0.01)
    assert any(pid in each.cpu for each in subscriber.samples)
    over.set()
    thread.join()
    sampler.leave(subscriber)


def test_a_mark_fits_into_a_name() -> None:
    first, second = ThreadGroup.new(), ThreadGroup.new()
    assert first.mark != second.mark
    assert len(first.mark.encode()) <= 15
