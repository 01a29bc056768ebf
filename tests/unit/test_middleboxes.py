"""Middleboxes as data."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pytest_tcpresilience import UsageError
from pytest_tcpresilience.tcp.middleboxes import EVICTION_MODES, Middlebox


@pytest.mark.parametrize("mode", EVICTION_MODES)
def test_every_mode_of_eviction_is_one(mode: str) -> None:
    assert Middlebox(350, then=mode).then == mode


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf, True, "350", None, 0.0009])
def test_what_is_no_time_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="is no time"):
        Middlebox(wrong)


def test_an_unknown_mode_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="none of the choices") as caught:
        Middlebox(350, then="rst")
    assert '"reset_both"' in str(caught.value)


def test_it_says_what_it_is() -> None:
    assert str(Middlebox(350, "reset", "AWS NLB")) == ("AWS NLB (forgets after 350 s, then reset)")
