"""Where a link leads: the reading of an upstream's address, in each form that people use.

Pure. It knows no link and no socket.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.tcp.addresses import join_address

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
