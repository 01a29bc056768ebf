"""Settings that keep a promise: the way back from a time limit to socket options.

Owns the choice of numbers for advice. What settings take how long is :mod:`.windows`'.
"""

from __future__ import annotations

import math

from pytest_tcpresilience.tcp.keepalive import MAX_IDLE_S, Keepalive
from pytest_tcpresilience.tcp.windows import (
    FIRST_RETRANSMISSION_S,
    SCHEDULING_S,
    WHEEL_FLOOR_S,
    WHEEL_SHARE,
    idle_window,
)

FASTEST = Keepalive(idle=1, interval=1, probes=1)
# One lost probe must not kill a healthy connection where there is time for more.
PROBES = (3, 2, 1)


def keepalive_for(limit_s: float) -> Keepalive | None:
    """Settings that find an idle connection dead within ``limit_s`` seconds.

    Idle time and interval are equal, and as long as the limit allows: probes cost traffic.

    :returns: ``None`` when no setting is as fast, for the kernel counts in whole seconds.
    """
    nominal = _nominal(limit_s)
    for probes in PROBES:
        # One more than the arithmetic says, for its last digit may be wrong.
        unit = min(int(nominal / (probes + 1)) + 1, MAX_IDLE_S)
        while unit >= 1:
            fit = Keepalive(idle=unit, interval=unit, probes=probes)
            if idle_window(fit).latest <= limit_s:
                return fit
            unit -= 1
    return None


def _nominal(limit_s: float) -> float:
    """The nominal time of a window that ends at ``limit_s``."""
    return (limit_s - WHEEL_FLOOR_S - SCHEDULING_S) / (1 + WHEEL_SHARE)


def user_timeout_for(limit_s: float) -> float | None:
    """``TCP_USER_TIMEOUT``, in seconds, that ends unacknowledged data within ``limit_s``.

    :returns: ``None`` when the first retransmission alone takes as long.
    """
    tenths = math.floor((_nominal(limit_s) - FIRST_RETRANSMISSION_S) * 10 + 1e-6)
    return tenths / 10 if tenths >= 1 else None
