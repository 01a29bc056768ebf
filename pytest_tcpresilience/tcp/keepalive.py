"""The settings by which a TCP client notices that its peer is gone.

Owns the four numbers, their limits and how they are written to and read from a
socket. It does not know when they take effect: that is :mod:`.windows`.
"""

from __future__ import annotations

import math
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pytest_tcpresilience.errors import UsageError

# include/net/tcp.h: MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL, MAX_TCP_KEEPCNT. Linux refuses
# more with EINVAL.
MAX_IDLE_S = 32767
MAX_INTERVAL_S = 32767
MAX_PROBES = 127

# Python names what the platform has: macOS calls the idle time TCP_KEEPALIVE, and only
# Linux has a user timeout. The numbers behind are Linux's (uapi/linux/tcp.h).
TCP_KEEPIDLE: int = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 4))
TCP_KEEPINTVL: int = getattr(socket, "TCP_KEEPINTVL", 5)
TCP_KEEPCNT: int = getattr(socket, "TCP_KEEPCNT", 6)
TCP_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)


class HasReading(Protocol):
    """What a connection's settings came to when they were read."""

    @property
    def settings(self) -> Keepalive: ...


class HasClients(Protocol):
    """A link: it can read the settings of the clients that are connected to it."""

    def keepalives(self) -> Sequence[HasReading]: ...


class HasSockopts(Protocol):
    """A standard socket, an SSL socket, trio's socket, asyncio's transport socket."""

    def getsockopt(self, level: int, optname: int, /) -> int: ...


def _whole(name: str, value: object, limit: int, unit: str) -> int:
    wrong = isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit
    if wrong:
        raise UsageError(
            f"Keepalive: {name}={value!r} cannot be set",
            expected=f"{name} as a whole number of {unit} from 1 to {limit}",
            happened="the kernel takes whole numbers; clients that pass less than one "
            "second usually end with 0, which it refuses"
            if isinstance(value, float)
            else "a value outside that range",
            advice=f"give {name} a whole number of at least 1",
        )
    assert isinstance(value, int)
    return value


