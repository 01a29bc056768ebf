"""The fastest settings that end a connection by the same rule as given ones.

Owns the choice of numbers for fast-forwarding a live socket. What the rules are is
:mod:`.windows`'.
"""

from __future__ import annotations

from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.windows import unanswered_probes

# Two probes, so that the interval plays its part; more only take longer.
FEW_PROBES = 2


def fastest(settings: Keepalive, probes: int | None = FEW_PROBES) -> Keepalive:
    """Idle time and interval of 1 s, which is the least that Linux takes.

    Where ``TCP_USER_TIMEOUT`` decides, it goes on deciding: it is set half a second before
    the last probe's tick, at which the kernel looks at it. Where the probe count decides, no
    user timeout is set.

    :param probes: the most that go unanswered; ``None`` for as many as the settings have,
        which takes a second for each.
    """
    count = unanswered_probes(settings)
    if probes is not None:
        count = min(count, probes)
    if not settings.user_timeout:
        return Keepalive(1, 1, count, enabled=settings.enabled)
    user_timeout = min(settings.user_timeout, count + 0.5)
    return Keepalive(1, 1, settings.probes, user_timeout, enabled=settings.enabled)
