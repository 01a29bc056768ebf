"""The order in which trio runs tasks that are ready at once, made a matter of the seed.

trio shuffles them on purpose. It has a switch for tools that need the same order again,
which pytest-trio and Hypothesis use too (trio issue 890); it is private, so this module is
the only one that touches it, and without it only the order within one moment is open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio


def deterministic_order(seed: int) -> Callable[[], None]:
    """Let the seed decide, until the result is called."""
    scheduler: Any = getattr(getattr(trio, "_core", None), "_run", None)
    draws = getattr(scheduler, "_r", None)
    if draws is None or not hasattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING"):
        return lambda: None
    before, state = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, draws.getstate()
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    draws.seed(seed)

    def undo() -> None:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before
        draws.setstate(state)

    return undo
