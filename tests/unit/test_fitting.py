"""Settings that keep a promise, checked against the windows that they have."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_tcpresilience import Keepalive
from pytest_tcpresilience.tcp.fitting import FASTEST, keepalive_for, user_timeout_for
from pytest_tcpresilience.tcp.windows import idle_window, unacknowledged_window


@settings(deadline=None)  # a busy machine is no mistake
@given(st.floats(min_value=0.1, max_value=1e5))
def test_what_is_advised_keeps_the_promise(limit_s: float) -> None:
    fit = keepalive_for(limit_s)
    if fit is None:
        assert limit_s < idle_window(FASTEST).latest
    else:
        assert idle_window(fit).latest <= limit_s
        slower = Keepalive(idle=fit.idle + 1, interval=fit.interval + 1, probes=fit.probes)
        assert fit.idle == 32767 or idle_window(slower).latest > limit_s


@settings(deadline=None)  # a busy machine is no mistake
@given(st.floats(min_value=0.1, max_value=1e4))
def test_the_user_timeout_that_is_advised_keeps_the_promise(limit_s: float) -> None:
    fit = user_timeout_for(limit_s)
    if fit is None:
        assert limit_s < unacknowledged_window(Keepalive(1, 1, 1, user_timeout=0.1)).latest
    else:
        window = unacknowledged_window(Keepalive(1, 1, 1, user_timeout=fit))
        assert window.latest <= limit_s + 1e-9


@pytest.mark.parametrize(
    ("limit_s", "fit"),
    [(1.0, None), (3.0, (1, 1, 1)), (10.0, (2, 2, 3)), (60.0, (13, 13, 3))],
)
def test_three_probes_where_there_is_time(limit_s: float, fit: tuple[int, int, int]) -> None:
    assert keepalive_for(limit_s) == (None if fit is None else Keepalive(*fit))
