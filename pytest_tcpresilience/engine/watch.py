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
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
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
        self._followed: set[int] = set()

    async def run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._witness, nursery)
                await self._rescue()

    def end(self) -> None:
        """The wait is over; whoever reads the events is told."""
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
            seen = 0
            while True:
                for event in await self._proxy.events.wait_since(seen, LONG_S):
                    seen = event["seq"]
                    if event["kind"] == "fault_hit" and len(self._followed) < MOST_FOLLOWED:
                        nursery.start_soon(self._follow, diag, event["connection"])

    async def _follow(self, diag: SockDiag, number: int) -> None:
        connection = self._proxy.connections.get(number)
        if connection is None or number in self._followed:
            return
        self._followed.add(number)
        before: SocketState | None = None
        while connection.closed is None:
            now = diag.lookup(connection.client_address, connection.local_address)
            if now is None:
                self._gone(number, before)
                return
            self._compare(number, before, now)
            before = now
            await trio.sleep(POLL_S)

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
