"""What a test holds: a link, its faults, and what was seen on it.

Owns the public objects :class:`Link`, :class:`Fault` and :class:`Connection`, and the
reading of an upstream's address. How a fault is carried out is the engine's; whether
the client noticed is :mod:`pytest_tcpresilience.expectations`'.
"""

from __future__ import annotations

import ipaddress
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pytest_tcpresilience.control import POLL_S, Engine
from pytest_tcpresilience.errors import EngineDied, HarnessError, ResilienceError, UsageError
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.faults import FAULTS, FaultRow, check_compatible
from pytest_tcpresilience.settings import Settings

# Where a URL names no port. IANA's registrations, for what people put behind a link.
DEFAULT_PORTS = {
    "http": 80,
    "https": 443,
    "ws": 80,
    "wss": 443,
    "redis": 6379,
    "rediss": 6379,
    "postgres": 5432,
    "postgresql": 5432,
    "mysql": 3306,
    "amqp": 5672,
    "amqps": 5671,
    "mongodb": 27017,
    "nats": 4222,
    "mqtt": 1883,
}

UpstreamLike = str | tuple[str, int]


class UpstreamUnreachableWarning(UserWarning):
    """The engine could not connect to a link's upstream; its client was reset."""


@dataclass(frozen=True)
class Upstream:
    """Where a link leads.

    :param parts: of the URL that was given, if one was.
    """

    host: str
    port: int
    parts: SplitResult | None = None

    @property
    def address(self) -> str:
        return join_address(self.host, self.port)

    @classmethod
    def parse(cls, given: UpstreamLike) -> Upstream:
        """From ``"host:port"``, ``"[::1]:port"``, ``(host, port)`` or a URL.

        :raises UsageError: for anything else.
        """
        try:
            if isinstance(given, str):
                return cls._from_url(given) if "://" in given else cls._from_address(given)
            if isinstance(given, Sequence) and len(given) == 2:
                return cls(_host(given[0]), _port(given[1]))
            raise ValueError(f"a {type(given).__name__} is no address")
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"malformed upstream {given!r}",
                expected='"host:port", "[::1]:port", (host, port), or a URL such as '
                "redis://localhost:6379/0",
                happened=str(error),
                advice="pass the address on which the real server listens",
            ) from error

    @classmethod
    def _from_address(cls, given: str) -> Upstream:
        parts = urlsplit(f"//{given}")
        if parts.netloc != given or "@" in given:
            raise ValueError("more than a host and a port")
        if parts.port is None:
            raise ValueError("no port")
        return cls(_url_host(parts), _port(parts.port))

    @classmethod
    def _from_url(cls, given: str) -> Upstream:
        parts = urlsplit(given)
        port = DEFAULT_PORTS.get(parts.scheme) if parts.port is None else parts.port
        if port is None:
            raise ValueError(f"no port, and none is known for {parts.scheme}://")
        return cls(_url_host(parts), _port(port), parts)


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _url_host(parts: SplitResult) -> str:
    host = _host(parts.hostname)
    if "[" in parts.netloc:  # Python 3.10 takes any word in the brackets
        ipaddress.IPv6Address(host.partition("%")[0])
    return host


def _host(host: object) -> str:
    if not isinstance(host, str) or not host or any(c.isspace() or c in "/@" for c in host):
        raise ValueError(f"{host!r} is no host name or address")
    if ":" in host:
        ipaddress.IPv6Address(host.partition("%")[0])
    return host


def _port(port: object) -> int:
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ValueError(f"{port!r} is no port from 1 to 65535")
    return port


def seconds(name: str, value: float | None) -> int:
    """A time argument as the engine's whole milliseconds; ``None`` is 0.

    :raises UsageError: for a negative, infinite or non-numeric time, or one that is too
        short to be told from "now".
    """
    if value is None:
        return 0
    number: object = value
    if (
        isinstance(number, bool)
        or not isinstance(number, (int, float))
        or not math.isfinite(number)
        or number < 0.001
    ):
        raise UsageError(
            f"{name}={value!r} is no time",
            expected=f"{name} in seconds, at least 0.001",
            happened=f"got {value!r}",
            advice=f"leave {name} out for a fault that acts now",
        )
    return round(number * 1000)


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


