"""Which process a user name stands for."""

from __future__ import annotations

import pytest

from pytest_tcpresilience.engine.tenants import process_of


@pytest.mark.parametrize(
    ("user", "process"),
    [
        ("pid-1", 1),
        ("pid-4194304", 4194304),
        ("pid-0", None),
        ("pid-", None),
        ("pid--1", None),
        ("pid-1x", None),
        ("pid-²", None),
        ("pid-9999999999", None),
        ("1", None),
        ("", None),
        ("tcpresilience", None),
    ],
)
def test_a_user_name_stands_for_a_process_or_for_none(user: str, process: int | None) -> None:
    assert process_of(user) == process
