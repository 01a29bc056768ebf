"""What a middlebox remembers: counts and times in, decisions out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tcpresilience.engine.flows import LOOKS, SHORTEST_S, Flow


def test_it_looks_often_and_forgets_at_the_end_of_its_patience() -> None:
    flow = Flow(idle_timeout=2.0, count=7, seen_at=100.0)
    assert flow.look(7, 100.0) == pytest.approx(0.1)
    assert flow.look(7, 101.95) == pytest.approx(0.05)
    assert flow.look(7, 102.0) is None


def test_a_segment_starts_it_anew() -> None:
    flow = Flow(idle_timeout=2.0, count=7, seen_at=100.0)
    assert flow.look(8, 101.9) == pytest.approx(0.1)
    assert flow.look(8, 103.8) == pytest.approx(0.1)
    assert flow.look(8, 103.9) is None


def test_a_count_that_has_started_anew_is_a_segment_too() -> None:
    flow = Flow(idle_timeout=2.0, count=2**32 - 1, seen_at=100.0)
    assert flow.look(0, 102.5) is not None


def test_it_does_nothing_but_look_at_no_time() -> None:
    assert Flow(idle_timeout=0.001, count=0, seen_at=0.0).pause == SHORTEST_S


@given(
    idle_timeout=st.floats(0.05, 1000),
    gaps=st.lists(st.floats(0.001, 900), max_size=20),
)
def test_it_forgets_never_early_and_at_most_a_twentieth_late(
    idle_timeout: float, gaps: list[float]
) -> None:
    """Against a flow whose segments come at known times."""
    times = [0.0]
    for gap in gaps:
        times.append(times[-1] + gap)
    flow, now = Flow(idle_timeout, 1, 0.0), 0.0
    while True:
        count = sum(each <= now for each in times)
        wait = flow.look(count, now)
        if wait is None:
            break
        now += wait
    idle_for = now - max(each for each in times if each <= now)
    slack = idle_timeout * 1e-6  # what is added up is floats
    assert idle_timeout - slack <= idle_for <= idle_timeout * (1 + 1 / LOOKS) + slack
