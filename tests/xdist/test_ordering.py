"""Long waits begin first and side by side, whichever of xdist's schedulers hands them out."""

from __future__ import annotations

from collections import Counter
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("xdist")

from pytest_tcpresilience import long_waits
from pytest_tcpresilience.ordering import SCOPES, Distribution, order
from tests.inner import LEAN, Inner
from tests.xdist.schedulers import Run, Start

SHORT_S = 0.01
MODES = ["load", "worksteal", "loadscope", "loadfile", "loadgroup"]

waits = st.lists(
    st.one_of(st.just(0.0), st.just(10.0), st.floats(1.0, 30.0)), min_size=1, max_size=60
)
workers = st.integers(1, 8)


def played(mode: str, names: list[str], how_long: list[float], how: Distribution) -> Run:
    """By xdist's scheduler, in our order."""
    ordered = [names[place] for place in order(names, how_long, how)]
    durations = {name: wait or SHORT_S for name, wait in zip(names, how_long, strict=True)}
    return Run(mode, how.workers, ordered, durations, chunk=how.chunk)


def assert_shared(starts: list[Start], is_long: dict[str, bool], workers: int) -> None:
    """No worker begins a second long one while another has had none."""
    had: Counter[int] = Counter()
    at_once: dict[float, list[Start]] = {}
    for start in starts:
        if is_long[start.test]:
            at_once.setdefault(start.at, []).append(start)
    for moment in sorted(at_once):
        had.update(start.worker for start in at_once[moment])
        if max(had.values()) > 1:
            assert len(had) == workers, had


@pytest.mark.parametrize("mode", ["load", "worksteal", "loadgroup"])
@given(waits, workers, st.sampled_from([None, 1, 3]))
@settings(max_examples=150, deadline=None)
def test_each_worker_gets_its_share(
    mode: str, how_long: list[float], workers: int, chunk: int | None
) -> None:
    names = [f"a.py::test[{number}]" for number in range(len(how_long))]
    run = played(mode, names, how_long, Distribution(mode, workers, chunk, by_size=True))
    is_long = {name: wait > 0 for name, wait in zip(names, how_long, strict=True)}
    assert_shared(run.starts, is_long, workers)
    # Graham's bound for lists: no worker is idle while a test waits to be begun.
    short = how_long.count(0.0) * SHORT_S
    bound = sum(how_long) / workers + max(how_long) * (1 - 1 / workers) + short
    assert run.now <= bound + SHORT_S + 1e-6


@pytest.mark.parametrize("mode", ["loadscope", "loadfile", "loadgroup"])
@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=30), workers)
@settings(max_examples=100, deadline=None)
def test_each_worker_gets_its_share_of_scopes(
    mode: str, scopes: list[tuple[int, bool]], workers: int
) -> None:
    joint = {"loadscope": "{0}.py::Test::x{1}", "loadfile": "{0}.py::x{1}"}
    pattern = joint.get(mode, "a.py::x{1}@{0}")
    names, how_long = [], []
    for number, (size, is_long) in enumerate(scopes):
        for each in range(size):
            names.append(pattern.format(number, f"{number}_{each}"))
            how_long.append(10.0 if is_long and each == size - 1 else 0.0)
    run = played(mode, names, how_long, Distribution(mode, workers, by_size=True))
    is_long_test = {name: wait > 0 for name, wait in zip(names, how_long, strict=True)}
    assert_shared(run.starts, is_long_test, workers)
    # A scope is not torn apart.
    where = {(SCOPES[mode](start.test), start.worker) for start in run.starts}
    assert len(where) == len(scopes)


