"""Counting bytes, so that a fault acts after exactly so many of them.

Owns the counts of the toxics that wait for ``after_bytes``. What counts, and when such a
toxic is due, is :mod:`.schedule`'s; nothing here touches a socket.

A pump asks how much it may write. Once the last byte has crossed, nothing more may until
the toxic has struck: else bytes would slip by while its strike is on its way.
"""

from __future__ import annotations

from collections.abc import Iterator

import trio

from pytest_tcpresilience.engine.schedule import Schedule
from pytest_tcpresilience.engine.toxics import Toxic


class Meter:
    """What has crossed since a toxic was armed.

    :ivar token: by this name connections are held from the last byte to the strike.
    """

    def __init__(self, toxic: Toxic, schedule: Schedule) -> None:
        self.toxic = toxic
        self.token = f"{toxic.name}, counted out"
        self.crossed = 0
        self.full = trio.Event()
        self._schedule = schedule

    @property
    def room(self) -> int:
        return self._schedule.room(self.crossed)

    def add(self, count: int) -> None:
        self.crossed += count
        if not self.room:
            self.full.set()


class Meters:
    """The meters of one proxy, by the names of their toxics."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}

    def start(self, toxic: Toxic, schedule: Schedule) -> Meter:
        meter = self._meters[toxic.name] = Meter(toxic, schedule)
        return meter

    def stop(self, meter: Meter) -> None:
        self._meters.pop(meter.toxic.name, None)

    def on(self, number: int) -> Iterator[Meter]:
        """Those that count what crosses the connection of this number."""
        for meter in list(self._meters.values()):
            if meter.toxic.aims_at(number):
                yield meter

    def room(self, number: int, count: int) -> int:
        """How many of ``count`` bytes may cross a connection now."""
        if not self._meters:
            return count
        return min([count, *(meter.room for meter in self.on(number))])
