"""Where a block may be left by force, and where that would break its event loop."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from pytest_tcpresilience.expectations.interrupt import Unwinder


def through(module: str, function: Callable[[], bool]) -> bool:
    """Call ``function`` from a frame of that module."""
    namespace: dict[str, Any] = {"__name__": module}
    exec("def call(function): return function()", namespace)
    return bool(namespace["call"](function))


def within(module: str, function: Callable[[FrameType], bool]) -> bool:
    """Call ``function`` with a frame of that module."""
    namespace: dict[str, Any] = {"__name__": module, "sys": sys}
    exec("def call(function): return function(sys._getframe())", namespace)
    return bool(namespace["call"](function))


@pytest.mark.parametrize(
    ("module", "loop_inside", "may"),
    [
        ("a_client.retries", True, True),
        ("trio._timeouts", True, False),
        ("asyncio.tasks", True, False),
        ("pytest_tcpresilience.link", True, False),
        # A loop that the block itself runs is the block's to lose.
        ("asyncio.events", False, True),
        ("pytest_tcpresilience.link", False, False),
    ],
)
def test_what_a_block_calls(module: str, loop_inside: bool, may: bool) -> None:
    """It is what stands between the block and the frame that counts, not the frame's own."""
    unwinder = Unwinder(sys._getframe(), loop_inside=loop_inside)
    assert through(module, lambda: unwinder.may_leave(sys._getframe())) is may


@pytest.mark.parametrize("loop_inside", [False, True])
def test_a_loops_own_frame_is_not_left(loop_inside: bool) -> None:
    unwinder = Unwinder(sys._getframe(), loop_inside=loop_inside)
    assert unwinder.may_leave(sys._getframe())
    assert not within("trio._core._run", unwinder.may_leave)
    assert within("a_client", unwinder.may_leave)


def test_what_runs_for_nobody_is_not_left() -> None:
    def another_block() -> Unwinder:
        return Unwinder(sys._getframe(), loop_inside=True)

    assert not another_block().may_leave(sys._getframe())
