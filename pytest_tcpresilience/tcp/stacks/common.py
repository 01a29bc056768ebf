"""Linux, Windows in its two ages, and the server of the textbooks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.provenance import Source, document, knowledge, measured, source
from pytest_tcpresilience.tcp.stacks.base import Schedule, Stack, Tunable
from pytest_tcpresilience.tcp.windows import (
    WHEEL_FLOOR_S,
    WHEEL_SHARE,
    first_probe_s,
    unanswered_probes,
)

_LINUX = measured("Linux 6.18, 360 connections at a time; holds on 6.1 and 6.12")
_LINUX_SYSCTL = document("tcp(7); Documentation/networking/ip-sysctl.rst")
# proc_dointvec_jiffies stores a time as an int of at most 1000 ticks a second.
_MOST_S = (2**31 - 1) // 1000
# What the limit of retransmissions is computed with (net/ipv4/tcp_timer.c,
# tcp_model_timeout): the least and the greatest RTO, whatever the connection's own is.
_MODEL_RTO_S, _MODEL_MOST_S = 0.2, 120.0


def _model_s(retries: int, base: float) -> float:
    """The time that so many retransmissions take, the first after ``base`` seconds."""
    doubled = min(retries, int(math.log2(_MODEL_MOST_S / base)))
    return (math.ldexp(2, doubled) - 1) * base + (retries - doubled) * _MODEL_MOST_S


def _past(ticks: Iterator[float], times: list[float], limit: float) -> Schedule:
    """Repeated at each tick, given up at the first that is not before the limit."""
    for at in ticks:
        if at >= limit:
            return Schedule(tuple(times), at)
        times.append(at)
    raise AssertionError("the ticks never end")


def _linux(field: str, unit: str, seconds: float, high: int) -> Tunable:
    return Tunable(field, f"net.ipv4.{field}", unit, seconds, 1, high, _LINUX_SYSCTL)


@dataclass(frozen=True)
class Linux(Stack):
    """``sysctl net.ipv4.tcp_keepalive_time`` and its neighbours, in seconds.

    ``TCP_USER_TIMEOUT`` takes the place of the probe count on an idle connection, and of
    ``tcp_retries2`` on one with unacknowledged data.
    """

    key: ClassVar[str] = "linux"
    name: ClassVar[str] = "Linux"
    tunables: ClassVar[tuple[Tunable, ...]] = (
        _linux("tcp_keepalive_time", "seconds", 1.0, _MOST_S),
        _linux("tcp_keepalive_intvl", "seconds", 1.0, _MOST_S),
        _linux("tcp_keepalive_probes", "probes", 0, 255),
        _linux("tcp_retries2", "retransmissions", 0, 255),
        _linux("tcp_syn_retries", "retransmissions", 0, 127),
        Tunable(
            "tcp_syn_linear_timeouts",
            "net.ipv4.tcp_syn_linear_timeouts",
            "retransmissions (6.5 and later; 0 before)",
            0,
            0,
            255,
            _LINUX_SYSCTL,
        ),
    )
    socket_options: ClassVar[frozenset[str]] = frozenset(
        {"SO_KEEPALIVE", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"}
    )
    user_timeout_option: ClassVar[str | None] = "TCP_USER_TIMEOUT"
    user_timeout_ends_idle: ClassVar[bool] = True
    rto_bounds: ClassVar[tuple[float, float, float]] = (1.0, 0.2, 120.0)
    msl: ClassVar[float] = 30.0
    time_wait: ClassVar[float] = 60.0
    sources: ClassVar[dict[str, Source]] = {
        "keepalive": _LINUX,
        "probe_payload": _LINUX,
        "rst_at_abort": _LINUX,
        "retransmission": _LINUX,
        "syn": measured("Linux 6.18: TCP_SYNCNT 1 to 4 and a capture of each SYN"),
        "msl": source("include/net/tcp.h: TCP_TIMEWAIT_LEN, a constant"),
        "options": _LINUX,
    }

    tcp_keepalive_time: int = 7200
    tcp_keepalive_intvl: int = 75
    tcp_keepalive_probes: int = 9
    tcp_retries2: int = 15
    tcp_syn_retries: int = 6
    tcp_syn_linear_timeouts: int = 4

    @property
    def idle(self) -> float:
        return float(self.tcp_keepalive_time)

    @property
    def interval(self) -> float:
        return float(self.tcp_keepalive_intvl)

    @property
    def probes(self) -> int:
        return self.tcp_keepalive_probes

    def schedule(
        self, keepalive: Keepalive | None = None, *, answered_probe: bool = False
    ) -> Schedule:
        if keepalive is None or not keepalive.user_timeout:
            return super().schedule(keepalive, answered_probe=answered_probe)
        # The user timeout replaces the count, by the rule that the windows know.
        first = first_probe_s(keepalive, answered_probe=answered_probe)
        count = unanswered_probes(keepalive, answered_probe=answered_probe)
        times = tuple(first + keepalive.interval * each for each in range(count))
        return Schedule(times, first + keepalive.interval * count)

    def _first(self, idle: float, interval: float) -> float:
        return max(idle, interval)

    @property
    def data_retries(self) -> int:
        return self.tcp_retries2

    @property
    def rto_near(self) -> float:
        # The round-trip time and 200 ms: never 200 ms alone.
        return self.rto_min + 0.001

    def _data_schedule(self, ticks: Iterator[float]) -> Schedule:
        """Given up at the first tick that is the model's time after the first one."""
        times = [next(ticks)]
        return _past(ticks, times, times[0] + self.retries2_limit)

    @property
    def retries2_limit(self) -> float:
        """What ``tcp_retries2`` stands for, in seconds after the first retransmission.

        It counts no retransmissions: it is turned into the time that so many would take
        at the least RTO, 924.6 s for 15.
        """
        return _model_s(self.tcp_retries2, _MODEL_RTO_S)

    def syn_schedule(self) -> Schedule:
        """As measured: the first SYNs come a second apart, then each twice as late.

        ``tcp_syn_retries`` too is turned into a time, as if there were no even ones.
        """
        return _past(self._syn_ticks(), [], _model_s(self.tcp_syn_retries, self.rto_initial))

    def latest(self, seconds: float) -> float:
        return seconds * (1 + WHEEL_SHARE) + WHEEL_FLOOR_S

    def _syn_ticks(self) -> Iterator[float]:
        at = 0.0
        for _ in range(self.tcp_syn_linear_timeouts):
            at += self.rto_initial
            yield at
        yield from self._doubling(self.rto_initial, at + self.rto_initial)

    def _user_limit(self, user_timeout: float, first: float) -> float:
        # Its clock starts with the first retransmission.
        return first + user_timeout

    @property
    def syn_retries(self) -> int:
        return self.tcp_syn_retries


