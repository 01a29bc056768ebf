"""A connection through a link, as a test sees it.

Owns :class:`Connection`: a snapshot of what is known of one connection, with which it can
be watched and struck. What becomes of it is the engine's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.fault import Fault
from pytest_tcpresilience.fault_methods import ConnectionFaults
from pytest_tcpresilience.stream_toxics import StreamToxic, StreamToxics
from pytest_tcpresilience.waiting import What, wait_closed, wait_for_event

if TYPE_CHECKING:
    from pytest_tcpresilience.link import Link


@dataclass(frozen=True)
class Ending:
    """How a connection was closed: by whatever ended it for the client first.

    :param at: CLOCK_MONOTONIC, seconds.
    :param by: ``"client"``, ``"upstream"``, ``"fault"`` or ``"engine"``.
    :param how: ``"fin"``, ``"reset"``, or ``"timeout"`` when the engine's kernel got no
        answer from the client or the upstream any more.
    :param reason: the fault or toxic, or what the engine had in mind; else empty.
    :param errno: of the socket that broke, as ``"ECONNRESET"``; else empty.
    """

    at: float
    by: str
    how: str
    reason: str = ""
    errno: str = ""


@dataclass(frozen=True)
class StruckFault:
    """A fault that has taken hold of a connection. Times are CLOCK_MONOTONIC seconds.

    :param name: as in the table of faults.
    :param armed_at: when it was begun.
    :param hit_at: when it took hold.
    :param lifted_at: ``None`` while it has not been lifted.
    """

    name: str
    armed_at: float
    hit_at: float
    lifted_at: float | None


@dataclass(frozen=True)
class Connection(ConnectionFaults[Fault], StreamToxics):
    """A connection that a client has or had through a link, as it was when asked for.

    The faults and toxics that are its methods act on it alone: its neighbours, new
    connections and the listener go on.

    Times are CLOCK_MONOTONIC, seconds (``time.monotonic()``), and ``None`` for what has
    not happened.

    :param number: counts up from 1 within the link.
    :param client: the client's address and port.
    :param opened_at: when the engine took the client.
    :param connected_at: when the upstream took the engine.
    :param first_byte_to_server_at: when the client's first byte came.
    :param first_byte_to_client_at: likewise, the upstream's.
    :param last_byte_at: the last byte in either direction, or the opening: it has been idle
        since.
    :param bytes_to_server: bytes read from the client.
    :param bytes_to_client: bytes read from the upstream.
    :param probes: keepalive probes of the client that its peer, the engine's kernel, has
        answered. The engine looks four times a second, at 64 connections of a link.
    :param faults: those that have taken hold of it.
    :param ending: how it was closed; ``None`` while it is open.
    """

    number: int
    client: tuple[str, int]
    opened_at: float
    connected_at: float | None
    first_byte_to_server_at: float | None
    first_byte_to_client_at: float | None
    last_byte_at: float
    bytes_to_server: int
    bytes_to_client: int
    probes: int
    faults: tuple[StruckFault, ...]
    ending: Ending | None
    link: Link = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, link: Link, document: Mapping[str, Any]) -> Connection:
        closed = document["closed"]
        return cls(
            number=document["connection"],
            client=(document["client"][0], document["client"][1]),
            opened_at=document["opened_at"],
            connected_at=document["connected_at"],
            first_byte_to_server_at=document["first_byte_upstream_at"],
            first_byte_to_client_at=document["first_byte_downstream_at"],
            last_byte_at=document["last_byte_at"],
            bytes_to_server=document["bytes_upstream"],
            bytes_to_client=document["bytes_downstream"],
            probes=document["probes"],
            faults=tuple(
                StruckFault(each["type"], each["armed_at"], each["hit_at"], each["lifted_at"])
                for each in document["faults"]
            ),
            ending=None if closed is None else Ending(**closed),
            link=link,
        )

    @property
    def events(self) -> tuple[Event, ...]:
        """What has happened on it so far, by time."""
        return tuple(e for e in self.link.events if e.get("connection") == self.number)

    def now(self) -> Connection:
        """A new snapshot of the same connection.

        :raises UsageError: when it was closed so long ago that the engine has forgotten it.
        """
        return self.link.connection(self.number)

    def wait_closed(self, timeout: float | None = None) -> Connection:
        """Block until it is closed; the snapshot that is returned has its ``ending``.

        :param timeout: seconds; the setting ``hit_timeout`` if not given.
        :raises UsageError: when it is open for longer.
        """
        return wait_closed(self, timeout)

    def wait_for(
        self, what: What, timeout: float | None = None, *, since: Event | None = None
    ) -> Event:
        """As :meth:`.Link.wait_for`, for the events of this connection."""
        return wait_for_event(self.link, what, timeout, since=since, connection=self.number)

    def add_toxic(self, type_: str, body: Mapping[str, object]) -> StreamToxic:
        """For the methods of :class:`.StreamToxics`."""
        given = body.get("attributes")
        attributes = dict(given) if isinstance(given, Mapping) else {}
        attributes["connection"] = self.number
        return self.link.add_toxic(type_, {**body, "attributes": attributes})

    def _start(self, name: str, **arguments: Any) -> Fault:
        return self.link.register.start(name, connection=self.number, **arguments)
