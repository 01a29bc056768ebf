"""From a link toxic that was added to its strike: at once, when it is due, or later still.

Owns the waiting of one proxy's link toxics: for their schedule, and for a proxy that is
disabled. When a schedule is due is :mod:`.schedule`'s; the strike is the proxy's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from pytest_tcpresilience.engine import schedule
from pytest_tcpresilience.engine.legs import settle
from pytest_tcpresilience.engine.meters import Meter, Meters
from pytest_tcpresilience.engine.schedule import Schedule
from pytest_tcpresilience.engine.strikes import Active
from pytest_tcpresilience.engine.toxics import Toxic

if TYPE_CHECKING:
    from pytest_tcpresilience.engine.connection import Connection
    from pytest_tcpresilience.engine.proxy import Proxy


def plan(toxic: Toxic) -> Schedule:
    return Schedule(
        when_idle=toxic.attributes.get("when_idle", 0) / 1000,
        after=toxic.attributes.get("after", 0) / 1000,
        after_bytes=toxic.after_bytes,
    )


class Arming:
    """:param proxy: whose toxics these are."""

    def __init__(self, proxy: Proxy) -> None:
        self.meters = Meters()
        self._proxy = proxy

    async def arm(self, active: Active) -> None:
        """It acts before this returns, unless it has a schedule."""
        toxic, proxy = active.toxic, self._proxy
        if plan(toxic).immediate:
            await proxy.strike(active)
            return
        meter = self.meters.start(toxic, plan(toxic)) if toxic.after_bytes else None
        if meter is not None:
            proxy.reshape()  # from now on, pumps ask how much may cross
        proxy.start_soon(lambda: self._strike_when_due(active, meter))

    async def arm_pending(self) -> None:
        """What was added while the proxy was disabled; before the first client can come."""
        toxics = self._proxy.toxics
        while pending := [each for each in toxics.values() if each.pending]:
            pending[0].armed_at = time.monotonic()
            await self.arm(pending[0])

    async def _strike_when_due(self, active: Active, meter: Meter | None) -> None:
        try:
            with active.scope:
                await self._until_due(active, meter)
                if meter is not None:
                    # They have left the engine; a RST would overtake them on their way.
                    hit = self._proxy.targets(active.toxic)
                    await settle([leg for each in hit for leg in each.legs()])
                await self._proxy.strike(active)
        finally:
            if meter is not None:
                self._stop_counting(meter)

    async def _until_due(self, active: Active, meter: Meter | None) -> None:
        assert active.armed_at is not None
        while True:
            now = time.monotonic()
            targets = self._proxy.targets(active.toxic)
            answer = schedule.due(
                plan(active.toxic),
                now=now,
                armed_at=active.armed_at,
                last_byte_at=max((each.last_byte_at for each in targets), default=None),
                crossed=meter.crossed if meter else 0,
            )
            if isinstance(answer, schedule.Due):
                return
            if isinstance(answer, schedule.SleepUntil):
                await trio.sleep(answer.at - now)
            elif meter is not None:
                await meter.full.wait()
            else:
                await self._proxy.opened().wait()

    # --- counting ------------------------------------------------------------------------

    def joined(self, connection: Connection) -> None:
        """A connection begins, maybe in the moment between the last byte and the strike."""
        for meter in self.meters.on(connection.number):
            if not meter.room:
                connection.hold(meter.token)

    def crossed(self, number: int, count: int) -> None:
        """Bytes have crossed a connection. With the last that may, nothing more does."""
        for meter in self.meters.on(number):
            meter.add(count)
            if not meter.room:
                for connection in self._proxy.targets(meter.toxic):
                    connection.hold(meter.token)

    def _stop_counting(self, meter: Meter) -> None:
        """The toxic has struck, and holds by its own name what it holds; or it was removed."""
        self.meters.stop(meter)
        for connection in list(self._proxy.connections.values()):
            connection.release(meter.token)
        self._proxy.reshape()
