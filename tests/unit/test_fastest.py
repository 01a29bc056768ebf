"""Fast settings that decide by the same rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tcpresilience.tcp.fastest import fastest
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.windows import idle_window, unacknowledged_window, unanswered_probes


@pytest.mark.parametrize(
    ("own", "probes", "fast", "takes"),
    [
        (Keepalive(7200, 75, 9), 2, Keepalive(1, 1, 2), 3.0),
        (Keepalive(7200, 75, 9), None, Keepalive(1, 1, 9), 10.0),
        (Keepalive(7200, 75, 1), 2, Keepalive(1, 1, 1), 2.0),
        # The user timeout decides: after one probe, after two of five, after all of three.
        (Keepalive(60, 10, 9, 30.0), 2, Keepalive(1, 1, 9, 1.5), 2.0),
        (Keepalive(60, 10, 9, 110.0), 2, Keepalive(1, 1, 9, 2.5), 3.0),
        (Keepalive(60, 10, 9, 90.0), None, Keepalive(1, 1, 9, 3.5), 4.0),
        (Keepalive(60, 10, 9, 0.5), 2, Keepalive(1, 1, 9, 0.5), 2.0),
    ],
)
def test_the_same_rule_in_seconds(
    own: Keepalive, probes: int | None, fast: Keepalive, takes: float
) -> None:
    assert fastest(own, probes) == fast
    assert idle_window(fast).nominal == takes


settings = st.builds(
    Keepalive,
    idle=st.integers(1, 32767),
    interval=st.integers(1, 32767),
    probes=st.integers(1, 127),
    user_timeout=st.just(0.0) | st.floats(0.001, 2_000_000),
)


@given(own=settings, probes=st.integers(1, 127))
def test_whatever_the_settings(own: Keepalive, probes: int) -> None:
    fast = fastest(own, probes)
    assert bool(fast.user_timeout) is bool(own.user_timeout)
    assert unanswered_probes(fast) == min(unanswered_probes(own), probes)
    assert idle_window(fast).nominal <= idle_window(own).nominal
    if own.user_timeout:
        assert unacknowledged_window(fast).nominal <= unacknowledged_window(own).nominal
