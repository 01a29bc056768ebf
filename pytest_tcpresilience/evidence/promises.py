"""What a client's settings can be held to, and the rules that they can break.

Owns the table of rules: each with the evidence that establishes it, the sentence that a user
reads, and the cure. Pure. What a whole reading comes to is :mod:`.judgements`'.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from pytest_tcpresilience.evidence.readings import KeepaliveReading
from pytest_tcpresilience.evidence.remedies import latest_s, set_keepalive, set_user_timeout
from pytest_tcpresilience.evidence.units import duration
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.middleboxes import Middlebox
from pytest_tcpresilience.tcp.stacks import Linux
from pytest_tcpresilience.tcp.windows import (
    FIRST_RETRANSMISSION_S,
    RETRIES2_DEFAULT_S,
    idle_window,
    unanswered_probes,
)
from pytest_tcpresilience.tcp.windows import within as window_of

DEFAULT_RETRIES2 = 15
# The shortest interval between probes: no idle connection is given up sooner than this
# after its first probe.
SHORTEST_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Promise:
    """What a test or an audit holds a client's settings to. ``None`` is not asked for.

    :param within: seconds, for an idle connection.
    :param writes_within: seconds, for one with unacknowledged data.
    :param behind: a box that must not forget the idle connection.
    :param retries2: ``net.ipv4.tcp_retries2``.
    :param defaults: what ``SO_KEEPALIVE`` alone gives on this system.
    """

    within: float | None = None
    writes_within: float | None = None
    behind: Middlebox | None = None
    retries2: int = DEFAULT_RETRIES2
    defaults: Keepalive = field(default_factory=Keepalive.linux_defaults)

    @property
    def concerns_idle(self) -> bool:
        """Whether an idle connection matters. It does when nothing at all is promised."""
        return self.writes_within is None or self.within is not None or self.behind is not None

    def __str__(self) -> str:
        parts = []
        if self.within is not None:
            parts.append(f"an idle death noticed within {duration(self.within)}")
        if self.writes_within is not None:
            parts.append(f"a death with unacknowledged data within {duration(self.writes_within)}")
        if self.behind is not None:
            parts.append(f"an idle connection kept alive behind {self.behind}")
        return ", ".join(parts) or "a death noticed at all"


Found = dict[str, str]


# --- how long -----------------------------------------------------------------------------


def idle_death_s(reading: KeepaliveReading) -> float | None:
    """Seconds to the detection of an idle death by the settings, infinite for never.

    :returns: ``None`` when that is not known.
    """
    if reading.enabled is False:
        return math.inf
    return idle_window(reading.settings).nominal if reading.complete else None


def write_death_s(reading: KeepaliveReading, retries2: int = DEFAULT_RETRIES2) -> float | None:
    """Seconds to the detection of a death with unacknowledged data; ``None`` if not known."""
    limit = reading.user_timeout
    if limit is None:
        return None
    # The tail loss probe comes after about as long, and doubles the first step.
    rto = max(reading.rto or 0.0, FIRST_RETRANSMISSION_S / 2)
    if not limit and retries2 == DEFAULT_RETRIES2 and rto == FIRST_RETRANSMISSION_S / 2:
        return RETRIES2_DEFAULT_S  # measured; the steps' lateness adds up over so many
    system = Linux(tcp_retries2=retries2)
    return system.retransmissions(rto, tail_loss_probe=rto, user_timeout=limit).abort_at


def idle_death_at_least_s(reading: KeepaliveReading) -> float:
    """What an armed timer alone proves: its probe, and one interval."""
    return (reading.next_probe_in or 0.0) + SHORTEST_INTERVAL_S


def _longest_gap_s(settings: Keepalive) -> float:
    """Between two segments of an idle connection whose peer answers."""
    return Linux().latest(max(settings.idle, settings.interval))


# --- the evidence -------------------------------------------------------------------------


def _numbers(settings: Keepalive) -> Found:
    return {
        "idle": f"{settings.idle}",
        "interval": f"{settings.interval}",
        "probes": f"{settings.probes}",
        "user_timeout": f"{settings.user_timeout:g}",
    }


def _three(settings: Keepalive) -> tuple[int, int, int]:
    return settings.idle, settings.interval, settings.probes


def _off_though_set(reading: KeepaliveReading, promise: Promise) -> Found | None:
    if reading.enabled is not False or not (reading.complete and promise.concerns_idle):
        return None
    settings = reading.settings
    return None if _three(settings) == _three(promise.defaults) else _numbers(settings)


def _off(reading: KeepaliveReading, promise: Promise) -> Found | None:
    if reading.enabled is not False or not promise.concerns_idle:
        return None
    return None if _off_though_set(reading, promise) else {}


def _idle_too_slow(reading: KeepaliveReading, promise: Promise) -> Found | None:
    if promise.within is None or not reading.complete or not reading.enabled:
        return None
    settings = reading.settings
    window = window_of(settings)
    if window.latest <= promise.within:
        return None
    cure = (
        {}
        if not settings.user_timeout
        else {"set_keepalive": f"{set_keepalive(promise)}, {set_user_timeout(promise)}"}
    )
    return {
        **cure,
        "how": "the system's defaults" if _three(settings) == _three(promise.defaults) else "these",
        "nominal": duration(window.nominal),
        "latest": duration(window.latest),
        "within": duration(promise.within),
    }


def _idle_too_slow_at_least(reading: KeepaliveReading, promise: Promise) -> Found | None:
    if promise.within is None or reading.complete or reading.next_probe_in is None:
        return None
    least = idle_death_at_least_s(reading)
    if least <= promise.within:
        return None
    return {
        "due": duration(reading.next_probe_in),
        "least": duration(least),
        "within": duration(promise.within),
    }


def _writes_unbounded(reading: KeepaliveReading, promise: Promise) -> Found | None:
    limit = write_death_s(reading, promise.retries2)
    if promise.writes_within is None or limit is None or reading.user_timeout:
        return None
    if limit <= promise.writes_within:
        return None
    return {"limit": duration(limit), "retries2": f"{promise.retries2}"}


def _writes_too_slow(reading: KeepaliveReading, promise: Promise) -> Found | None:
    limit = write_death_s(reading, promise.retries2)
    if promise.writes_within is None or limit is None or not reading.user_timeout:
        return None
    if latest_s(limit) <= promise.writes_within:
        return None
    return {
        "user_timeout": f"{reading.user_timeout:g}",
        "limit": duration(limit),
        "latest": duration(latest_s(limit)),
        "within": duration(promise.writes_within),
    }


def _box_counts_bytes(reading: KeepaliveReading, promise: Promise) -> Found | None:
    if promise.behind is None or not promise.behind.proxy:
        return None
    return {"box": promise.behind.name}


def _box_forgets(reading: KeepaliveReading, promise: Promise) -> Found | None:
    if promise.behind is None or not reading.complete or not reading.enabled:
        return None
    settings = reading.settings
    gap = _longest_gap_s(settings)
    if gap < promise.behind.idle_timeout or _box_counts_bytes(reading, promise):
        return None
    return {
        "gap": duration(max(settings.idle, settings.interval)),
        "latest": duration(gap),
        "box": promise.behind.name,
        "memory": duration(promise.behind.idle_timeout),
    }


def _box_forgets_at_least(reading: KeepaliveReading, promise: Promise) -> Found | None:
    if promise.behind is None or reading.complete or reading.next_probe_in is None:
        return None
    if reading.next_probe_in < promise.behind.idle_timeout:
        return None
    return {
        "due": duration(reading.next_probe_in),
        "box": promise.behind.name,
        "memory": duration(promise.behind.idle_timeout),
    }


def _half_set(reading: KeepaliveReading, promise: Promise) -> Found | None:
    if not reading.complete or not reading.enabled:
        return None
    settings = reading.settings
    if settings.idle != promise.defaults.idle or _three(settings) == _three(promise.defaults):
        return None
    return _numbers(settings)


def _user_timeout_below_idle(reading: KeepaliveReading, promise: Promise) -> Found | None:
    if not reading.complete or not reading.enabled:
        return None
    settings = reading.settings
    return _numbers(settings) if 0 < settings.user_timeout < settings.idle else None


def _count_replaced(reading: KeepaliveReading, promise: Promise) -> Found | None:
    if not reading.complete or not reading.enabled:
        return None
    settings = reading.settings
    count = unanswered_probes(settings)
    # A shorter one is a choice that many make for the sake of writes.
    if count <= settings.probes:
        return None
    return {**_numbers(settings), "count": f"{count}"}


def _interval_above_idle(reading: KeepaliveReading, promise: Promise) -> Found | None:
    if not reading.complete or not reading.enabled:
        return None
    settings = reading.settings
    return _numbers(settings) if settings.interval > settings.idle else None


# --- the table ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """One row. ``why`` and ``cure`` are filled with what ``find`` returns, and with
    ``set_keepalive`` and ``set_user_timeout``: settings that keep the promise."""

    name: str
    fails: bool
    find: Callable[[KeepaliveReading, Promise], Found | None]
    why: str
    cure: str


RULES = (
    Rule(
        "off_though_set",
        True,
        _off_though_set,
        "SO_KEEPALIVE is off, so TCP_KEEPIDLE={idle}, TCP_KEEPINTVL={interval} and "
        "TCP_KEEPCNT={probes} have no effect: an idle connection is never found dead",
        "set SO_KEEPALIVE too, with {set_keepalive}",
    ),
    Rule(
        "off",
        True,
        _off,
        "SO_KEEPALIVE is off: an idle connection is never found dead, nor kept alive",
        "set SO_KEEPALIVE, with {set_keepalive}",
    ),
    Rule(
        "idle_too_slow",
        True,
        _idle_too_slow,
        "with {how} an idle death is noticed after {nominal}, and after up to {latest} as the "
        "kernel's timers are late; {within} is promised",
        "set {set_keepalive}",
    ),
    Rule(
        "idle_too_slow_at_least",
        True,
        _idle_too_slow_at_least,
        "the next keepalive probe is due in {due}, so an idle death is noticed after {least} at "
        "the soonest; {within} is promised",
        "set {set_keepalive}",
    ),
    Rule(
        "writes_unbounded",
        True,
        _writes_unbounded,
        "TCP_USER_TIMEOUT is off: data that nobody acknowledges is repeated for {limit} "
        "(tcp_retries2 = {retries2}), and keepalive does not run meanwhile",
        "set {set_user_timeout}",
    ),
    Rule(
        "writes_too_slow",
        True,
        _writes_too_slow,
        "with TCP_USER_TIMEOUT at {user_timeout} s a death with unacknowledged data is noticed "
        "after {limit}, and after up to {latest} as the kernel's timers are late; {within} is "
        "promised",
        "set {set_user_timeout}",
    ),
    Rule(
        "box_counts_bytes",
        True,
        _box_counts_bytes,
        "{box} ends TCP itself and counts the application's bytes: no keepalive probe keeps a "
        "connection through it alive",
        "give the client an application heartbeat",
    ),
    Rule(
        "box_forgets",
        True,
        _box_forgets,
        "an idle connection carries a probe each {gap}, up to {latest} as the kernel's timers are "
        "late, and {box} forgets it after {memory}",
        "set {set_keepalive}",
    ),
    Rule(
        "box_forgets_at_least",
        True,
        _box_forgets_at_least,
        "the next keepalive probe is due in {due}, and {box} forgets an idle connection after "
        "{memory}",
        "set {set_keepalive}",
    ),
    Rule(
        "half_set",
        False,
        _half_set,
        "TCP_KEEPIDLE is the system's {idle} s, though TCP_KEEPINTVL={interval} and "
        "TCP_KEEPCNT={probes} are not the system's: so ends a client that asks for less than a "
        "second, which becomes 0, which the kernel refuses",
        "set TCP_KEEPIDLE to a whole number of seconds, and look at what setsockopt returns",
    ),
    Rule(
        "user_timeout_below_idle",
        False,
        _user_timeout_below_idle,
        "TCP_USER_TIMEOUT ({user_timeout} s) is shorter than TCP_KEEPIDLE ({idle} s): it takes the "
        "place of TCP_KEEPCNT={probes}, and one lost probe ends a healthy connection",
        "set TCP_USER_TIMEOUT to TCP_KEEPIDLE + TCP_KEEPINTVL * TCP_KEEPCNT",
    ),
    Rule(
        "count_replaced",
        False,
        _count_replaced,
        "TCP_USER_TIMEOUT ({user_timeout} s) takes the place of TCP_KEEPCNT={probes}: the kernel "
        "gives up after {count} unanswered, which is later",
        "set TCP_USER_TIMEOUT to TCP_KEEPIDLE + TCP_KEEPINTVL * TCP_KEEPCNT",
    ),
    Rule(
        "interval_above_idle",
        False,
        _interval_above_idle,
        "TCP_KEEPINTVL ({interval} s) is longer than TCP_KEEPIDLE ({idle} s): once a probe has "
        "been answered, the next comes after the interval and not after the idle time",
        "set TCP_KEEPINTVL to no more than TCP_KEEPIDLE",
    ),
)
