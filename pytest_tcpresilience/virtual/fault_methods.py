"""The faults of the table as methods, for a virtual link and for one connection of it.

Owns their names and parameters, which are those of real links. What they do is
:mod:`.strikes`'.
"""

from __future__ import annotations

from collections.abc import Mapping

from pytest_tcpresilience.fault import seconds
from pytest_tcpresilience.faults import EVICTIONS, SIDES, choose
from pytest_tcpresilience.virtual.fault import VirtualFault

DIRECTIONS = ("both", "to_server", "to_client")
READERS = ("client", "server", "both")


class ConnectionFaults:
    """Faults of one connection, or of all connections of a link.

    Each takes at most one schedule. ``when_idle``: act once no byte has crossed for so many
    seconds. ``after``: act in so many seconds. ``after_bytes``: act with the segment that
    completes so many bytes from now on, in both directions together.
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
    ) -> VirtualFault:
        raise NotImplementedError

    def silent_drop(
        self,
        *,
        direction: str = "both",
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> VirtualFault:
        """No segment in either direction, or in one; nothing is sent in its place.

        On a link new connections stay unanswered. :meth:`VirtualFault.lift` heals it with
        nothing lost.

        :param direction: which way is lost: ``"both"``, ``"to_server"``, ``"to_client"``.
        """
        words = {"direction": choose("direction", direction, DIRECTIONS)}
        return self._start(
            "silent_drop", when_idle=when_idle, after=after, after_bytes=after_bytes, words=words
        )

    def evict(
        self,
        then: str = "reset",
        *,
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> VirtualFault:
        """What a middlebox does that forgets a flow. New connections pass.

        :param then: what becomes of the flow, as for a real link.
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
    ) -> VirtualFault:
        """Both peers look alive to each other's kernel, and no byte is seen by the other."""
        return self._start("stall", when_idle=when_idle, after=after, after_bytes=after_bytes)

    def time_out(
        self, after: float, *, when_idle: float | None = None, after_bytes: int | None = None
    ) -> VirtualFault:
        """Stall at once, then FIN to both sides.

        :param after: seconds of stall before the FIN. This is not a schedule.
        """
        stall_ms = seconds("after", 0 if after is None else after)
        return self._start(
            "time_out", when_idle=when_idle, after_bytes=after_bytes, timeout_ms=stall_ms
        )

    def stop_reading(
        self,
        *,
        side: str = "client",
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> VirtualFault:
        """A consumer that does not read: the window closes once its buffer is full.

        :param side: who finds the window closed: ``"client"``, because the server does not
            read; ``"server"``; or ``"both"``.
        """
        words = {"side": choose("side", side, READERS)}
        return self._start(
            "stop_reading", when_idle=when_idle, after=after, after_bytes=after_bytes, words=words
        )

    def reset(
        self,
        *,
        side: str = "both",
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> VirtualFault:
        """RST to client and server. It acts once, on the connections of that moment.

        :param side: who is told: ``"both"``, ``"client"`` or ``"server"``. The other one's
            side stays open, and nothing more arrives on it.
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
    ) -> VirtualFault:
        """FIN to client and server, as an orderly close. It acts once.

        :param side: as for :meth:`reset`.
        """
        words = {"side": choose("side", side, SIDES)}
        return self._start(
            "hang_up", when_idle=when_idle, after=after, after_bytes=after_bytes, words=words
        )

    def lose_close(
        self,
        *,
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> VirtualFault:
        """When a client closes, with FIN or RST, its server is not told."""
        return self._start("lose_close", when_idle=when_idle, after=after, after_bytes=after_bytes)


class LinkFaults(ConnectionFaults):
    """Faults of a link: those of its connections, and those of its listener."""

    def refuse_connections(
        self,
        *,
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> VirtualFault:
        """New connections get ECONNREFUSED; those that exist go on."""
        return self._start(
            "refuse_connections", when_idle=when_idle, after=after, after_bytes=after_bytes
        )

    def ignore_connections(
        self,
        *,
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> VirtualFault:
        """Nobody answers those who connect; connections that exist go on."""
        return self._start(
            "ignore_connections", when_idle=when_idle, after=after, after_bytes=after_bytes
        )
