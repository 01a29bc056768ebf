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

from pytest_tcpresilience.engine import endpoints, toxics
from pytest_tcpresilience.engine.errors import bad_body
from pytest_tcpresilience.kernel.sockdiag import Address, SockDiag, SocketState

if TYPE_CHECKING:
    from pytest_tcpresilience.engine.connection import Connection
    from pytest_tcpresilience.engine.proxy import Proxy

# A lookup costs 10 µs; the reported times are to be right within 5 ms.
POLL_S = 0.002
# A link with more connections than this is followed in its first ones.
MOST_FOLLOWED = 32
LONG_S = 3600.0
# What a wait may take at most: a year.
LONGEST_S = 366 * 86400.0
# Since when a wait counts: the first fault that hits; the latest fault that hit or was
# lifted; the wait's own beginning.
CLOCKS = ("hit", "calm", "begin")
# Ends of a connection that leave the client's socket in CLOSE_WAIT until it is closed.
BY_FIN = frozenset({"fin", "hang_up", "evict_fin", "time_out"})


@dataclass(frozen=True)
class Terms:
    """When to rescue. All in seconds.

    :param after_hit: from what ``clock`` says to the first stage.
    :param grace: from the first stage, RST, to the second, no new connections.
    :param unhit: from the beginning, for a fault that never hits.
    :param since: number of the last event that an earlier wait has judged.
    :param clock: one of :data:`CLOCKS`.
    """

    after_hit: float
    grace: float
    unhit: float
    since: int
    clock: str = "hit"

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
        clock = body.get("clock", "hit")
        if clock not in CLOCKS:
            raise bad_body(f"clock: one of {', '.join(CLOCKS)} is wanted")
        after_hit, grace, unhit = values
        return cls(after_hit, grace, unhit, since, clock)


