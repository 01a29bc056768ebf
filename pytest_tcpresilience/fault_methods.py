"""The faults of the table as methods, for whatever can have a fault.

Owns the methods' names, parameters and documentation: :class:`ConnectionFaults` for what
can happen to a connection, :class:`LinkFaults` with what can happen to a listener besides.
How a fault is begun is its owner's, and so is the type of what a method returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.fault import seconds
from pytest_tcpresilience.faults import DIRECTIONS, EVICTIONS, READERS, SIDES, choose

if TYPE_CHECKING:
    from pytest_tcpresilience.tcp.middleboxes import Middlebox


# What a method returns: the handle of a fault, on a real link or on one in virtual time.
Begun = TypeVar("Begun")


class ConnectionFaults(Generic[Begun]):
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
    ) -> Begun:
        """Begin a fault of the table, as :meth:`.FaultRegister.start` does."""
        raise NotImplementedError

    def silent_drop(
        self,
        *,
        direction: str = "both",
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> Begun:
        """No segment in either direction, seen by client and server; nothing is sent.

        New connections stay unanswered. :meth:`Fault.lift` heals it with nothing lost.

        :param direction: which way is lost. ``"both"``; ``"to_server"``: what the client
            sends vanishes, acknowledgements included, and what the server sends arrives;
            ``"to_client"``: the server gets the client's requests and executes them, and
            what it sends vanishes.
        :param when_idle: act once no byte has crossed for so many seconds.
        :param after: act in so many seconds.
        :param after_bytes: act once so many bytes have crossed from now on, in both
            directions together, and let none pass that comes after them. At most one of
            the three.
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
    ) -> Begun:
        """What a middlebox does that forgets a flow. New connections pass.

        :param then: what becomes of the flow. ``"reset"``: nothing, until the next segment
            of either side is answered with RST; it cannot be lifted. ``"drop"``: silence,
            as after :meth:`silent_drop`, and it can be lifted. ``"drop_inbound"``: what
            the client sends arrives and is executed, the answers vanish; it can be lifted.
            (Google Cloud's firewall lets answers in again once the client has sent
            something; here they vanish until then.) ``"reset_both"``: RST to both sides at
            once. ``"fin"``: FIN to both sides at once.
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
    ) -> Begun:
        """Both peers look alive to each other's kernel, and no byte moves.

        :param when_idle: as for :meth:`silent_drop`, as are ``after`` and ``after_bytes``.
        """
        return self._start("stall", when_idle=when_idle, after=after, after_bytes=after_bytes)

    def time_out(
        self, after: float, *, when_idle: float | None = None, after_bytes: int | None = None
    ) -> Begun:
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

    def stop_reading(
        self,
        *,
        side: str = "client",
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> Begun:
        """A consumer that does not read: the window closes once its buffer is full.

        The kernel's buffers take some data first: the receiver's 128 KiB, more on a
        connection that has been busy, and whatever the sender's own takes.

        :param side: who finds the window closed: ``"client"``, because the server does not
            read; ``"server"``, because the client does not; or ``"both"``.
        :param when_idle: as for :meth:`silent_drop`, as are ``after`` and ``after_bytes``.
        """
        words = {"side": choose("side", side, READERS)}
        return self._start(
            "stop_reading", when_idle=when_idle, after=after, after_bytes=after_bytes, words=words
        )

    def lose_close(
        self,
        *,
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> Begun:
        """When a client closes, with FIN or RST, its server is not told.

        To the client's kernel its close is an ordinary one. The server keeps a half-open
        connection, on which nobody answers. A client that shuts its sending down
        (half-close) counts as one that closes.

        The fault hits when a client has closed. Lifted, it lets later closes through; what
        is lost stays so, and the next segment of such a server is answered with RST.

        :param when_idle: as for :meth:`silent_drop`, as are ``after`` and ``after_bytes``:
            closes are lost from then on.
        """
        return self._start("lose_close", when_idle=when_idle, after=after, after_bytes=after_bytes)

    def reset(
        self,
        *,
        side: str = "both",
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> Begun:
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
    ) -> Begun:
        """FIN to client and server, as an orderly close. It acts once.

        :param side: as for :meth:`reset`.
        :param when_idle: as for :meth:`silent_drop`, as are ``after`` and ``after_bytes``.
        """
        words = {"side": choose("side", side, SIDES)}
        return self._start(
            "hang_up", when_idle=when_idle, after=after, after_bytes=after_bytes, words=words
        )


class LinkFaults(ConnectionFaults[Begun]):
    """Faults of a link: those of its connections, of its listener, and of its path."""

    def _put_behind(self, middlebox: Middlebox) -> Begun:
        """Have it carried out."""
        raise NotImplementedError

    def put_behind(self, middlebox: Middlebox) -> Begun:
        """Put the link behind a box that forgets each idle flow by itself.

        What counts are segments, so keepalive probes keep a flow alive; for a box that is a
        proxy, bytes. A flow is forgotten when its own time has come, at most a twentieth
        too late, and each is one hit. New connections pass. Lifted, the box is away: what
        it had dropped arrives.

        ``tcp_link(upstream, middlebox=…)`` does the same from the beginning.

        :raises UsageError: for what is no :class:`Middlebox`, and where there is one already.
        """
        from pytest_tcpresilience.tcp.middleboxes import Middlebox

        if not isinstance(middlebox, Middlebox):
            raise UsageError(
                f"put_behind({middlebox!r}) needs a Middlebox",
                expected='for example Middlebox(idle_timeout=2.0, then="reset")',
                happened=f"got a {type(middlebox).__name__}",
                advice="say how long the box remembers, and what it does to what it forgot",
            )
        return self._put_behind(middlebox)

    def refuse_connections(
        self,
        *,
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
    ) -> Begun:
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
    ) -> Begun:
        """Nobody answers those who connect; connections that exist go on.

        It hits as :meth:`refuse_connections` does. Once it is lifted, a client that is
        still waiting gets through with its next SYN.

        :param when_idle: as for :meth:`silent_drop`, as are ``after`` and ``after_bytes``.
        """
        return self._start(
            "ignore_connections", when_idle=when_idle, after=after, after_bytes=after_bytes
        )
