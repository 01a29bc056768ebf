"""Settings that keep a promise: what advice names.

Owns the choice of numbers where several promises meet. What a promise is, and when it is
broken, is :mod:`.promises`'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tcpresilience.tcp.fitting import keepalive_for, user_timeout_for
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.stacks import Linux
from pytest_tcpresilience.tcp.windows import FIRST_RETRANSMISSION_S, SCHEDULING_S

if TYPE_CHECKING:
    from pytest_tcpresilience.evidence.promises import Promise

# For advice: where no time is promised, and where a long one is. A probe each five minutes
# costs nobody anything.
DEFAULT_LIMIT_S = 60.0
LONGEST_LIMIT_S = 1200.0


def latest_s(nominal: float) -> float:
    """When somebody who waits for a timer of so many seconds is awake at the latest."""
    return Linux().latest(nominal) + SCHEDULING_S


def suitable(promise: Promise) -> Keepalive | None:
    """Settings that keep the promise for an idle connection, where any can.

    With a user timeout of :func:`whole_s` they keep all of it.
    """
    limits = [] if promise.within is None else [min(promise.within, LONGEST_LIMIT_S)]
    if promise.writes_within is not None:
        # Its clock starts late, and its tick is as late as the timer wheel makes it.
        limit = promise.writes_within - latest_s(FIRST_RETRANSMISSION_S)
        limits.append(min(limit, LONGEST_LIMIT_S))
    if promise.behind is not None:
        # Half the time that the box remembers: one lost probe must not lose the flow. With
        # three probes that is an idle time of a quarter of this limit.
        limits.append(min(promise.behind.idle_timeout * 2, LONGEST_LIMIT_S))
    return keepalive_for(min(limits, default=DEFAULT_LIMIT_S))


def whole_s(settings: Keepalive) -> int:
    """The user timeout with which the kernel waits for as many probes as without."""
    return settings.idle + settings.interval * settings.probes


def set_keepalive(promise: Promise) -> str:
    fit = suitable(promise)
    if fit is None:
        return "TCP_KEEPIDLE=1, TCP_KEEPINTVL=1, TCP_KEEPCNT=1, and promise no less than 2.5 s"
    return f"TCP_KEEPIDLE={fit.idle}, TCP_KEEPINTVL={fit.interval}, TCP_KEEPCNT={fit.probes}"


def set_user_timeout(promise: Promise) -> str:
    fit = suitable(promise) if promise.concerns_idle else None
    if fit is not None:
        return f"TCP_USER_TIMEOUT={whole_s(fit) * 1000} (milliseconds)"
    limit = user_timeout_for(promise.writes_within) if promise.writes_within else None
    if limit is None:
        return "a timeout of the client's own: no TCP_USER_TIMEOUT is as fast as that"
    return f"TCP_USER_TIMEOUT={round(limit * 1000)} (milliseconds)"