class Watch:
    """One wait of one test. :meth:`run` until it is cancelled by :meth:`end`."""

    def __init__(self, proxy: Proxy, terms: Terms) -> None:
        self._proxy = proxy
        self._terms = terms
        self._scope = trio.CancelScope()
        self._begun_at = time.monotonic()
        # The client's address and ours, of each connection that is followed.
        self._flows: dict[int, tuple[Address, Address]] = {}
        # The last look at each client's socket that is being followed.
        self._looks: dict[int, SocketState | None] = {}
        # Whose sockets they are; some have left the proxy by the last look.
        self._subjects: dict[int, Connection] = {}
        # When each socket's timer runs out that was armed at the very last look.
        self._due: dict[int, float] = {}
        # Sockets that had a timer at the last look but one, and none at the last.
        self._doubtful: set[int] = set()
        self._rescued = False
        # The number of the last event that was read; whom a fault has hit; whom to follow.
        self._seen = 0
        self._hit: set[int] = set()
        self._new: list[int] = []
        self._diag: SockDiag | None = None
        # Before the block begins: it may be over before the next turn of the engine's loop.
        self._open_witness()
        self._take_note()

    async def run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._witness)
                await self._rescue()

    def end(self) -> None:
        """The wait is over; whoever reads the events is told.

        A client may have noticed since the last look, so there is a final one.
        """
        self._proxy.admit_waiting()  # who has connected is to be in the log
        self._take_note()
        for number in list(self._looks):
            if self._look(number) and number in self._doubtful:
                self._look(number)
        self._scope.cancel()
        self._proxy.events.add("watch_ended")

    # --- rescue --------------------------------------------------------------------------

    async def _rescue(self) -> None:
        if self._terms.clock == "hit":
            await self._hit_is_over()
        elif self._terms.clock == "calm":
            await self._calm_is_over()
        else:
            await self._until(self._begun_at + self._terms.after_hit)
        self._rescued = True
        self._proxy.rescue(refuse=False)
        await trio.sleep(self._terms.grace)
        self._proxy.rescue(refuse=True)

    async def _hit_is_over(self) -> None:
        struck_at: float | None = None
        with trio.move_on_after(self._terms.unhit):
            struck_at = await self._first("fault_hit", "fault_active")
        if struck_at is not None:
            await self._until(struck_at + self._terms.after_hit)
            # A fault can act on an empty link; its first connection may have come since.
            hit_at = self._hit_so_far()
            if hit_at is not None:
                await self._until(hit_at + self._terms.after_hit)

    async def _calm_is_over(self) -> None:
        """Each fault that hits or is lifted starts the clock anew."""
        while True:
            due = self._due_in_calm()
            left = due - time.monotonic()
            if left <= 0:
                return
            await self._proxy.events.wait_since(self._proxy.events.last, left)

    def _due_in_calm(self) -> float:
        log = self._proxy.events.since(0)
        hit = any(event["kind"] == "fault_hit" for event in log)
        if not hit or any(each.struck_at is None for each in self._proxy.toxics.values()):
            return self._begun_at + self._terms.unhit
        turns: list[float] = [e["at"] for e in log if e["kind"] in ("fault_hit", "toxic_removed")]
        return max(self._begun_at, *turns) + self._terms.after_hit

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

        A fault that lasts counts whenever it hit. One that acts once, on the link or on
        each connection, counts only if no earlier wait has judged it.
        """
        if event["toxic"] not in self._proxy.toxics:
            return False
        kind = toxics.TYPES[event["type"]]
        if kind.per_flow and event["kind"] == "fault_active":
            return False  # it waits for what a connection does
        return event["seq"] > self._terms.since or not (kind.once or kind.per_flow)

    # --- witness -------------------------------------------------------------------------

    def _open_witness(self) -> None:
        try:
            self._diag = SockDiag()
        except OSError as error:
            self._proxy.events.add("witness_unavailable", error=str(error))

    async def _witness(self) -> None:
        if self._diag is None:
            return
        with self._diag:
            try:
                async with trio.open_nursery() as nursery:
                    while True:
                        for number in self._new:
                            nursery.start_soon(self._follow, number)
                        self._new.clear()
                        await self._proxy.events.wait_since(self._seen, LONG_S)
                        self._take_note()
            finally:
                self._diag = None

    def _take_note(self) -> None:
        """Read the news: whom to follow. Each is looked at at once."""
        beginning = {"fault_hit", "opened"} if self._terms.clock == "begin" else {"fault_hit"}
        for event in self._proxy.events.since(self._seen):
            self._seen = max(self._seen, event["seq"])
            kind, number = event["kind"], event.get("connection", 0)
            if kind in beginning:
                self._begin_to_follow(number)
            if kind == "fault_hit":
                self._hit.add(number)
            elif kind == "connected" and number not in self._hit:
                self._look_for_ghosts(self._hit)

    def _begin_to_follow(self, number: int) -> None:
        connection = self._proxy.connections.get(number)
        if connection is None or number in self._flows or len(self._flows) >= MOST_FOLLOWED:
            return
        self._flows[number] = connection.client_address, connection.local_address
        self._subjects[number] = connection
        self._looks[number] = None
        if self._look(number):
            self._new.append(number)

    def _look_for_ghosts(self, hit: set[int]) -> None:
        """A client is back: does the server still hold what a fault has hit?

        Of a server on another machine nothing is known.
        """
        for number in sorted(hit):
            connection = self._proxy.connections.get(number)
            if connection is not None and connection.closed is None and self._held(connection):
                self._proxy.events.add("ghost", connection=number)

    def _held(self, connection: Connection) -> bool:
        if connection.upstream is None or self._diag is None:
            return False
        sock = connection.upstream.sock
        try:
            ours, servers = sock.getsockname(), sock.getpeername()
        except OSError:
            return False
        found = self._diag.lookup(endpoints.address_of(servers), endpoints.address_of(ours))
        return found is not None and found.state == "established"

    async def _follow(self, number: int) -> None:
        await trio.sleep(POLL_S)
        while self._look(number):
            await trio.sleep(POLL_S)

    def _is_over(self, number: int, before: SocketState | None) -> bool:
        """Whether there is nothing more to see of a client's socket.

        What a rescue or a reset of ours does to it is no news. After a FIN there is: the
        client still has to close its own end.
        """
        if self._diag is None or self._rescued:
            return True
        connection = self._proxy.connections.get(number)
        if connection is None:
            return before is None or before.state != "close-wait"
        return connection.closed is not None and connection.closed not in BY_FIN

    def _tell_if_given_up(self, number: int, before: SocketState | None) -> None:
        """Its kernel gave up between two looks, and its RST ended the connection here."""
        given_up = self._subjects[number].was_given_up and not self._rescued
        if given_up and before is not None and before.unanswered:
            self._gone(number, before)

    def _look(self, number: int) -> bool:
        """Look at the client's socket and record what is new. Whether to look again."""
        before = self._looks[number]
        if self._is_over(number, before) or self._diag is None:
            del self._looks[number]
            self._tell_if_given_up(number, before)
            return False
        looked_at = time.monotonic()
        now = self._diag.lookup(*self._flows[number])
        if now is None:
            del self._looks[number]
            self._gone(number, before)
            return False
        self._due[number] = looked_at + now.expires
        if self._is_doubtful(number, before, now):
            return True
        self._compare(number, before, now)
        self._looks[number] = now
        return True

    def _is_doubtful(self, number: int, before: SocketState | None, now: SocketState) -> bool:
        """A timer whose handler is running at this moment is not armed, and looks "off"; a
        probe that was sent just now is unanswered, on a healthy connection too.

        Two looks in a row cannot both fall into that moment.
        """
        vanished = now.timer == "off" and before is not None and before.timer != "off"
        probed = before is not None and now.unanswered > before.unanswered
        if (vanished or probed) and number not in self._doubtful:
            self._doubtful.add(number)
            return True
        self._doubtful.discard(number)
        return False

    def _gone(self, number: int, before: SocketState | None) -> None:
        if before is None:
            reason = "the client's socket is not in this network namespace, or gone already"
            self._proxy.events.add("witness_unavailable", connection=number, error=reason)
            return
        if before.state == "established" or not before.inode:
            kind = "client_gone"
        else:  # no kernel takes a socket from CLOSE_WAIT but for its application
            kind = "client_closed"
        self._proxy.events.add(
            kind,
            connection=number,
            state=before.state,
            timer=before.timer,
            unanswered=before.unanswered,
            unacknowledged=before.unacknowledged,
            overdue=time.monotonic() - self._due[number],
        )

    def _compare(self, number: int, before: SocketState | None, now: SocketState) -> None:
        changed = before is None or (before.timer, before.state) != (now.timer, now.state)
        answered = before is not None and now.unanswered > before.unanswered
        closed = not now.inode and (before is None or bool(before.inode))
        if changed or answered:
            self._tell("client_socket" if changed else "client_unanswered", number, now)
        if closed:
            self._tell("client_closed", number, now)

    def _tell(self, kind: str, number: int, now: SocketState) -> None:
        self._proxy.events.add(
            kind,
            connection=number,
            state=now.state,
            timer=now.timer,
            expires=now.expires,
            unanswered=now.unanswered,
            unacknowledged=now.unacknowledged,
        )
