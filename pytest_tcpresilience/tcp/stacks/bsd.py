"""FreeBSD, NetBSD, OpenBSD and macOS: one keepalive, four units.

All descend from the same timer: a probe each interval for as long as the connection has
been idle for less than idle + count * interval, then an abort with RST.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pytest_tcpresilience.tcp.provenance import Source, knowledge, source
from pytest_tcpresilience.tcp.stacks.base import Stack, Tunable

_FREEBSD = source("freebsd-src sys/netinet/tcp_timer.c, tcp_timer.h")
_NETBSD = source("NetBSD sys/netinet/tcp_timer.h: in slow ticks")
_OPENBSD = source("OpenBSD sys/netinet/tcp_timer.c, tcp_timer.h")
_XNU = source("apple-oss-distributions/xnu bsd/netinet/tcp_timer.c, tcp_timer.h")
# TCP_MAXRXTSHIFT of all four.
_MOST_RETRANSMISSIONS = 12
# TCPTV_KEEP_INIT: connect() gives up after 75 s.
_CONNECT_LIMIT_S = 75.0
_BSD_LOGIC = knowledge("the timer that all BSDs share")


@dataclass(frozen=True)
class _Bsd(Stack):
    """What the four have in common."""

    socket_options: ClassVar[frozenset[str]] = frozenset(
        {"SO_KEEPALIVE", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"}
    )
    rto_bounds: ClassVar[tuple[float, float, float]] = (1.0, 1.0, 64.0)
    backoff_limit: ClassVar[int | None] = 64
    msl: ClassVar[float] = 30.0
    time_wait: ClassVar[float] = 60.0

    @property
    def data_retries(self) -> int:
        return _MOST_RETRANSMISSIONS

    @property
    def syn_limit(self) -> float:
        return _CONNECT_LIMIT_S


def _milliseconds(field: str, where: Source) -> Tunable:
    return Tunable(field, f"net.inet.tcp.{field}", "milliseconds", 0.001, 1, 2**31 - 1, where)


@dataclass(frozen=True)
class FreeBSD(_Bsd):
    """``sysctl net.inet.tcp.keepidle`` and its neighbours, in milliseconds."""

    key: ClassVar[str] = "freebsd"
    name: ClassVar[str] = "FreeBSD"
    tunables: ClassVar[tuple[Tunable, ...]] = (
        _milliseconds("keepidle", _FREEBSD),
        _milliseconds("keepintvl", _FREEBSD),
        Tunable("keepcnt", "net.inet.tcp.keepcnt", "probes", 0, 1, 2**31 - 1, _FREEBSD),
    )
    keepalive_by_default: ClassVar[bool] = True
    user_timeout_option: ClassVar[str | None] = "TCP_MAXUNACKTIME"
    # TCPTV_MIN, 30 ms, and rexmit_slop, 200 ms.
    rto_bounds: ClassVar[tuple[float, float, float]] = (1.0, 0.23, 64.0)
    # tcp_backoff[] of current releases; older ones stop at 64.
    backoff_limit: ClassVar[int | None] = 512
    doubts: ClassVar[tuple[str, ...]] = (
        "net.inet.tcp.always_keepalive is held to be 1, so that keepalive is on for all sockets",
        "the backoff of retransmissions stops at 512 times the first in recent releases and at 64 "
        "in older ones",
        "TCP_MAXUNACKTIME (release 14 and later) was not tried",
    )
    sources: ClassVar[dict[str, Source]] = {
        "keepalive": _FREEBSD,
        "probe_payload": _FREEBSD,
        "rst_at_abort": knowledge("tcp_drop(ETIMEDOUT) sends RST"),
        "retransmission": knowledge("TCP_MAXRXTSHIFT, TCPTV_MIN, TCPTV_REXMTMAX"),
        "syn": knowledge("TCPTV_KEEP_INIT"),
        "msl": knowledge("net.inet.tcp.msl"),
        "options": knowledge("tcp(4)"),
    }

    keepidle: int = 7_200_000
    keepintvl: int = 75_000
    keepcnt: int = 8

    @property
    def idle(self) -> float:
        return self._seconds("keepidle")

    @property
    def interval(self) -> float:
        return self._seconds("keepintvl")

    @property
    def probes(self) -> int:
        return self.keepcnt


def _half_seconds(field: str) -> Tunable:
    native = f"net.inet.tcp.{field}"
    return Tunable(field, native, "slow ticks (half-seconds)", 0.5, 1, 2**31 - 1, _NETBSD)


@dataclass(frozen=True)
class NetBSD(_Bsd):
    """``sysctl net.inet.tcp.keepidle`` and its neighbours, in half-seconds."""

    key: ClassVar[str] = "netbsd"
    name: ClassVar[str] = "NetBSD"
    tunables: ClassVar[tuple[Tunable, ...]] = (
        _half_seconds("keepidle"),
        _half_seconds("keepintvl"),
        Tunable(
            "keepcnt", "net.inet.tcp.keepcnt", "probes (0: no limit)", 0, 0, 2**31 - 1, _NETBSD
        ),
    )
    doubts: ClassVar[tuple[str, ...]] = (
        "the units and defaults were read in the source; that it counts its probes as the other "
        "BSDs do was not",
    )
    sources: ClassVar[dict[str, Source]] = {
        "keepalive": _NETBSD,
        "probe_payload": _BSD_LOGIC,
        "rst_at_abort": _BSD_LOGIC,
        "retransmission": knowledge("TCP_MAXRXTSHIFT, TCPTV_MIN, TCPTV_REXMTMAX"),
        "syn": knowledge("TCPTV_KEEP_INIT"),
        "msl": knowledge("net.inet.tcp.mslt"),
        "options": knowledge("tcp(4)"),
    }

    keepidle: int = 14_400
    keepintvl: int = 150
    keepcnt: int = 8

    @property
    def idle(self) -> float:
        return self._seconds("keepidle")

    @property
    def interval(self) -> float:
        return self._seconds("keepintvl")

    @property
    def probes(self) -> int:
        return self.keepcnt


def _whole_seconds(field: str) -> Tunable:
    return Tunable(field, f"net.inet.tcp.{field}", "seconds", 1.0, 1, 2**31 - 1, _OPENBSD)


@dataclass(frozen=True)
class OpenBSD(_Bsd):
    """``sysctl net.inet.tcp.keepidle`` and ``keepintvl``; the count is fixed.

    Seconds, as in the current source. Older releases count in half-seconds: give
    those as the seconds they stand for.
    """

    key: ClassVar[str] = "openbsd"
    name: ClassVar[str] = "OpenBSD"
    tunables: ClassVar[tuple[Tunable, ...]] = (
        _whole_seconds("keepidle"),
        _whole_seconds("keepintvl"),
    )
    socket_options: ClassVar[frozenset[str]] = frozenset({"SO_KEEPALIVE"})
    doubts: ClassVar[tuple[str, ...]] = (
        "older releases count in half-seconds (14400/150), which gives the same moments",
        "that there are no TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT was not tried",
    )
    sources: ClassVar[dict[str, Source]] = {
        "keepalive": _OPENBSD,
        "probe_payload": _BSD_LOGIC,
        "rst_at_abort": knowledge("tcp_drop(ETIMEDOUT), read; that it sends RST, not"),
        "retransmission": knowledge("TCP_MAXRXTSHIFT, TCPTV_MIN, TCPTV_REXMTMAX"),
        "syn": knowledge("TCPTV_KEEP_INIT"),
        "msl": knowledge("TCPTV_MSL"),
        "options": knowledge("tcp(4)"),
    }

    keepidle: int = 7200
    keepintvl: int = 75
    # TCPTV_KEEPCNT, which no sysctl changes.
    PROBES: ClassVar[int] = 8

    @property
    def idle(self) -> float:
        return self._seconds("keepidle")

    @property
    def interval(self) -> float:
        return self._seconds("keepintvl")

    @property
    def probes(self) -> int:
        return self.PROBES


@dataclass(frozen=True)
class MacOS(FreeBSD):
    """``sysctl net.inet.tcp.keepidle`` and its neighbours, in milliseconds.

    The socket's option for the idle time is called ``TCP_KEEPALIVE``, in seconds.
    """

    key: ClassVar[str] = "macos"
    name: ClassVar[str] = "macOS"
    tunables: ClassVar[tuple[Tunable, ...]] = (
        _milliseconds("keepidle", _XNU),
        _milliseconds("keepintvl", _XNU),
        Tunable("keepcnt", "net.inet.tcp.keepcnt", "probes", 0, 1, 2**31 - 1, _XNU),
    )
    keepalive_by_default: ClassVar[bool] = False
    socket_options: ClassVar[frozenset[str]] = frozenset(
        {"SO_KEEPALIVE", "TCP_KEEPALIVE", "TCP_KEEPINTVL", "TCP_KEEPCNT"}
    )
    user_timeout_option: ClassVar[str | None] = "TCP_RXT_CONNDROPTIME"
    backoff_limit: ClassVar[int | None] = 64
    msl: ClassVar[float] = 15.0
    time_wait: ClassVar[float] = 30.0
    doubts: ClassVar[tuple[str, ...]] = (
        "timers are coalesced to 500 ms, so every moment may be that much later",
        "TCP_RXT_CONNDROPTIME was not tried",
    )
    sources: ClassVar[dict[str, Source]] = {
        "keepalive": _XNU,
        "probe_payload": _XNU,
        "rst_at_abort": knowledge("tcp_drop(ETIMEDOUT) sends RST"),
        "retransmission": knowledge("TCP_MAXRXTSHIFT, TCPTV_REXMTMIN, TCPTV_REXMTMAX"),
        "syn": knowledge("TCPTV_KEEP_INIT"),
        "msl": knowledge("net.inet.tcp.msl"),
        "options": knowledge("tcp(4), netinet/tcp.h"),
    }

    @property
    def offered(self) -> frozenset[str]:
        return super().offered | {"TCP_KEEPIDLE"}
