"""Reads how busy this process is, once for all blocks that are under watch.

Owns one thread, which lives as long as there is a block, and whose each sweep through
``/proc`` serves every one of them: many blocks cost what one does. However long its sweeps
take, it gives each block its tick in between. A block has all of the process, or the threads
of its own client. What the readings mean is :mod:`pytest_tcpresilience.evidence.health`'s.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pytest_tcpresilience.evidence.health import Sample, competing
from pytest_tcpresilience.kernel import threads, usage

INTERVAL_S = 0.050
# Of the time, at most this share goes into reading, however many threads there are.
SHARE = 0.02
# Children come and go more slowly than that, and looking for them costs as much again. Nor
# do threads change hands.
CHILDREN_EACH = 4
JOIN_S = 5.0
# Our own threads are no part of the client's process. All are named so.
OWN_THREADS = "tcpresilience-"


def is_ours(thread: threading.Thread) -> bool:
    return thread.name.startswith(OWN_THREADS)


@dataclass(frozen=True, eq=False)
class Subscriber:
    """A block.

    :param group: whose threads it wants; ``None`` for all of this process.
    :param engine: the process id of its engine, which is none of the client's.
    :param tick: called at each interval. It is to cost next to nothing.
    """

    group: threads.ThreadGroup | None
    engine: int
    tick: Callable[[], None]
    samples: list[Sample] = field(default_factory=list)


class Sampler:
    """:meth:`join` at the beginning of a block, :meth:`leave` at its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: tuple[Subscriber, ...] = ()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._sweeps = 0
        # By native id, the mark of each thread that was seen; and of each child, that of the
        # thread that has started it.
        self._marks: dict[int, str] = {}
        self._children: dict[int, str] = {}
        # The last sweep that was divided, and by thread the seconds that it has waited for
        # the interpreter so far.
        self._before: Sample | None = None
        self._kept_out: dict[int, float] = {}

    def join(self, subscriber: Subscriber) -> None:
        """Its samples begin now, with one that is taken in this thread."""
        subscriber.samples.append(self.take(subscriber))
        with self._lock:
            first = not self._subscribers
            self._subscribers += (subscriber,)
            if first:
                try:
                    self._begin()
                except BaseException:
                    self._subscribers = ()
                    raise

    def _begin(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=[self._over], name=f"{OWN_THREADS}monitor", daemon=True
        )
        self._thread.start()

    def leave(self, subscriber: Subscriber) -> None:
        """Its samples end now, with one that is taken in this thread. Does nothing twice."""
        with self._lock:
            known = subscriber in self._subscribers
            self._subscribers = tuple(e for e in self._subscribers if e is not subscriber)
            thread = self._thread if known and not self._subscribers else None
            if thread is not None:
                self._over.set()
        if thread is not None:
            thread.join(JOIN_S)
        if known:
            subscriber.samples.append(self.take(subscriber))

    def take(self, subscriber: Subscriber) -> Sample:
        """One sample for one block, in this thread."""
        if subscriber.group is None:
            return _whole(sorted(self._find_children([subscriber.engine])))
        mark = subscriber.group.mark
        mine = [thread for thread, other in list(self._marks.items()) if other == mark]
        busy = {
            thread: (ran, waited + self._kept_out.get(thread, 0.0))
            for thread, (ran, waited) in usage.run_times(
                os.getpid(), only={*mine, threading.get_native_id()}
            ).items()
        }
        return _part(busy, [pid for pid, other in list(self._children.items()) if other == mark])

    # --- the thread ----------------------------------------------------------------------

    def _run(self, over: threading.Event) -> None:
        due_at = time.monotonic()
        while not over.wait(INTERVAL_S):
            subscribers = self._subscribers
            for each in subscribers:
                each.tick()
            if time.monotonic() < due_at:
                continue
            # Its own time, not the clock's: on a busy machine, or beside a client that spins,
            # a sweep takes long and costs no more.
            begun = time.thread_time()
            self._sweep(subscribers)
            due_at = time.monotonic() + (time.thread_time() - begun) / SHARE

    def _sweep(self, subscribers: tuple[Subscriber, ...]) -> None:
        if self._sweeps % CHILDREN_EACH == 0:
            self._children = self._find_children([each.engine for each in subscribers])
        self._sweeps += 1
        whole = _whole(self._children)
        if any(each.group for each in subscribers):
            parts = self._divide(whole, fresh=self._sweeps % CHILDREN_EACH == 1)
        for each in subscribers:
            if each.group is None:
                each.samples.append(whole)
            elif each.group.mark in parts:
                each.samples.append(parts[each.group.mark])

    def _find_children(self, engines: list[int]) -> dict[int, str]:
        """By process id, the mark of the thread of this process that they come from."""
        found = usage.descendants_by_thread(os.getpid(), without=frozenset(engines))
        return {pid: threads.mark_of(thread) for thread, pids in found.items() for pid in pids}

    def _divide(self, whole: Sample, *, fresh: bool) -> Mapping[str, Sample]:
        """By mark, what belongs together of a sample of all.

        :param fresh: whether to look at threads again that are known.
        """
        own = os.getpid()
        known = {} if fresh else self._marks
        self._marks = {
            thread: known[thread] if thread in known else threads.mark_of(thread)
            for pid, thread in whole.busy
            if pid == own
        }
        self._tell_competing(whole)
        busy: dict[str, dict[int, tuple[float, float]]] = {}
        for thread, mark in self._marks.items():
            ran, waited = whole.busy[own, thread]
            kept_out = self._kept_out.get(thread, 0.0)
            busy.setdefault(mark, {})[thread] = ran, waited + kept_out
        parts: dict[str, Sample] = {}
        for mark, of_threads in busy.items():
            if mark:
                children = {pid for pid, other in self._children.items() if other == mark}
                cpu = {own: sum(ran for ran, _ in of_threads.values())}
                cpu.update({pid: whole.cpu.get(pid, 0.0) for pid in children})
                mine = {(own, thread): times for thread, times in of_threads.items()}
                mine.update({key: times for key, times in whole.busy.items() if key[0] in children})
                parts[mark] = Sample(whole.at, mine, cpu)
        return parts

    def _tell_competing(self, whole: Sample) -> None:
        """Add what each marked thread has waited for the interpreter since the last sweep."""
        before, self._before = self._before, whole
        if before is None:
            return
        own, seconds = os.getpid(), whole.at - before.at
        busy = {
            thread: sum(whole.busy[own, thread]) - sum(before.busy[own, thread])
            for thread, mark in self._marks.items()
            if mark and (own, thread) in before.busy
        }
        kept_out = {thread: self._kept_out.get(thread, 0.0) for thread in self._marks}
        for thread in competing(busy, seconds):
            kept_out[thread] += max(seconds - busy[thread], 0.0)
        self._kept_out = kept_out


def _whole(children: Mapping[int, str] | list[int]) -> Sample:
    """Of this process and its children, without our own threads."""
    own = os.getpid()
    ours = {each.native_id or 0 for each in threading.enumerate() if is_ours(each)}
    pids = [own, *children]
    busy = {
        (pid, thread): times
        for pid in pids
        for thread, times in usage.run_times(pid, without=ours).items()
    }
    return Sample(time.monotonic(), busy, {pid: usage.cpu_seconds(pid) for pid in pids})


def _part(busy: Mapping[int, tuple[float, float]], children: list[int]) -> Sample:
    """Of some threads of this process, and of some children."""
    own = os.getpid()
    at = time.monotonic()
    mine = {(own, thread): times for thread, times in busy.items()}
    for pid in children:
        mine.update({(pid, thread): times for thread, times in usage.run_times(pid).items()})
    cpu = {own: sum(ran for ran, _ in busy.values())}
    return Sample(at, mine, {**cpu, **{pid: usage.cpu_seconds(pid) for pid in children}})


SAMPLER = Sampler()