@pytest.mark.parametrize(("mode", "by_size"), list(product(SCOPES, [False, True])))
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), workers)
@settings(max_examples=50, deadline=None)
def test_without_long_waits_scopes_go_as_xdist_would_send_them(
    mode: str, by_size: bool, of: list[int], workers: int
) -> None:
    names = [f"{scope}.py::test_{number}@{scope}" for number, scope in enumerate(of)]
    durations = dict.fromkeys(names, SHORT_S)
    alone = Run(mode, workers, names, durations, by_size=by_size)
    how = Distribution(mode, workers, by_size=by_size)
    ours = played(mode, names, [0.0] * len(names), how)
    assert ours.starts == alone.starts


def test_as_collected_one_worker_would_have_had_two() -> None:
    """The simulation can fail: without an order two workers have all that is long."""
    names = [f"a.py::test[{number}]" for number in range(44)]
    durations = {name: 10.0 if number < 4 else SHORT_S for number, name in enumerate(names)}
    run = Run("load", 4, names, durations)
    is_long = {name: durations[name] > 1 for name in names}
    with pytest.raises(AssertionError):
        assert_shared(run.starts, is_long, 4)
    assert run.now >= 20
    ordered = played(
        "load", names, [durations[n] * is_long[n] for n in names], Distribution("load", 4)
    )
    assert ordered.now == pytest.approx(10.0, abs=0.5)


# Long tests that can only pass side by side: each waits until all four have begun.
SIDE_BY_SIDE = """
    import pathlib
    import time
    import pytest

    HERE = pathlib.Path({path!r})

    @pytest.mark.resilience(wait=1.0)
    @pytest.mark.parametrize("number", range(4))
    def test_long(number, worker_id):
        (HERE / f"begun.{{worker_id}}").touch(exist_ok=False)
        deadline = time.monotonic() + 30
        while len(list(HERE.glob("begun.*"))) < 4:
            assert time.monotonic() < deadline, "the others have not begun"
            time.sleep(0.01)

    @pytest.mark.parametrize("number", range(40))
    def test_short(number): pass
"""


@pytest.mark.parametrize("mode", ["load", "worksteal"])
def test_long_waits_run_side_by_side(inner: Inner, mode: str) -> None:
    source = SIDE_BY_SIDE.format(path=str(inner.pytester.path))
    result = inner.run_subprocess(source, "-n4", f"--dist={mode}", "--resilience-long-wait=1")
    result.assert_outcomes(passed=44)


def test_scopes_with_long_waits_run_side_by_side(inner: Inner) -> None:
    """Though the other scopes have more tests, which is what xdist sorts them by."""
    long, _, short = SIDE_BY_SIDE.format(path=str(inner.pytester.path)).partition("range(4)")
    files = {f"test_long_{number}": f"{long}range(1){short}" for number in range(4)}
    files = {name: text.replace("range(40)", "range(1)") for name, text in files.items()}
    many = "import pytest\n@pytest.mark.parametrize('n', range(9))\ndef test_many(n): pass"
    inner.pytester.makepyfile(**files, **{f"test_a_{number}": many for number in range(4)})
    result = inner.pytester.runpytest_subprocess(
        *LEAN, "-n4", "--dist=loadfile", "--resilience-long-wait=1"
    )
    result.assert_outcomes(passed=4 + 4 + 36)


def test_each_worker_is_told_the_same_also_the_successor_of_one_that_died(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini("[pytest]")
    config = pytester.parseconfig("--dist=loadscope", "--maxschedchunk=3")
    nodes: list[Any] = [
        SimpleNamespace(config=config, workerinput={"workercount": 2}) for _ in range(3)
    ]
    for node in nodes:
        long_waits.hand_over(node)
        handed = node.workerinput[long_waits.HANDED_OVER]
        assert handed == {"mode": "loadscope", "workers": 2, "chunk": 3, "by_size": True}
    assert config.option.loadscopereorder is False
    unsorted = pytester.parseconfig("--dist=loadscope", "--no-loadscope-reorder")
    nodes[0].config = unsorted
    long_waits.hand_over(nodes[0])
    assert nodes[0].workerinput[long_waits.HANDED_OVER]["by_size"] is False