class Fault:
    """A fault on a link. It is active, or scheduled, as soon as it exists.

    As a context manager it is lifted at the end of the block.
    """

    def __init__(self, link: Link, row: FaultRow, name: str, scheduled: bool) -> None:
        self._link = link
        self._row = row
        self._toxic = name
        self._lifted = False
        self.scheduled = scheduled

    @property
    def name(self) -> str:
        """As in the fault table: ``"silent_drop"`` and so on."""
        return self._row.name

    @property
    def hits(self) -> tuple[Event, ...]:
        """One ``fault_hit`` event for each connection that it took hold of."""
        return tuple(
            event
            for event in self._link.events
            if event.kind == "fault_hit" and event["toxic"] == self._toxic
        )

    @property
    def hit_at(self) -> float | None:
        """When it first took hold of a connection; ``None`` if it has not.

        CLOCK_MONOTONIC, seconds, to be compared with ``time.monotonic()``.
        """
        hits = self.hits
        return hits[0].at if hits else None

    @property
    def active(self) -> bool:
        """Whether it is scheduled or in force."""
        return not self._lifted and not (self._row.once and self.hit_at is not None)

    def wait_until_hit(self, timeout: float | None = None) -> float:
        """Block until the fault has hit, and return ``hit_at``.

        :param timeout: seconds; the setting ``hit_timeout`` if not given.
        :raises UsageError: when it does not hit in time.
        """
        limit = self._link.settings.hit_timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        seen = 0
        while True:
            left = deadline - time.monotonic()
            for event in self._link.events_after(seen, wait_s=max(left, 0.0)):
                seen = event.seq
                if event.kind == "fault_hit" and event["toxic"] == self._toxic:
                    return event.at
            if left <= 0:
                raise UsageError(
                    f"{self.name} did not hit in {limit:g} s",
                    expected="a connection for it to act on, idle for long enough if when_idle= "
                    "was given",
                    happened=self._link.describe_connections(),
                    advice="connect first, stop talking, or wait longer",
                )

    def lift(self) -> None:
        """Undo it. What a silent drop or a stall has held up then arrives.

        A scheduled fault that has not hit is called off. Lifting twice does nothing.

        :raises UsageError: for a fault that cannot be undone and has hit.
        """
        if self._lifted:
            return
        if self._row.once and self.hit_at is not None:
            raise UsageError(
                f"a {self.name} cannot be lifted",
                expected="a fault that lasts: " + ", ".join(_lasting()),
                happened=f"the {self.name} has hit: the connections are closed",
                advice="open a new connection through the link",
            )
        self._remove()

    def never_hit(self, hit: set[str]) -> bool:
        """Whether it was scheduled and neither hit nor called off.

        :param hit: names of the toxics that hit.
        """
        return self.scheduled and not self._lifted and self._toxic not in hit

    def _remove(self) -> None:
        self._lifted = True
        self._link.call("DELETE", f"/toxics/{self._toxic}")

    def __enter__(self) -> Fault:
        return self

    def __exit__(self, *exc: object) -> None:
        # What cannot be undone has had its effect; calling off a scheduled one, and
        # lifting one that lasts, are both a removal.
        if not self._lifted and not self._link.ended and self._link.engine_alive:
            self._remove()

    def __repr__(self) -> str:
        return f"<Fault {self.name} on {self._link.name}>"


def _lasting() -> list[str]:
    return [name for name, row in FAULTS.items() if not row.once]


class Link:
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
        milliseconds = seconds("after", after)
        if not milliseconds:
            seconds("after", 0)
        return self._start("time_out", when_idle=when_idle, timeout_ms=milliseconds)

    def reset(self, *, when_idle: float | None = None, after: float | None = None) -> Fault:
        """RST to client and server. It acts once, on the connections of that moment.

        :param when_idle: as for :meth:`silent_drop`. :param after: likewise.
        """
        return self._start("reset", when_idle=when_idle, after=after)

    def hang_up(self, *, when_idle: float | None = None, after: float | None = None) -> Fault:
        """FIN to client and server, as an orderly close. It acts once.

        :param when_idle: as for :meth:`silent_drop`. :param after: likewise.
        """
        return self._start("hang_up", when_idle=when_idle, after=after)

    def _start(
        self,
        name: str,
        *,
        when_idle: float | None = None,
        after: float | None = None,
        timeout_ms: int | None = None,
    ) -> Fault:
        if when_idle is not None and after is not None:
            raise UsageError(
                f"{name}: when_idle= and after= together",
                expected="one schedule",
                happened=f"got when_idle={when_idle!r} and after={after!r}",
                advice="drop one of them",
            )
        attributes = {"when_idle": seconds("when_idle", when_idle)}
        if timeout_ms is None:
            attributes["after"] = seconds("after", after)
        else:
            attributes["timeout"] = timeout_ms
        self._check_usable()
        check_compatible(name, [fault.name for fault in self._faults if fault.active])
        self._created += 1
        toxic = f"{name}-{self._created}"
        self.call("POST", "/toxics", {"name": toxic, "type": name, "attributes": attributes})
        scheduled = when_idle is not None or after is not None
        fault = Fault(self, FAULTS[name], toxic, scheduled)
        self._faults.append(fault)
        return fault

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
