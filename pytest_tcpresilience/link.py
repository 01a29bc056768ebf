"""What a test holds: a link, its faults, and what was seen on it.

Owns the public objects :class:`Link` and :class:`Connection`. How a fault is carried out
is the engine's; whether the client noticed is
:mod:`pytest_tcpresilience.expectations`'.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pytest_tcpresilience.control import POLL_S, Engine
from pytest_tcpresilience.errors import EngineDied, HarnessError, ResilienceError, UsageError
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.fault import Fault, seconds
from pytest_tcpresilience.faults import EVICTIONS, FAULTS, SIDES, check_compatible, choose
from pytest_tcpresilience.settings import Settings
from pytest_tcpresilience.stream_toxics import StreamToxic, StreamToxics
from pytest_tcpresilience.tcp.addresses import join_address
from pytest_tcpresilience.upstream import Upstream


class UpstreamUnreachableWarning(UserWarning):
    """The engine could not connect to a link's upstream; its client was reset."""


@dataclass(frozen=True)
class Connection:
    """A connection that a client has open through a link, as it was when asked for.

    :param number: counts up from 1 within the link.
    :param client: the client's address and port.
    :param opened_at: CLOCK_MONOTONIC, seconds (``time.monotonic()``).
    :param last_byte_at: likewise, of the last byte in either direction.
    :param bytes_to_server: bytes read from the client.
    :param bytes_to_client: bytes read from the upstream.
    """

    number: int
    client: tuple[str, int]
    opened_at: float
    last_byte_at: float
    bytes_to_server: int
    bytes_to_client: int


