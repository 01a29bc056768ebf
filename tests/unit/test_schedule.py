"""When a scheduled toxic is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tcpresilience.engine.schedule import (
    AwaitBytes,
    AwaitConnection,
    Due,
    Schedule,
    SleepUntil,
    due,
)

Decision = Due | SleepUntil | AwaitConnection | AwaitBytes


@pytest.mark.parametrize(
    ("schedule", "immediate"),
    [
        (Schedule(), True),
        (Schedule(when_idle=1), False),
        (Schedule(after=1), False),
        (Schedule(after_bytes=1), False),
    ],
    ids=str,
)
def test_without_a_schedule_it_is_immediate(schedule: Schedule, immediate: bool) -> None:
    assert schedule.immediate is immediate


# Armed at 100.
@pytest.mark.parametrize(
    ("schedule", "now", "last_byte_at", "decision"),
    [
        pytest.param(Schedule(), 100, None, Due(), id="now"),
        pytest.param(Schedule(after=2), 100, None, SleepUntil(102), id="after"),
        pytest.param(Schedule(after=2), 101.9, 101, SleepUntil(102), id="after-not-yet"),
        pytest.param(Schedule(after=2), 102, 102, Due(), id="after-whatever-moves"),
        pytest.param(Schedule(when_idle=3), 100, None, AwaitConnection(), id="idle-needs-one"),
        pytest.param(Schedule(when_idle=3), 100, 99, SleepUntil(102), id="idle-in-a-while"),
        pytest.param(Schedule(when_idle=3), 102, 101, SleepUntil(104), id="traffic-puts-it-off"),
        pytest.param(Schedule(when_idle=3), 102, 99, Due(), id="idle-for-long-enough"),
        pytest.param(Schedule(when_idle=3), 100, 90, Due(), id="idle-before-it-was-armed"),
        pytest.param(Schedule(3, 2), 101, 90, SleepUntil(102), id="both-after-first"),
        pytest.param(Schedule(3, 2), 102, 101, SleepUntil(104), id="both-then-idle"),
        pytest.param(Schedule(3, 2), 104, 101, Due(), id="both"),
    ],
)
def test_when_it_is_due(
    schedule: Schedule, now: float, last_byte_at: float | None, decision: Decision
) -> None:
    assert due(schedule, now=now, armed_at=100, last_byte_at=last_byte_at) == decision


@pytest.mark.parametrize(
    ("crossed", "room", "decision"),
    [(0, 5, AwaitBytes()), (4, 1, AwaitBytes()), (5, 0, Due()), (6, 0, Due())],
)
@pytest.mark.parametrize("last_byte_at", [None, 200])
def test_by_bytes_no_time_counts(
    crossed: int, room: int, decision: Decision, last_byte_at: float | None
) -> None:
    schedule = Schedule(after_bytes=5)
    assert schedule.room(crossed) == room
    assert (
        due(schedule, now=300, armed_at=100, last_byte_at=last_byte_at, crossed=crossed) == decision
    )


times = st.floats(0, 1e6)


@given(times, times, times, times, times)
def test_a_sleep_is_never_in_vain(
    when_idle: float, after: float, armed_at: float, last_byte_at: float, now: float
) -> None:
    """Waiting as told, with no traffic, leads to the hit in two steps at most."""
    schedule = Schedule(when_idle, after)
    for _ in range(3):
        decision = due(schedule, now=now, armed_at=armed_at, last_byte_at=last_byte_at)
        if isinstance(decision, Due):
            return
        assert isinstance(decision, SleepUntil)
        assert decision.at > now
        now = decision.at
    pytest.fail(f"{schedule} is never due")
