"""The faults of the table as methods, for whatever can have a fault.

Owns the methods' names, parameters and documentation: :class:`ConnectionFaults` for what
can happen to a connection, :class:`LinkFaults` with what can happen to a listener besides.
How a fault gets to the engine is its owner's.
"""

from __future__ import annotations

from collections.abc import Mapping

from pytest_tcpresilience.fault import Fault, seconds
from pytest_tcpresilience.faults import EVICTIONS, SIDES, choose


class ConnectionFaults:
    """Faults of one connection, or of all connections of a link.

    On a link each acts on the connections that exist, and on new ones where the table of
    faults says so. On one connection, its neighbours, new connections and the listener go
    on as if nothing had happened.
    """

    def _start(
        self,
        name: str,
        *,
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
        timeout_ms: int | None = None,
        words: Mapping[str, str] | None = None,
    ) -> Fault:
        """Have the engine begin a fault, as :meth:`.FaultRegister.start` does."""
        raise NotImplementedError

    def silent_drop(
        self,
        *,
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> Fault:
        """No segment in either direction, seen by client and server; nothing is sent.

        New connections stay unanswered. :meth:`Fault.lift` heals it with nothing lost.

        :param when_idle: act once no byte has crossed for so many seconds.
        :param after: act in so many seconds.
        :param after_bytes: act once so many bytes have crossed from now on, in both
            directions together, and let none pass that comes after them. At most one of
            the three.
        """
        return self._start("silent_drop", when_idle=when_idle, after=after, after_bytes=after_bytes)

    def evict(
        self,
        then: str = "reset",
        *,
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> Fault:
        """What a middlebox does that forgets a flow. New connections pass.

        :param then: what becomes of the flow. ``"reset"``: nothing, until the next segment
            of either side is answered with RST; it cannot be lifted. ``"drop"``: silence,
            as after :meth:`silent_drop`, and it can be lifted. ``"reset_both"``: RST to
            both sides at once. ``"fin"``: FIN to both sides at once.
        :param when_idle: as for :meth:`silent_drop`, as are ``after`` and ``after_bytes``.
        :raises UsageError: for another ``then``.
        """
        name = EVICTIONS[choose("then", then, EVICTIONS)]
        return self._start(name, when_idle=when_idle, after=after, after_bytes=after_bytes)

    def stall(
        self,
        *,
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> Fault:
        """Both peers look alive to each other's kernel, and no byte moves.

        :param when_idle: as for :meth:`silent_drop`, as are ``after`` and ``after_bytes``.
        """
        return self._start("stall", when_idle=when_idle, after=after, after_bytes=after_bytes)

    def time_out(
        self, after: float, *, when_idle: float | None = None, after_bytes: int | None = None
    ) -> Fault:
        """Stall at once, then FIN to both sides.

        :param after: seconds of stall before the FIN. This is not a schedule.
        :param when_idle: begin once no byte has crossed for so many seconds.
        :param after_bytes: begin once so many have crossed, as for :meth:`silent_drop`.
        """
        # None, which is "not given" for a schedule, is no length of a stall.
        milliseconds = seconds("after", 0 if after is None else after)
        return self._start(
            "time_out", when_idle=when_idle, after_bytes=after_bytes, timeout_ms=milliseconds
        )

    def reset(
        self,
        *,
        side: str = "both",
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> Fault:
        """RST to client and server. It acts once, on the connections of that moment.

        :param side: who is told: ``"both"``, ``"client"`` or ``"server"``. The other one's
            side of the connection stays open, and nothing more arrives on it.
        :param when_idle: as for :meth:`silent_drop`, as are ``after`` and ``after_bytes``.
        """
        words = {"side": choose("side", side, SIDES)}
        return self._start(
            "reset", when_idle=when_idle, after=after, after_bytes=after_bytes, words=words
        )

    def hang_up(
        self,
        *,
        side: str = "both",
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> Fault:
        """FIN to client and server, as an orderly close. It acts once.

        :param side: as for :meth:`reset`.
        :param when_idle: as for :meth:`silent_drop`, as are ``after`` and ``after_bytes``.
        """
        words = {"side": choose("side", side, SIDES)}
        return self._start(
            "hang_up", when_idle=when_idle, after=after, after_bytes=after_bytes, words=words
        )


class LinkFaults(ConnectionFaults):
    """Faults of a link: those of its connections, and those of its listener."""

    def refuse_connections(
        self,
        *,
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> Fault:
        """New connections get ECONNREFUSED; those that exist go on.

        The port stays the link's. The fault has hit once it is in force, also when nobody
        is connected, so ``detects_break`` may be around the call that connects.

        :param when_idle: as for :meth:`silent_drop`, as are ``after`` and ``after_bytes``.
        """
        return self._start(
            "refuse_connections", when_idle=when_idle, after=after, after_bytes=after_bytes
        )

    def ignore_connections(
        self,
        *,
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> Fault:
        """Nobody answers those who connect; connections that exist go on.

        It hits as :meth:`refuse_connections` does. Once it is lifted, a client that is
        still waiting gets through with its next SYN.

        :param when_idle: as for :meth:`silent_drop`, as are ``after`` and ``after_bytes``.
        """
        return self._start(
            "ignore_connections", when_idle=when_idle, after=after, after_bytes=after_bytes
        )