_KEEPALIVE_DOCUMENT = document(
    "https://learn.microsoft.com/en-us/previous-versions/windows/it-pro/windows-2000-server/"
    "cc957549(v=technet.10), KeepAliveTime, and its neighbours"
)
_VALS_DOCUMENT = document(
    "https://learn.microsoft.com/en-us/windows/win32/winsock/sio-keepalive-vals"
)


def _registry(field: str) -> Tunable:
    return Tunable(field, field, "milliseconds", 0.001, 1, 2**32 - 1, _KEEPALIVE_DOCUMENT)


@dataclass(frozen=True)
class WindowsRegistry(Stack):
    r"""Values under ``HKLM\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters``.

    The age before socket options, from NT to Windows 10 1703. The default of five
    retransmissions is that of XP and 2003; Vista and later send ten probes, whatever
    the registry says: ``WindowsRegistry(TcpMaxDataRetransmissions=10)``.
    """

    key: ClassVar[str] = "windows-registry"
    name: ClassVar[str] = "Windows (registry)"
    tunables: ClassVar[tuple[Tunable, ...]] = (
        _registry("KeepAliveTime"),
        _registry("KeepAliveInterval"),
        Tunable(
            "TcpMaxDataRetransmissions",
            "TcpMaxDataRetransmissions",
            "retransmissions",
            0,
            1,
            2**32 - 1,
            document(
                "https://learn.microsoft.com/en-us/previous-versions/windows/it-pro/"
                "windows-2000-server/cc938210(v=technet.10)"
            ),
        ),
    )
    probe_payload: ClassVar[int] = 1
    socket_options: ClassVar[frozenset[str]] = frozenset({"SO_KEEPALIVE", "SIO_KEEPALIVE_VALS"})
    rto_bounds: ClassVar[tuple[float, float, float]] = (3.0, 0.3, 240.0)
    msl: ClassVar[float] = 120.0
    time_wait: ClassVar[float] = 240.0
    doubts: ClassVar[tuple[str, ...]] = (
        "that TcpMaxDataRetransmissions is also the number of probes is generally held; 5 on XP "
        "and 2003, a fixed 10 on Vista and later",
        "whether RST is sent, what a probe carries and the bounds of the RTO were not verified",
    )
    sources: ClassVar[dict[str, Source]] = {
        "keepalive": _KEEPALIVE_DOCUMENT,
        "probe_payload": knowledge("not verified"),
        "rst_at_abort": knowledge("not verified"),
        "retransmission": knowledge("TcpMaxDataRetransmissions, each twice as late as the last"),
        "syn": knowledge("TcpMaxConnectRetransmissions = 2: 21 s"),
        "msl": knowledge("TcpTimedWaitDelay = 240 s"),
        "options": _VALS_DOCUMENT,
    }

    KeepAliveTime: int = 7_200_000
    KeepAliveInterval: int = 1_000
    TcpMaxDataRetransmissions: int = 5

    @property
    def idle(self) -> float:
        return self._seconds("KeepAliveTime")

    @property
    def interval(self) -> float:
        return self._seconds("KeepAliveInterval")

    @property
    def probes(self) -> int:
        return self.TcpMaxDataRetransmissions

    @property
    def offered(self) -> frozenset[str]:
        # SIO_KEEPALIVE_VALS sets both times; nothing sets the count.
        return super().offered | {"TCP_KEEPIDLE", "TCP_KEEPINTVL"}

    @property
    def data_retries(self) -> int:
        return self.TcpMaxDataRetransmissions

    @property
    def syn_retries(self) -> int:
        return 2


