"""How lengths of time and numbers read."""

from __future__ import annotations

import pytest

from pytest_tcpresilience import Keepalive
from pytest_tcpresilience.evidence.units import bytes_were, duration, times
from pytest_tcpresilience.tcp.windows import idle_window


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.304, "0.30 s"),
        (12.34, "12.3 s"),
        (938.66, "15 min 39 s"),
        (3600, "1 h"),
        (7384, "2 h 3 min 4 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_linux_defaults_in_words() -> None:
    assert duration(idle_window(Keepalive.linux_defaults()).nominal) == "2 h 11 min 15 s"


def test_numbers() -> None:
    assert [bytes_were(1), bytes_were(2)] == ["1 byte was", "2 bytes were"]
    assert [times(count) for count in (1, 2, 3)] == ["once", "twice", "3 times"]
