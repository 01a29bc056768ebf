"""What has happened on a virtual link: its events, on the clock of its network.

Owns the log of one link and who listens to it. What is written there is the link's and its
witness's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.virtual.network import Network


class LinkLog:
    """Base of a link. Its times are the network's: seconds since the run began."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._log: list[Event] = []
        self._on_event: list[Callable[[Event], None]] = []

    def log(self, kind: str, **fields: Any) -> None:
        event = Event(len(self._log) + 1, self.network.now, kind, fields)
        self._log.append(event)
        for listen in list(self._on_event):
            self.network.wakes += 1
            listen(event)

    def listen(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call it for each event from now on, until the result is called."""
        self._on_event.append(callback)
        return lambda: self._on_event.remove(callback)

    @property
    def events(self) -> tuple[Event, ...]:
        """All that has happened on the link so far, by time."""
        self.sync()
        return tuple(self._log)

    def last_seq(self) -> int:
        """The number of the last event so far."""
        return len(self._log)

    def now(self) -> float:
        """Seconds since the run began."""
        self.sync()
        return self.network.now

    def sync(self) -> None:
        """Bring the network to the time of the run."""
        if self.network.on_sync is not None:
            self.network.on_sync()
