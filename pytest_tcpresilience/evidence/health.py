"""How the client's process was while a block waited: is it idle, as who waits should be?

Owns the samples that were taken, and what follows from them. Pure; who takes the samples
is :mod:`pytest_tcpresilience.expectations.monitor`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# A thread that waits for a socket runs for a few per cent of the time at most. Counted are
# running and being ready to run, so that a busy machine does not make a spinning client
# look idle.
SPINNING = 0.8
# A thread that wakes up often on such a machine waits for a CPU most of the time, too, but
# then hardly runs. One that spins gets its share, with 40 others on two CPUs still this.
RUNNING = 0.05
# Of the longest turn in the interpreter that any thread took, what is a fair one.
FAIR = 0.5
# Shorter than this, a burst of work is no spinning.
SPINNING_S = 0.15
# asyncio's own debug mode calls a callback slow after 0.1 s; a loop that is late by five
# times that keeps heartbeats and timeouts from running.
LOOP_BLOCKED_S = 0.5


Thread = tuple[int, int]
"""Its process's id, and its own."""


@dataclass(frozen=True)
class Sample:
    """What was read at one moment.

    :param at: CLOCK_MONOTONIC, seconds.
    :param busy: by thread: seconds that it has run, and that it was ready and waited for a
        CPU.
    :param cpu: by process id: seconds of CPU time so far.
    """

    at: float
    busy: dict[Thread, tuple[float, float]]
    cpu: dict[int, float]


@dataclass(frozen=True)
class Counts:
    """Of this process at one moment, without what the plugin itself has open."""

    threads: int
    descriptors: int


@dataclass(frozen=True)
class Lag:
    """A round trip into the block's event loop that took long.

    :param at: when it began, CLOCK_MONOTONIC. :param seconds: until the loop answered.
    """

    at: float
    seconds: float


@dataclass(frozen=True)
class Health:
    """The client's process while the block ran.

    :param seconds: the length of the block.
    :param cpu: seconds of CPU time that this process took.
    :param children_cpu: seconds of CPU time of its child processes, without the engine.
    :param busy: the largest share of the time, 0 to 1, for which one thread of this
        process or of its children was running or ready to run. A client that waits is near
        0; one that spins is near 1 also on a machine that has no CPU to spare.
    :param loop_lag: seconds, the longest time that the block's event loop took to answer;
        ``None`` in a block without one.
    :param threads: new threads of this process: after the block, less before it.
    :param descriptors: new file descriptors, likewise.
    """

    seconds: float
    cpu: float
    children_cpu: float
    busy: float
    loop_lag: float | None
    threads: int
    descriptors: int
    samples: tuple[Sample, ...] = field(default=(), repr=False)
    lags: tuple[Lag, ...] = field(default=(), repr=False)

    def busy_between(self, since: float, until: float) -> float:
        """As ``busy``, for a part of the block; 0 for a part too short to tell."""
        return busy_share(self.samples, since, until)

    def loop_blocked(self, since: float, until: float) -> Lag | None:
        """The longest time in a part of the block that its event loop was blocked."""
        found = [
            Lag(max(lag.at, since), min(lag.at + lag.seconds, until) - max(lag.at, since))
            for lag in self.lags
        ]
        blocked = [lag for lag in found if lag.seconds >= LOOP_BLOCKED_S]
        return max(blocked, key=lambda lag: lag.seconds, default=None)


def busy_share(samples: Sequence[Sample], since: float, until: float) -> float:
    """The busiest thread's share of the time, from the samples of that part."""
    part = [sample for sample in samples if since <= sample.at <= until]
    shares = [_share(thread, part) for thread in (part[-1].busy if part else ())]
    return min(max(shares, default=0.0), 1.0)


def _share(thread: Thread, part: Sequence[Sample]) -> float:
    known = [sample for sample in part if thread in sample.busy]
    seconds = known[-1].at - known[0].at
    if seconds < SPINNING_S:
        return 0.0
    (ran, waited), (ran_before, waited_before) = known[-1].busy[thread], known[0].busy[thread]
    ran, waited = ran - ran_before, waited - waited_before
    return (ran + waited) / seconds if ran >= RUNNING * (ran + waited) else 0.0


def competing(busy: Mapping[int, float], seconds: float) -> frozenset[int]:
    """Threads of one process that all want to run Python code, and share one interpreter.

    Only one of them runs at a time, and a wait for the interpreter lock is none for a CPU:
    two clients that spin run for half of the time each, and look busy for half of it. So
    where threads take turns that leave nothing, each that has taken a fair one was busy.

    :param busy: by thread: seconds that it has run, or was ready to. :param seconds: in how
        many.
    """
    most = max(busy.values(), default=0.0)
    if sum(busy.values()) < SPINNING * seconds:
        return frozenset()
    return frozenset(thread for thread, its in busy.items() if its >= most * FAIR)


def summarize(
    samples: Sequence[Sample],
    lags: Sequence[Lag] | None,
    before: Counts,
    after: Counts,
    own: int,
) -> Health:
    """What the samples of one block come to.

    :param lags: ``None`` for a block without an event loop.
    :param own: this process's id; all others are its children.
    """
    first, last = samples[0], samples[-1]

    def cpu(pid: int) -> float:
        return last.cpu.get(pid, 0.0) - first.cpu.get(pid, 0.0)

    return Health(
        seconds=last.at - first.at,
        cpu=cpu(own),
        children_cpu=sum(cpu(pid) for pid in last.cpu if pid != own),
        busy=busy_share(samples, first.at, last.at),
        loop_lag=None if lags is None else max((lag.seconds for lag in lags), default=0.0),
        threads=after.threads - before.threads,
        descriptors=after.descriptors - before.descriptors,
        samples=tuple(samples),
        lags=tuple(lags or ()),
    )
