"""What a test holds: a link, its faults, and what was seen on it.

Owns the public object :class:`Link`. How a fault is carried out is the engine's; whether the
client noticed is :mod:`pytest_tcpresilience.expectations`'.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_tcpresilience.connection import Connection
from pytest_tcpresilience.control import POLL_S, Carrier
from pytest_tcpresilience.errors import EngineDied, HarnessError, ResilienceError, UsageError
from pytest_tcpresilience.evidence.readings import KeepaliveReading
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.fault import Fault, seconds
from pytest_tcpresilience.fault_methods import LinkFaults
from pytest_tcpresilience.kernel.threads import ThreadGroup
from pytest_tcpresilience.reading import Wanted, read_clients
from pytest_tcpresilience.records.journal import Journal
from pytest_tcpresilience.register import FaultRegister
from pytest_tcpresilience.settings import Settings
from pytest_tcpresilience.stream_toxics import StreamToxic, StreamToxics
from pytest_tcpresilience.tcp.addresses import join_address
from pytest_tcpresilience.upstream import Upstream
from pytest_tcpresilience.waiting import What, wait_for_connection, wait_for_event

if TYPE_CHECKING:
    from pytest_tcpresilience.tcp.keepalive import Keepalive
    from pytest_tcpresilience.tcp.middleboxes import Middlebox

# The port is known to the test and to its client, so nobody else may get it.
_DISABLED = {"enabled": False, "keep_port": True}


class UpstreamUnreachableWarning(UserWarning):
    """The engine could not connect to a link's upstream; its client was reset."""


