"""While a test waits for its client: the witness, and the rescue.

Owns two things that must not depend on the client's process, because that process may
be hanging with its interpreter locked: following the client's socket from outside, and
ending the wait when its window is over. It reads the proxy's events to learn when a
fault hit, and writes what it sees into the same log.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from pytest_tcpresilience.engine import toxics
from pytest_tcpresilience.engine.errors import bad_body
from pytest_tcpresilience.kernel.sockdiag import SockDiag, SocketState

if TYPE_CHECKING:
    from pytest_tcpresilience.engine.proxy import Proxy

# A lookup costs 10 µs; the reported times are to be right within 5 ms.
POLL_S = 0.002
# A link with more connections than this is followed in its first ones.
MOST_FOLLOWED = 32
LONG_S = 3600.0
# What a wait may take at most: a year.
LONGEST_S = 366 * 86400.0


@dataclass(frozen=True)
class Terms:
    """When to rescue. All in seconds.

    :param after_hit: from the first fault that hits to the first stage.
    :param grace: from the first stage, RST, to the second, no new connections.
    :param unhit: from the beginning, for a fault that never hits.
    :param since: number of the last event that an earlier wait has judged.
    """

    after_hit: float
    grace: float
    unhit: float
    since: int

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Terms:
        values: list[float] = []
        for name in ("after_hit", "grace", "unhit"):
            value = body.get(name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise bad_body(f"{name}: seconds are wanted")
            # Neither NaN nor infinity is between the two, though json reads both.
            if not 0 <= value <= LONGEST_S:
                raise bad_body(f"{name}: seconds are wanted, at least 0")
            values.append(float(value))
        since = body.get("since", 0)
        if isinstance(since, bool) or not isinstance(since, int):
            raise bad_body("since: the number of an event is wanted")
        after_hit, grace, unhit = values
        return cls(after_hit, grace, unhit, since)


class Watch:
    """One wait of one test. :meth:`run` until it is cancelled by :meth:`end`."""

    def __init__(self, proxy: Proxy, terms: Terms) -> None:
        self._proxy = proxy
        self._terms = terms
        self._scope = trio.CancelScope()
        # The last look at each client's socket that is being followed.
        self._looks: dict[int, SocketState | None] = {}
        # Sockets that had a timer at the last look but one, and none at the last.
        self._doubtful: set[int] = set()
        self._diag: SockDiag | None = None

    async def run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._witness, nursery)
                await self._rescue()

    def end(self) -> None:
        """The wait is over; whoever reads the events is told.

        A client may have noticed since the last look, so there is a final one.
        """
        for number in list(self._looks):
            self._look(number)
        self._scope.cancel()
        self._proxy.events.add("watch_ended")

    # --- rescue --------------------------------------------------------------------------

    async def _rescue(self) -> None:
        struck_at: float | None = None
        with trio.move_on_after(self._terms.unhit):
            struck_at = await self._first("fault_hit", "fault_active")
        if struck_at is not None:
            await self._until(struck_at + self._terms.after_hit)
            # A fault can act on an empty link; its first connection may have come since.
            hit_at = self._hit_so_far()
            if hit_at is not None:
                await self._until(hit_at + self._terms.after_hit)
        self._proxy.rescue(refuse=False)
        await trio.sleep(self._terms.grace)
        self._proxy.rescue(refuse=True)

    @staticmethod
    async def _until(at: float) -> None:
        await trio.sleep(max(at - time.monotonic(), 0))

    async def _first(self, *kinds: str) -> float:
        """When the fault struck that this wait is about."""
        seen = 0
        while True:
            for event in await self._proxy.events.wait_since(seen, LONG_S):
                seen = event["seq"]
                if event["kind"] in kinds and self._concerns(event):
                    return float(event["at"])

    def _hit_so_far(self) -> float | None:
        for event in self._proxy.events.since(0):
            if event["kind"] == "fault_hit" and self._concerns(event):
                return float(event["at"])
        return None

    def _concerns(self, event: Mapping[str, Any]) -> bool:
        """Whether a hit is one that the client may still notice in this wait.

        A fault that lasts counts whenever it hit. One that acts once counts only if no
        earlier wait has judged it.
        """
        if event["toxic"] not in self._proxy.toxics:
            return False
        return event["seq"] > self._terms.since or not toxics.TYPES[event["type"]].once

    # --- witness -------------------------------------------------------------------------

    async def _witness(self, nursery: trio.Nursery) -> None:
        try:
            diag = SockDiag()
        except OSError as error:
            self._proxy.events.add("witness_unavailable", error=str(error))
            return
        with diag:
            self._diag = diag
            try:
                await self._follow_all(nursery)
            finally:
                self._diag = None

    async def _follow_all(self, nursery: trio.Nursery) -> None:
        seen, followed = 0, set[int]()
        while True:
            for event in await self._proxy.events.wait_since(seen, LONG_S):
                seen = event["seq"]
                if event["kind"] != "fault_hit" or len(followed) >= MOST_FOLLOWED:
                    continue
                number = event["connection"]
                if number and number not in followed:
                    followed.add(number)
                    nursery.start_soon(self._follow, number)

    async def _follow(self, number: int) -> None:
        self._looks[number] = None
        while self._look(number):
            await trio.sleep(POLL_S)

    def _look(self, number: int) -> bool:
        """Look at the client's socket and record what is new. Whether to look again."""
        connection = self._proxy.connections.get(number)
        before = self._looks[number]
        if connection is None or connection.closed is not None or self._diag is None:
            del self._looks[number]
            return False
        now = self._diag.lookup(connection.client_address, connection.local_address)
        if now is None:
            del self._looks[number]
            self._gone(number, before)
            return False
        if self._is_doubtful(number, before, now):
            return True
        self._compare(number, before, now)
        self._looks[number] = now
        return True

    def _is_doubtful(self, number: int, before: SocketState | None, now: SocketState) -> bool:
        """A timer whose handler is running at this moment is not armed, and looks "off".

        Two looks in a row cannot both fall into that moment.
        """
        vanished = now.timer == "off" and before is not None and before.timer != "off"
        if vanished and number not in self._doubtful:
            self._doubtful.add(number)
            return True
        self._doubtful.discard(number)
        return False

    def _gone(self, number: int, before: SocketState | None) -> None:
        if before is None:
            reason = "the client's socket is not in this network namespace, or gone already"
            self._proxy.events.add("witness_unavailable", connection=number, error=reason)
            return
        self._proxy.events.add(
            "client_gone",
            connection=number,
            state=before.state,
            timer=before.timer,
            unanswered=before.unanswered,
            unacknowledged=before.unacknowledged,
        )

    def _compare(self, number: int, before: SocketState | None, now: SocketState) -> None:
        changed = before is None or (before.timer, before.state) != (now.timer, now.state)
        answered = before is not None and now.unanswered > before.unanswered
        if not (changed or answered):
            return
        kind = "client_socket" if changed else "client_unanswered"
        self._proxy.events.add(
            kind,
            connection=number,
            state=now.state,
            timer=now.timer,
            expires=now.expires,
            unanswered=now.unanswered,
            unacknowledged=now.unacknowledged,
        )