_GO = document("https://github.com/golang/go/pull/65817: TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT")


@dataclass(frozen=True)
class Windows(Stack):
    """Windows 10 1709, Server 2019 and later: the registry's times, and socket options.

    ``TCP_KEEPCNT`` came with 1703, ``TCP_KEEPIDLE`` and ``TCP_KEEPINTVL`` with 1709.
    """

    key: ClassVar[str] = "windows"
    name: ClassVar[str] = "Windows (1709 and later)"
    tunables: ClassVar[tuple[Tunable, ...]] = WindowsRegistry.tunables[:2]
    probe_payload: ClassVar[int] = 1
    socket_options: ClassVar[frozenset[str]] = frozenset(
        {
            "SO_KEEPALIVE",
            "SIO_KEEPALIVE_VALS",
            "TCP_KEEPIDLE",
            "TCP_KEEPINTVL",
            "TCP_KEEPCNT",
        }
    )
    user_timeout_option: ClassVar[str | None] = "TCP_MAXRT"
    rto_bounds: ClassVar[tuple[float, float, float]] = (3.0, 0.3, 240.0)
    msl: ClassVar[float] = 60.0
    time_wait: ClassVar[float] = 120.0
    doubts: ClassVar[tuple[str, ...]] = (
        "the default of ten probes is generally held",
        "whether RST is sent, what a probe carries and the bounds of the RTO were not verified",
        "TCP_MAXRT is documented and was not tried",
    )
    sources: ClassVar[dict[str, Source]] = {
        "keepalive": _KEEPALIVE_DOCUMENT,
        "probe_payload": knowledge("not verified"),
        "rst_at_abort": knowledge("not verified"),
        "retransmission": knowledge("five retransmissions"),
        "syn": knowledge("two retransmissions: 21 s"),
        "msl": knowledge("TcpTimedWaitDelay = 120 s"),
        "options": _GO,
    }

    KeepAliveTime: int = 7_200_000
    KeepAliveInterval: int = 1_000
    PROBES: ClassVar[int] = 10

    @property
    def idle(self) -> float:
        return self._seconds("KeepAliveTime")

    @property
    def interval(self) -> float:
        return self._seconds("KeepAliveInterval")

    @property
    def probes(self) -> int:
        return self.PROBES

    @property
    def data_retries(self) -> int:
        return 5

    @property
    def syn_retries(self) -> int:
        return 2


_SLIDES = document("textbook slides on the release of TCP connections")


@dataclass(frozen=True)
class Textbook(Stack):
    """The server of the textbooks: two hours, then ten probes, one each 75 s."""

    key: ClassVar[str] = "textbook"
    name: ClassVar[str] = "textbook's server"
    tunables: ClassVar[tuple[Tunable, ...]] = (
        Tunable("idle_s", "keepalive timer", "seconds", 1.0, 1, 2**31 - 1, _SLIDES),
        Tunable("interval_s", "probe interval", "seconds", 1.0, 1, 2**31 - 1, _SLIDES),
        Tunable("probe_count", "unanswered probes", "probes", 0, 1, 2**31 - 1, _SLIDES),
    )
    rst_at_abort: ClassVar[bool] = False
    socket_options: ClassVar[frozenset[str]] = frozenset({"SO_KEEPALIVE"})
    rto_bounds: ClassVar[tuple[float, float, float]] = (1.0, 1.0, 60.0)
    msl: ClassVar[float] = 120.0
    time_wait: ClassVar[float] = 240.0
    doubts: ClassVar[tuple[str, ...]] = (
        "the textbook says that the server closes, not what it sends: the profile sends nothing",
        "it may mean the moment of the tenth probe or one interval later; the profile takes the "
        "later, as real systems do",
    )
    sources: ClassVar[dict[str, Source]] = {
        "keepalive": _SLIDES,
        "probe_payload": knowledge("RFC 1122, 4.2.3.6 allows none or one byte"),
        "rst_at_abort": knowledge("not said"),
        "retransmission": knowledge("RFC 1122, 4.2.3.5: at least 100 s; RFC 6298 for the RTO"),
        "syn": knowledge("RFC 1122, 4.2.3.5: at least 3 minutes"),
        "msl": document("RFC 793: 2 minutes"),
        "options": knowledge("RFC 1122, 4.2.3.6"),
    }

    idle_s: int = 7200
    interval_s: int = 75
    probe_count: int = 10

    @property
    def idle(self) -> float:
        return float(self.idle_s)

    @property
    def interval(self) -> float:
        return float(self.interval_s)

    @property
    def probes(self) -> int:
        return self.probe_count

    @property
    def data_limit(self) -> float:
        return 100.0

    @property
    def syn_limit(self) -> float:
        return 180.0