@dataclass(frozen=True)
class Keepalive:
    """``SO_KEEPALIVE`` with its three numbers, and ``TCP_USER_TIMEOUT``.

    :param idle: seconds without a segment from the peer before the first probe
        (``TCP_KEEPIDLE``), a whole number.
    :param interval: seconds between probes (``TCP_KEEPINTVL``), a whole number.
    :param probes: unanswered probes after which the connection is dead
        (``TCP_KEEPCNT``).
    :param user_timeout: ``TCP_USER_TIMEOUT`` in seconds, to the millisecond; 0 is off.
        Where it is on, Linux uses it *in place of* ``probes``.
    :param enabled: ``SO_KEEPALIVE`` itself.
    :raises UsageError: for a number that the kernel cannot take.
    """

    idle: int
    interval: int
    probes: int
    user_timeout: float = 0.0
    enabled: bool = True

    def __post_init__(self) -> None:
        _whole("idle", self.idle, MAX_IDLE_S, "seconds")
        _whole("interval", self.interval, MAX_INTERVAL_S, "seconds")
        _whole("probes", self.probes, MAX_PROBES, "probes")
        timeout: object = self.user_timeout
        if (
            isinstance(timeout, bool)
            or not isinstance(timeout, (int, float))
            or not math.isfinite(timeout)
            or timeout < 0
            or 0 < timeout < 0.001
            or timeout > 2**31 / 1000 - 1
        ):
            raise UsageError(
                f"Keepalive: user_timeout={timeout!r} cannot be set",
                expected="seconds, 0 for off, at least 0.001 otherwise",
                happened="TCP_USER_TIMEOUT counts in whole milliseconds",
                advice="give user_timeout in seconds, for example user_timeout=5.0",
            )

    @classmethod
    def linux_defaults(cls, *, enabled: bool = True) -> Keepalive:
        """What ``SO_KEEPALIVE`` alone gives on Linux: 7200 s, 75 s, 9 probes.

        Source: tcp(7), ``tcp_keepalive_time``, ``tcp_keepalive_intvl``,
        ``tcp_keepalive_probes``.
        """
        return cls(idle=7200, interval=75, probes=9, enabled=enabled)

    @classmethod
    def from_socket(cls, sock: HasSockopts) -> Keepalive:
        """The settings in force on a connected or unconnected TCP socket.

        :param sock: anything with ``getsockopt``: a socket, an SSL socket, trio's
            socket, asyncio's ``writer.get_extra_info("socket")``.
        :raises UsageError: when it is not an open TCP socket.
        """

        def read(level: int, option: int) -> int:
            return sock.getsockopt(level, option)

        try:
            return cls(
                idle=read(socket.IPPROTO_TCP, TCP_KEEPIDLE),
                interval=read(socket.IPPROTO_TCP, TCP_KEEPINTVL),
                probes=read(socket.IPPROTO_TCP, TCP_KEEPCNT),
                user_timeout=0.0
                if TCP_USER_TIMEOUT is None
                else read(socket.IPPROTO_TCP, TCP_USER_TIMEOUT) / 1000,
                enabled=bool(read(socket.SOL_SOCKET, socket.SO_KEEPALIVE)),
            )
        except (AttributeError, TypeError, OSError) as error:
            raise UsageError(
                f"Keepalive.from_socket: cannot read {type(sock).__name__}",
                expected="an open TCP socket with a getsockopt method",
                happened=f"{type(error).__name__}: {error}",
                advice="pass the client's own socket, before it is closed",
            ) from error

    @classmethod
    def of(cls, link: HasClients) -> Keepalive:
        """The settings in force on the socket of the client that is connected to ``link``.

        For ``detects_break(link, within=Keepalive.of(link))``.

        :raises UsageError: when no client is connected, or several with different settings.
        :raises HarnessError: when the client's socket is out of reach.
        """
        found = list(dict.fromkeys(each.settings for each in link.keepalives()))
        if not found:
            raise UsageError(
                "Keepalive.of: no client is connected to this link",
                expected="a client with an open connection through the link",
                happened="there is none",
                advice="connect the client and use it once, then read its settings",
            )
        if len(found) > 1:
            raise UsageError(
                "Keepalive.of: the clients of this link differ",
                expected="connections with the same settings",
                happened="; ".join(map(str, found)),
                advice="choose one: keepalive_of(link)[0].settings",
            )
        return found[0]

    @property
    def user_timeout_ms(self) -> int:
        """``TCP_USER_TIMEOUT`` as the kernel stores it."""
        return round(self.user_timeout * 1000)

    def socket_options(self) -> list[tuple[int, int, int]]:
        """``(level, option, value)`` triples, as urllib3, httpcore and others take them.

        :raises UsageError: for a user timeout where the platform has none.
        """
        options = [
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(self.enabled)),
            (socket.IPPROTO_TCP, TCP_KEEPIDLE, self.idle),
            (socket.IPPROTO_TCP, TCP_KEEPINTVL, self.interval),
            (socket.IPPROTO_TCP, TCP_KEEPCNT, self.probes),
        ]
        if self.user_timeout:
            if TCP_USER_TIMEOUT is None:
                raise UsageError(
                    "this platform has no TCP_USER_TIMEOUT",
                    expected="Linux, for a Keepalive with a user timeout",
                    happened=f"user_timeout={self.user_timeout:g} on {sys.platform}",
                    advice="leave user_timeout out",
                )
            options.append((socket.IPPROTO_TCP, TCP_USER_TIMEOUT, self.user_timeout_ms))
        return options

    def apply(self, sock: Any) -> None:
        """Set all of it on ``sock``, which needs a ``setsockopt`` method.

        :raises OSError: as the kernel does.
        """
        for level, option, value in self.socket_options():
            sock.setsockopt(level, option, value)

    def __str__(self) -> str:
        if not self.enabled:
            return "keepalive off"
        text = f"keepalive {self.idle}/{self.interval}/{self.probes}"
        return text + (f", user timeout {self.user_timeout:g} s" if self.user_timeout else "")
