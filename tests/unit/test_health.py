"""What the samples of a block come to, and what /proc says."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import pytest

from pytest_tcpresilience.evidence.health import Counts, Lag, Sample, busy_share, summarize
from pytest_tcpresilience.kernel import usage

ME = os.getpid()
ONE = Counts(1, 1)
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc as Linux has it")


def samples(*rows: tuple[float, dict[int, float]]) -> Sequence[Sample]:
    """By thread of one process, all of it running."""
    return [
        Sample(at, {(1, thread): (ran, 0.0) for thread, ran in busy.items()}, busy)
        for at, busy in rows
    ]


@pytest.mark.parametrize(
    ("taken", "share"),
    [
        pytest.param([], 0.0, id="none"),
        pytest.param(samples((0, {1: 0})), 0.0, id="one"),
        pytest.param(samples((0, {1: 0}), (0.1, {1: 0.1})), 0.0, id="too-short"),
        pytest.param(samples((0, {1: 5}), (1, {1: 5.25}), (2, {1: 5.5})), 0.25, id="working"),
        pytest.param(samples((0, {1: 0, 2: 0}), (2, {1: 0.1, 2: 1.8})), 0.9, id="the-busiest"),
        pytest.param(samples((0, {1: 0, 2: 0}), (2, {1: 1.2, 2: 1.2})), 0.6, id="not-their-sum"),
        pytest.param(samples((0, {1: 0, 2: 0}), (2, {1: 0.1})), 0.05, id="one-has-ended"),
        pytest.param(
            samples((0, {1: 0}), (1, {1: 0, 2: 0}), (2, {1: 0, 2: 1.0})), 1.0, id="a-new-one"
        ),
        pytest.param(
            samples((0, {1: 0}), (1, {1: 1.0}), (2, {1: 1.0}), (9, {1: 8.0})), 0.5, id="a-part"
        ),
    ],
)
def test_the_busiest_share(taken: Sequence[Sample], share: float) -> None:
    assert busy_share(taken, 0, 2) == pytest.approx(share)


@pytest.mark.parametrize(
    ("ran", "waited", "share"),
    [(0.5, 1.4, 0.95), (0.02, 1.9, 0.0)],
    ids=["spins-on-a-busy-machine", "wakes-up-on-a-busy-machine"],
)
def test_a_busy_machine(ran: float, waited: float, share: float) -> None:
    taken = [
        Sample(0, {(1, 1): (3.0, 1.0)}, {}),
        Sample(2, {(1, 1): (3.0 + ran, 1.0 + waited)}, {}),
    ]
    assert busy_share(taken, 0, 2) == pytest.approx(share)


def test_a_summary() -> None:
    taken = samples((10, {1: 1.0, 2: 0.5}), (14, {1: 2.0, 2: 0.75, 3: 0.25}))
    health = summarize(taken, [Lag(11, 0.02), Lag(12, 0.7)], Counts(2, 9), Counts(3, 7), 1)
    assert (health.seconds, health.cpu, health.children_cpu) == (4, 1.0, 0.5)
    assert (health.threads, health.descriptors, health.busy) == (1, -2, 0.25)
    assert health.loop_lag == 0.7
    assert "samples" not in repr(health)
    assert summarize(taken, None, ONE, ONE, 1).loop_lag is None
    assert summarize(taken, [], ONE, ONE, 1).loop_lag == 0.0


@pytest.mark.parametrize(
    ("lag", "since", "until", "seconds"),
    [
        (Lag(1.0, 0.7), 0.0, 9.0, 0.7),
        (Lag(1.0, 0.4), 0.0, 9.0, None),
        (Lag(1.0, 2.0), 2.0, 9.0, 1.0),
        (Lag(1.0, 2.0), 0.0, 1.2, None),
    ],
)
def test_a_blocked_loop(lag: Lag, since: float, until: float, seconds: float | None) -> None:
    health = summarize(samples((0, {1: 0}), (9, {1: 0})), [lag], ONE, ONE, 1)
    found = health.loop_blocked(since, until)
    assert (found.seconds if found else None) == seconds


@linux
def test_a_spinning_thread_is_busy_and_a_waiting_one_is_not() -> None:
    def spin() -> None:
        while not over.is_set():
            pass

    over = threading.Event()
    spinner, waiter = threading.Thread(target=spin), threading.Thread(target=over.wait)
    for thread in (spinner, waiter):
        thread.start()
    deadline = time.monotonic() + 30
    while sum(usage.run_times(ME)[spinner.native_id or 0]) < 0.2:  # however busy the machine is
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sum(usage.run_times(ME)[waiter.native_id or 0]) < 0.1
    assert (spinner.native_id or 0) not in usage.run_times(ME, without=[spinner.native_id or 0])
    over.set()
    for thread in (spinner, waiter):
        thread.join()


@linux
def test_children_and_theirs() -> None:
    # The kernel tells a process's time in ticks of 10 ms, user's and system's rounded down.
    code = (
        "import subprocess, sys, time\n"
        "while time.process_time() < 0.05: pass\n"
        "subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = usage.descendants(ME)
        assert found[found.index(child.pid) + 1] in usage.descendants(child.pid)
        assert child.pid not in usage.descendants(ME, without=[child.pid])
        assert usage.cpu_seconds(child.pid) > 0


@linux
def test_a_process_that_is_gone_uses_nothing() -> None:
    gone = 2**22 + 1  # larger than any pid_max
    assert (usage.run_times(gone), usage.cpu_seconds(gone)) == ({}, 0)
    assert usage.descendants(gone) == []