class Link(LinkFaults[Fault], StreamToxics):
    """An address for the client to connect to, proxied to one upstream.

    Made by the ``tcp_link`` fixture; ended with its test.
    """

    def __init__(
        self,
        engine: Carrier,
        name: str,
        upstream: Upstream,
        settings: Settings,
        host: str,
        *,
        enabled: bool = True,
        advertised: str = "",
        client: str = "",
        journal: Journal | None = None,
    ) -> None:
        self.name = name
        self.client = client
        self.journal = Journal() if journal is None else journal
        # By connection: the settings of its client's socket, as it was when a fault hit.
        self.clients: dict[int, Keepalive | None] = {}
        self.upstream = upstream
        self.settings = settings
        self.judged = 0
        self.ended = False
        # Whose threads the client's are; None where all of this process's may be.
        self.threads: ThreadGroup | None = None
        self._engine = engine
        self.register = FaultRegister(self)
        self._created = 0
        self._enabled = enabled
        body = {"name": name, "listen": join_address(host, 0), "upstream": upstream.address}
        answer = engine.call("POST", "/proxies", {**body, **({} if enabled else _DISABLED)})
        address = urlsplit(f"//{answer['listen']}")
        assert address.hostname is not None
        assert address.port is not None
        self._host, self._port = address.hostname, address.port
        self._listening = engine.links[name] = (self._host, self._port)
        # Where clients that are not on this machine reach it.
        self._host = advertised or self._host

    # --- where to connect ----------------------------------------------------------------

    @property
    def host(self) -> str:
        """The host to connect to: where the link listens, or what ``link_host`` says."""
        return self._host

    @property
    def port(self) -> int:
        """The port to connect to."""
        return self._port

    @property
    def address(self) -> str:
        """``host:port``; an IPv6 host is in brackets."""
        return join_address(self._host, self._port)

    @property
    def url(self) -> str:
        """The upstream's URL with the link's address in it.

        An upstream that was given without a URL has ``tcp://host:port``.
        """
        parts = self.upstream.parts
        if parts is None:
            return f"tcp://{self.address}"
        credentials, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{credentials}{at}{self.address}").geturl()

    def _start(self, name: str, **arguments: Any) -> Fault:
        return self.register.start(name, **arguments)

    def _put_behind(self, middlebox: Middlebox) -> Fault:
        attributes: dict[str, int | str] = {
            "idle_timeout": seconds("idle_timeout", middlebox.idle_timeout),
            "then": middlebox.then,
            "counts": "bytes" if middlebox.proxy else "segments",
        }
        return self.register.begin("middlebox", attributes)

    def add_toxic(self, type_: str, body: Mapping[str, object]) -> StreamToxic:
        """For the methods of :class:`.StreamToxics`, which any number of may be in force."""
        return StreamToxic(self, type_, self.post_toxic(type_, body))

    def post_toxic(self, type_: str, body: Mapping[str, object]) -> str:
        """Have the engine make a toxic; its name."""
        self._created += 1
        name = f"{type_}-{self._created}"
        self.call("POST", "/toxics", {"name": name, "type": type_, **body})
        return name

    # --- what was seen -------------------------------------------------------------------

    @property
    def events(self) -> tuple[Event, ...]:
        """All that has happened on the link so far, by time."""
        return self.events_after(0)

    def events_after(self, seq: int, *, wait_s: float = 0.0) -> tuple[Event, ...]:
        """Events with a number above ``seq``, waiting up to ``wait_s`` for the first."""
        wait_s = min(wait_s, POLL_S)
        found = self._engine.call(
            "GET", self._ours(f"/events?after={seq}&wait={wait_s:.3f}"), patience_s=wait_s
        )
        return tuple(Event.from_json(document) for document in found)

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The connections that clients have open through the link, oldest first."""
        return tuple(each for each in self._listed() if each.ending is None)

    @property
    def closed_connections(self) -> tuple[Connection, ...]:
        """Those that were closed, the last 1000 of them, in the order of their closing."""
        closed = [each for each in self._listed("?closed=1") if each.ending is not None]
        return tuple(sorted(closed, key=lambda each: each.ending.at if each.ending else 0.0))

    def connection(self, number: int) -> Connection:
        """One connection, open or closed, by its number.

        :raises UsageError: when there is none.
        """
        found = self._listed("?closed=1")
        for each in found:
            if each.number == number:
                return each
        known = ", ".join(str(each.number) for each in found) or "none"
        raise UsageError(
            f"{self.name} has no connection {number!r}",
            expected="the number of a connection that was opened; the last 1000 of those that "
            "were closed are kept",
            happened=f"known: {known}",
            advice="take it from link.connections or link.closed_connections",
        )

    def is_open(self, number: int) -> bool:
        """Whether the connection of this number is open."""
        return any(each.number == number for each in self.connections)

    def _listed(self, query: str = "") -> list[Connection]:
        found = self._engine.call("GET", self._ours(f"/connections{query}"))
        return [Connection.from_json(self, document) for document in found]

    def wait_for_connection(self, n: int = 1, timeout: float | None = None) -> Connection:
        """Block until ``n`` connections are open at the same time; the n-th oldest of them.

        A client's connect call returns before the engine has taken the connection, so a
        fault for it may come too early without this.

        :param timeout: seconds; the setting ``hit_timeout`` if not given.
        :raises UsageError: when there are not so many in time.
        """
        return wait_for_connection(self, n, timeout)

    def wait_for(
        self, what: What, timeout: float | None = None, *, since: Event | None = None
    ) -> Event:
        """Block until something has happened on the link; what has happened already counts.

        :param what: a kind of event, such as ``"closed"``, or a function that takes an
            :class:`Event` and says whether it is the one.
        :param timeout: seconds; the setting ``hit_timeout`` if not given.
        :param since: only what has happened after this event.
        :raises UsageError: when it does not happen in time, or for an unknown kind.
        """
        return wait_for_event(self, what, timeout, since=since)

    def keepalives(self) -> tuple[KeepaliveReading, ...]:
        """What is set on the client's socket of each open connection, oldest first.

        :func:`pytest_tcpresilience.keepalive_of` has the details.
        """
        server = self._host, self._port
        accepted = [Wanted(each.number, each.client, server) for each in self.connections]
        return read_clients(server, accepted)

    def settings_now(self) -> dict[int, Keepalive]:
        """By connection, the settings of its client's socket, where they can be read."""
        readings = self.keepalives()
        return {each.connection: each.settings for each in readings if each.complete}

    def describe_connections(self) -> str:
        """How many connections are open, and how long each has been idle."""
        now = time.monotonic()
        rows = [f"idle for {now - each.last_byte_at:.2f} s" for each in self.connections]
        return f"{len(rows)} connection(s) open" + (f": {', '.join(rows)}" if rows else "")

    # --- for expectations ----------------------------------------------------------------

    def in_flight(self) -> list[tuple[int, tuple[str, int], int, int]]:
        """Of each open connection: its number, its client, and the bytes that one side has
        sent and the other's kernel has not acknowledged, to the server and to the client."""
        found: list[dict[str, Any]] = self._engine.call("GET", self._ours("/connections"))
        return [
            (
                document["connection"],
                (document["client"][0], document["client"][1]),
                document["pending_upstream"],
                document["pending_downstream"],
            )
            for document in found
            if document["closed"] is None
        ]

    @property
    def listening(self) -> tuple[str, int]:
        """The address to which clients' sockets are connected, whatever they call it."""
        return self._listening

    @property
    def upstream_address(self) -> str:
        """``host:port`` of the real server."""
        return self.upstream.address

    @property
    def engine_name(self) -> str:
        """Who carries the link: ``"embedded"``, or ``"toxiproxy 2.12.0"``."""
        return self._engine.name

    @property
    def engine_pid(self) -> int:
        """The engine's process, which is none of the client's."""
        return self._engine.pid

    @property
    def engine_address(self) -> tuple[str, int]:
        """Where the engine's API listens, to which this process has connections."""
        return "127.0.0.1", self._engine.port

    @property
    def engine_alive(self) -> bool:
        return self._engine.alive

    def engine_death(self) -> EngineDied:
        return self._engine.death()

    @staticmethod
    def now() -> float:
        """The clock of all times on this link: CLOCK_MONOTONIC, seconds."""
        return time.monotonic()

    def last_seq(self) -> int:
        """The number of the last event so far."""
        events = self.events
        return events[-1].seq if events else 0

    def start_watch(
        self, *, after_hit: float, grace: float, unhit: float, clock: str = "hit"
    ) -> int:
        """Have the engine follow the clients' sockets, and rescue them when it is time.

        :param clock: what ``after_hit`` counts from: the first ``"hit"``, the latest fault
            that hit or was lifted (``"calm"``), or this call (``"begin"``).
        :returns: the number of the last event before.
        """
        self.check_usable()
        body = {
            "after_hit": after_hit,
            "grace": grace,
            "unhit": unhit,
            "since": self.judged,
            "clock": clock,
        }
        return int(self._engine.call("POST", self._ours("/watch"), body)["begun"])

    def end_watch(self) -> None:
        self._engine.call("DELETE", self._ours("/watch"))

    # --- open and closed -----------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        """Whether the link takes connections, as far as the test has told it to."""
        return self._enabled

    def enable(self) -> None:
        """Take connections, from now on. Does nothing when it does already.

        Faults and toxics that were begun meanwhile are in force before the first client
        can connect; schedules begin now.

        :raises UsageError: when the port cannot be bound any more.
        """
        self.call("PATCH", "", {"enabled": True})
        self._enabled = True

    def disable(self) -> None:
        """End all connections and refuse new ones. The port stays the link's."""
        self.call("PATCH", "", _DISABLED)
        self._enabled = False

    # --- life ----------------------------------------------------------------------------

    def _ours(self, path: str) -> str:
        self.check_usable()
        return f"/resilience/proxies/{self.name}{path}"

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """A call of Toxiproxy's API on this link's proxy."""
        self.check_usable()
        return self._engine.call(method, f"/proxies/{self.name}{path}", body)

    def check_usable(self) -> None:
        """:raises UsageError: when the link has ended."""
        if self.ended:
            raise UsageError(
                f"{self.name} has ended",
                expected="a link of the running test",
                happened="it ended with the test that made it",
                advice="make a link in each test; tcp_link is cheap",
            )

    def close(self, *, test_failed: bool = False) -> None:
        """End the link: its listener, its connections, its faults.

        :param test_failed: whether the test has failed already, so that a fault that
            never hit is no news.
        :raises UsageError: for a scheduled fault that never hit.
        :raises EngineDied: when the engine is gone and nobody has said so yet.
        """
        if self.ended:
            return
        # Asked before the calls below, which report a death themselves.
        reported = self._engine.death_is_reported
        try:
            events = self.events if self.register or not test_failed else ()
            self.call("DELETE", "")
        except ResilienceError:
            if not reported or self._engine.alive:
                raise
            return
        finally:
            self.ended = True
            self._engine.links.pop(self.name, None)
        self._report(events, test_failed)

    def _report(self, events: tuple[Event, ...], test_failed: bool) -> None:
        failures = sorted({e["error"] for e in events if e.kind == "upstream_failed"})
        if failures:
            warnings.warn(
                f"{self.name}: the upstream {self.upstream.address} failed: "
                f"{', '.join(failures)}; each client that connected was reset",
                UpstreamUnreachableWarning,
                stacklevel=2,
            )
        mistakes = [e["error"] for e in events if e.kind == "internal_error"]
        if mistakes:
            raise HarnessError(
                "the engine made a mistake",
                expected="a connection carried to its end",
                happened="; ".join(mistakes),
                advice="please report it, with the engine's last words",
            )
        if not test_failed:
            self.register.check_all_hit(events)

    def __repr__(self) -> str:
        return f"<Link {self.address} to {self.upstream.address}>"
