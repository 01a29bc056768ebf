"""What the objects of all expectations but ``detects_break`` have to tell."""

from __future__ import annotations

import time
from collections.abc import Callable

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.evidence.health import Health
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.evidence.verdict import Observation


class Clocked:
    """What reads the clock in a block: that of its link, which may be virtual."""

    _now: Callable[[], float] = staticmethod(time.monotonic)

    def use_clock(self, now: Callable[[], float]) -> None:
        self._now = now


class Outcome:
    """How a block went. Its attributes can be read once the block has ended."""

    _name = "outcome"

    def __init__(self) -> None:
        self._seen: Observation | None = None

    def conclude(self, seen: Observation) -> None:
        self._seen = seen

    def read(self) -> Observation:
        """All that was seen.

        :raises UsageError: before the block has ended well.
        """
        if self._seen is None:
            raise UsageError(
                f"the {self._name} has nothing to tell yet",
                expected="to be read after the with block",
                happened="it was read inside the block, or the block failed",
                advice="move the assertion behind the block",
            )
        return self._seen

    @property
    def fault(self) -> str:
        """The name of the fault that hit."""
        return self.read().fault

    @property
    def timeline(self) -> tuple[Event, ...]:
        """All that happened on the link, with what the block did, on one clock."""
        return self.read().events

    @property
    def health(self) -> Health:
        """CPU time, event-loop lag, threads and descriptors while the block ran."""
        health = self.read().health
        assert health is not None
        return health
