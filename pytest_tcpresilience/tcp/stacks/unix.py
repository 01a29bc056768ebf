"""AIX, Solaris with illumos, and HP-UX: the servers of the older documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import ClassVar

from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.provenance import Source, document, knowledge, measured, source
from pytest_tcpresilience.tcp.stacks.base import Stack, Tunable

_MOST = 2**31 - 1
_AIX_TRACE = measured("capture of an AIX server whose client's cable was pulled (240/150/8)")
_AIX_DOCUMENT = document("https://community.progress.com/articles/Knowledge/20017")
_ILLUMOS = source("illumos-gate usr/src/uts/common/inet/tcp/tcp_timers.c, tcp_tunables.c")
_HPUX = document("https://community.progress.com/articles/Knowledge/P75775")


def _aix(field: str) -> Tunable:
    return Tunable(field, field, "half-seconds", 0.5, 1, _MOST, _AIX_DOCUMENT)


@dataclass(frozen=True)
class AIX(Stack):
    """``no -o tcp_keepidle`` and its neighbours, in half-seconds.

    It sends one probe more than ``tcp_keepcnt``, as the capture shows: nine with 8.
    """

    key: ClassVar[str] = "aix"
    name: ClassVar[str] = "AIX"
    tunables: ClassVar[tuple[Tunable, ...]] = (
        _aix("tcp_keepidle"),
        _aix("tcp_keepintvl"),
        Tunable("tcp_keepcnt", "tcp_keepcnt", "probes", 0, 1, _MOST, _AIX_DOCUMENT),
    )
    probe_payload: ClassVar[int] = 1
    socket_options: ClassVar[frozenset[str]] = frozenset(
        {"SO_KEEPALIVE", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"}
    )
    rto_bounds: ClassVar[tuple[float, float, float]] = (3.0, 1.0, 64.0)
    msl: ClassVar[float] = 30.0
    time_wait: ClassVar[float] = 60.0
    doubts: ClassVar[tuple[str, ...]] = (
        "one capture shows nine probes for tcp_keepcnt = 8, and one manual speaks of nine retries; "
        "documents give the end as idle + 8 * interval",
        "retransmission (rto_low, rto_high, rto_length) and socket options were not verified",
    )
    sources: ClassVar[dict[str, Source]] = {
        "keepalive": _AIX_TRACE,
        "probe_payload": _AIX_TRACE,
        "rst_at_abort": _AIX_TRACE,
        "retransmission": knowledge("no -o rto_low, rto_high, rto_length"),
        "syn": knowledge("no -o tcp_keepinit = 150 half-seconds"),
        "msl": knowledge(),
        "options": knowledge("setsockopt of AIX"),
    }

    tcp_keepidle: int = 14_400
    tcp_keepintvl: int = 150
    tcp_keepcnt: int = 8

    @property
    def idle(self) -> float:
        return self._seconds("tcp_keepidle")

    @property
    def interval(self) -> float:
        return self._seconds("tcp_keepintvl")

    @property
    def probes(self) -> int:
        return self.unanswered(self.tcp_keepcnt)

    def unanswered(self, count: int) -> int:
        return count + 1

    @property
    def data_retries(self) -> int:
        return 12  # rto_length = 13 transmissions

    @property
    def syn_limit(self) -> float:
        return 75.0


def _solaris(field: str, low: int, high: int) -> Tunable:
    return Tunable(field, f"_{field}", "milliseconds", 0.001, low, high, _ILLUMOS)


@dataclass(frozen=True)
class Solaris(Stack):
    """``ipadm set-prop -p _keepalive_interval=... tcp`` and its neighbours, in milliseconds.

    Probes are spaced like retransmissions: the connection's RTO, doubled each time up to
    ``_rexmit_interval_max``. The limit is looked at when a probe is due, so the end comes
    at the first one that is later than both intervals together. An application that sets
    ``TCP_KEEPINTVL`` and ``TCP_KEEPCNT`` gets even spacing.
    """

    key: ClassVar[str] = "solaris"
    name: ClassVar[str] = "Solaris, illumos"
    tunables: ClassVar[tuple[Tunable, ...]] = (
        _solaris("keepalive_interval", 10_000, 864_000_000),
        _solaris("keepalive_abort_interval", 0, _MOST),
        _solaris("rexmit_interval_min", 1, 7_200_000),
        _solaris("rexmit_interval_max", 1, 7_200_000),
        _solaris("ip_abort_interval", 500, _MOST),
        _solaris("ip_abort_cinterval", 1_000, _MOST),
    )
    rst_at_abort: ClassVar[bool] = False
    probe_payload: ClassVar[int] = 1
    socket_options: ClassVar[frozenset[str]] = frozenset(
        {
            "SO_KEEPALIVE",
            "TCP_KEEPIDLE",
            "TCP_KEEPINTVL",
            "TCP_KEEPCNT",
            "TCP_KEEPALIVE_THRESHOLD",
            "TCP_KEEPALIVE_ABORT_THRESHOLD",
        }
    )
    user_timeout_option: ClassVar[str | None] = "TCP_ABORT_THRESHOLD"
    rto_bounds: ClassVar[tuple[float, float, float]] = (1.0, 0.4, 60.0)
    msl: ClassVar[float] = 30.0
    time_wait: ClassVar[float] = 60.0
    doubts: ClassVar[tuple[str, ...]] = (
        "whether RST is sent at the end of keepalive was not verified; the profile says no",
        "the spacing follows the RTO of the connection: the profile takes the least, and the end "
        "comes up to _rexmit_interval_max after both intervals together",
        "with even spacing the limit is exceeded, not reached: one probe more is possible",
    )
    sources: ClassVar[dict[str, Source]] = {
        "keepalive": _ILLUMOS,
        "probe_payload": _ILLUMOS,
        "rst_at_abort": knowledge("not verified"),
        "retransmission": _ILLUMOS,
        "syn": knowledge("_ip_abort_cinterval"),
        "msl": knowledge("_time_wait_interval"),
        "options": source("illumos-gate usr/src/uts/common/inet/tcp/tcp_opt_data.c"),
    }

    keepalive_interval: int = 7_200_000
    keepalive_abort_interval: int = 480_000
    rexmit_interval_min: int = 400
    rexmit_interval_max: int = 60_000
    ip_abort_interval: int = 480_000
    ip_abort_cinterval: int = 180_000

    @property
    def idle(self) -> float:
        return self._seconds("keepalive_interval")

    @property
    def interval(self) -> float:
        return self._seconds("rexmit_interval_min")

    @property
    def probes(self) -> int:
        if not self.keepalive_abort_interval:
            return 0
        end = (self.keepalive_interval + self.keepalive_abort_interval) / 1000
        return sum(1 for _ in takewhile(lambda at: at <= end, self._ticks(None, False)))

    def _ticks(self, keepalive: Keepalive | None, answered_probe: bool) -> Iterator[float]:
        if keepalive is not None:
            yield from super()._ticks(keepalive, answered_probe)
        # In milliseconds, as the kernel counts: sums of fractions would drift.
        at, wait = self.keepalive_interval, self.rexmit_interval_min
        most = min(self.rexmit_interval_max, self.keepalive_interval - 1)
        while True:
            yield at / 1000
            at += wait
            wait = min(wait * 2, most)

    @property
    def data_limit(self) -> float:
        return self._seconds("ip_abort_interval")

    @property
    def syn_limit(self) -> float:
        return self._seconds("ip_abort_cinterval")

    @property
    def rto_min(self) -> float:
        return self._seconds("rexmit_interval_min")

    @property
    def rto_max(self) -> float:
        return self._seconds("rexmit_interval_max")


def _hpux(field: str, low: int) -> Tunable:
    return Tunable(field, field, "milliseconds", 0.001, low, _MOST, _HPUX)


@dataclass(frozen=True)
class HPUX(Stack):
    """``ndd -set /dev/tcp tcp_keepalive_interval`` and its neighbours, in milliseconds.

    After the first probe, one each ``tcp_ip_notify_interval`` until
    ``tcp_ip_abort_interval`` is over.
    """

    key: ClassVar[str] = "hp-ux"
    name: ClassVar[str] = "HP-UX 11"
    tunables: ClassVar[tuple[Tunable, ...]] = (
        _hpux("tcp_keepalive_interval", 10_000),
        _hpux("tcp_ip_notify_interval", 500),
        _hpux("tcp_ip_abort_interval", 500),
    )
    socket_options: ClassVar[frozenset[str]] = frozenset({"SO_KEEPALIVE"})
    rto_bounds: ClassVar[tuple[float, float, float]] = (1.5, 0.5, 60.0)
    msl: ClassVar[float] = 30.0
    time_wait: ClassVar[float] = 60.0
    doubts: ClassVar[tuple[str, ...]] = (
        "the even spacing by tcp_ip_notify_interval, and with it the number of probes (60), is "
        "what one article says",
        "whether RST is sent, what a probe carries, retransmission and socket options were not "
        "verified",
    )
    sources: ClassVar[dict[str, Source]] = {
        "keepalive": _HPUX,
        "probe_payload": knowledge("not verified"),
        "rst_at_abort": knowledge("not verified; tcp_keepalives_kill = 1 ends the connection"),
        "retransmission": knowledge("tcp_rexmit_interval_*, tcp_ip_abort_interval"),
        "syn": knowledge("tcp_ip_abort_cinterval = 75 s"),
        "msl": knowledge("tcp_time_wait_interval"),
        "options": knowledge("not verified"),
    }

    tcp_keepalive_interval: int = 7_200_000
    tcp_ip_notify_interval: int = 10_000
    tcp_ip_abort_interval: int = 600_000

    @property
    def idle(self) -> float:
        return self._seconds("tcp_keepalive_interval")

    @property
    def interval(self) -> float:
        return self._seconds("tcp_ip_notify_interval")

    @property
    def probes(self) -> int:
        return -(-self.tcp_ip_abort_interval // self.tcp_ip_notify_interval)

    @property
    def data_limit(self) -> float:
        return self._seconds("tcp_ip_abort_interval")

    @property
    def syn_limit(self) -> float:
        return 75.0