class Link(StreamToxics):
    """An address for the client to connect to, proxied to one upstream.

    Made by the ``tcp_link`` fixture; ended with its test.
    """

    def __init__(
        self, engine: Engine, name: str, upstream: Upstream, settings: Settings, host: str
    ) -> None:
        self.name = name
        self.upstream = upstream
        self.settings = settings
        self.judged = 0
        self.ended = False
        self._engine = engine
        self._faults: list[Fault] = []
        self._created = 0
        answer = engine.call(
            "POST",
            "/proxies",
            {"name": name, "listen": join_address(host, 0), "upstream": upstream.address},
        )
        address = urlsplit(f"//{answer['listen']}")
        assert address.hostname is not None
        assert address.port is not None
        self._host, self._port = address.hostname, address.port
        engine.links[name] = (self._host, self._port)

    # --- where to connect ----------------------------------------------------------------

    @property
    def host(self) -> str:
        """The address on which the link listens."""
        return self._host

    @property
    def port(self) -> int:
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

    # --- faults --------------------------------------------------------------------------

    def silent_drop(self, *, when_idle: float | None = None, after: float | None = None) -> Fault:
        """No segment in either direction, seen by client and server; nothing is sent.

        New connections stay unanswered. :meth:`Fault.lift` heals it with nothing lost.

        :param when_idle: act once no byte has crossed the link for so many seconds.
        :param after: act in so many seconds. At most one of the two.
        """
        return self._start("silent_drop", when_idle=when_idle, after=after)

    def evict(
        self, then: str = "reset", *, when_idle: float | None = None, after: float | None = None
    ) -> Fault:
        """What a middlebox does that forgets a flow. New connections pass.

        :param then: what becomes of the flow. ``"reset"``: nothing, until the next segment
            of either side is answered with RST; it cannot be lifted. ``"drop"``: silence,
            as after :meth:`silent_drop`, and it can be lifted. ``"reset_both"``: RST to
            both sides at once. ``"fin"``: FIN to both sides at once.
        :param when_idle: as for :meth:`silent_drop`. :param after: likewise.
        :raises UsageError: for another ``then``.
        """
        name = EVICTIONS[choose("then", then, EVICTIONS)]
        return self._start(name, when_idle=when_idle, after=after)

    def refuse_connections(
        self, *, when_idle: float | None = None, after: float | None = None
    ) -> Fault:
        """New connections get ECONNREFUSED; those that exist go on.

        The port stays the link's. The fault has hit once it is in force, also when nobody
        is connected, so ``detects_break`` may be around the call that connects.

        :param when_idle: as for :meth:`silent_drop`. :param after: likewise.
        """
        return self._start("refuse_connections", when_idle=when_idle, after=after)

    def ignore_connections(
        self, *, when_idle: float | None = None, after: float | None = None
    ) -> Fault:
        """Nobody answers those who connect; connections that exist go on.

        It hits as :meth:`refuse_connections` does. Once it is lifted, a client that is
        still waiting gets through with its next SYN.

        :param when_idle: as for :meth:`silent_drop`. :param after: likewise.
        """
        return self._start("ignore_connections", when_idle=when_idle, after=after)

    def stall(self, *, when_idle: float | None = None, after: float | None = None) -> Fault:
        """Both peers look alive to each other's kernel, and no byte moves.

        :param when_idle: as for :meth:`silent_drop`. :param after: likewise.
        """
        return self._start("stall", when_idle=when_idle, after=after)

    def time_out(self, after: float, *, when_idle: float | None = None) -> Fault:
        """Stall at once, then FIN to both sides.

        :param after: seconds of stall before the FIN. This is not a schedule.
        :param when_idle: begin once no byte has crossed the link for so many seconds.
        """
        # None, which is "not given" for a schedule, is no length of a stall.
        milliseconds = seconds("after", 0 if after is None else after)
        return self._start("time_out", when_idle=when_idle, timeout_ms=milliseconds)

    def reset(
        self, *, side: str = "both", when_idle: float | None = None, after: float | None = None
    ) -> Fault:
        """RST to client and server. It acts once, on the connections of that moment.

        :param side: who is told: ``"both"``, ``"client"`` or ``"server"``. The other one's
            side of the connection stays open, and nothing more arrives on it.
        :param when_idle: as for :meth:`silent_drop`. :param after: likewise.
        """
        words = {"side": choose("side", side, SIDES)}
        return self._start("reset", when_idle=when_idle, after=after, words=words)

    def hang_up(
        self, *, side: str = "both", when_idle: float | None = None, after: float | None = None
    ) -> Fault:
        """FIN to client and server, as an orderly close. It acts once.

        :param side: as for :meth:`reset`.
        :param when_idle: as for :meth:`silent_drop`. :param after: likewise.
        """
        words = {"side": choose("side", side, SIDES)}
        return self._start("hang_up", when_idle=when_idle, after=after, words=words)

    def _start(
        self,
        name: str,
        *,
        when_idle: float | None = None,
        after: float | None = None,
        timeout_ms: int | None = None,
        words: Mapping[str, str] | None = None,
    ) -> Fault:
        if when_idle is not None and after is not None:
            raise UsageError(
                f"{name}: when_idle= and after= together",
                expected="one schedule",
                happened=f"got when_idle={when_idle!r} and after={after!r}",
                advice="drop one of them",
            )
        attributes: dict[str, int | str] = {"when_idle": seconds("when_idle", when_idle)}
        attributes.update(words or {})
        if timeout_ms is None:
            attributes["after"] = seconds("after", after)
        else:
            attributes["timeout"] = timeout_ms
        self._check_usable()
        check_compatible(name, [fault.name for fault in self._faults if fault.active])
        toxic = self._post_toxic(name, {"attributes": attributes})
        scheduled = when_idle is not None or after is not None
        fault = Fault(self, FAULTS[name], toxic, scheduled)
        self._faults.append(fault)
        return fault

    def add_toxic(self, type_: str, body: Mapping[str, object]) -> StreamToxic:
        """For the methods of :class:`.StreamToxics`, which any number of may be in force."""
        return StreamToxic(self, type_, self._post_toxic(type_, body))

    def _post_toxic(self, type_: str, body: Mapping[str, object]) -> str:
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
        found: list[dict[str, Any]] = self._engine.call("GET", self._ours("/connections"))
        return tuple(
            Connection(
                number=document["connection"],
                client=(document["client"][0], document["client"][1]),
                opened_at=document["opened_at"],
                last_byte_at=document["last_byte_at"],
                bytes_to_server=document["bytes_upstream"],
                bytes_to_client=document["bytes_downstream"],
            )
            for document in found
            if document["closed"] is None
        )

    def describe_connections(self) -> str:
        """How many connections are open, and how long each has been idle."""
        now = time.monotonic()
        rows = [f"idle for {now - each.last_byte_at:.2f} s" for each in self.connections]
        return f"{len(rows)} connection(s) open" + (f": {', '.join(rows)}" if rows else "")

    # --- for expectations ----------------------------------------------------------------

    @property
    def engine_alive(self) -> bool:
        return self._engine.alive

    def engine_death(self) -> EngineDied:
        return self._engine.death()

    def last_seq(self) -> int:
        """The number of the last event so far."""
        events = self.events
        return events[-1].seq if events else 0

    def start_watch(self, *, after_hit: float, grace: float, unhit: float) -> int:
        """Have the engine follow the clients' sockets, and rescue them when it is time.

        :returns: the number of the last event before.
        """
        self._check_usable()
        body = {"after_hit": after_hit, "grace": grace, "unhit": unhit, "since": self.judged}
        return int(self._engine.call("POST", self._ours("/watch"), body)["begun"])

    def end_watch(self) -> None:
        self._engine.call("DELETE", self._ours("/watch"))

    # --- life ----------------------------------------------------------------------------

    def _ours(self, path: str) -> str:
        self._check_usable()
        return f"/resilience/proxies/{self.name}{path}"

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """A call of Toxiproxy's API on this link's proxy."""
        self._check_usable()
        return self._engine.call(method, f"/proxies/{self.name}{path}", body)

    def _check_usable(self) -> None:
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
            events = self.events if self._faults or not test_failed else ()
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
        hit = {event["toxic"] for event in events if event.kind == "fault_hit"}
        for fault in self._faults:
            if fault.never_hit(hit) and not test_failed:
                raise UsageError(
                    f"the scheduled {fault.name} never hit",
                    expected="a fault that acts before the test ends",
                    happened="the test ended first, or no connection was idle for long enough",
                    advice="wait for it with fault.wait_until_hit(), or lift it",
                )

    def __repr__(self) -> str:
        return f"<Link {self.address} to {self.upstream.address}>"
