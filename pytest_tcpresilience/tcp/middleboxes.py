"""Middleboxes that forget: firewalls, NATs and load balancers, as data.

Owns what is known of a box that carries flows: for how long it remembers one that is
idle, and what it does to the next segment of a flow that it has forgotten. It carries
nothing out: on a link the engine does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pytest_tcpresilience.errors import UsageError

# What becomes of a flow that was forgotten; each is a mode of ``link.evict``.
EVICTION_MODES = ("reset", "drop", "drop_inbound", "reset_both", "fin")


@dataclass(frozen=True)
class Middlebox:
    """A box that forgets a flow which has carried no segment for ``idle_timeout``.

    Keepalive probes and their answers are segments: they keep a flow alive.

    :param idle_timeout: seconds, at least 0.001.
    :param then: what becomes of a forgotten flow, one of :data:`EVICTION_MODES`, as for
        ``link.evict``.
    :param name: how reports call it.
    :raises UsageError: for a timeout that is no time, or another ``then``.
    """

    idle_timeout: float
    then: str = "drop"
    name: str = "middlebox"

    def __post_init__(self) -> None:
        number: object = self.idle_timeout
        if (
            isinstance(number, bool)
            or not isinstance(number, (int, float))
            or not math.isfinite(number)
            or number < 0.001
        ):
            raise UsageError(
                f"Middlebox: idle_timeout={number!r} is no time",
                expected="idle_timeout in seconds, at least 0.001",
                happened=f"got {number!r}",
                advice="give the seconds after which the box forgets an idle flow",
            )
        if self.then not in EVICTION_MODES:
            known = ", ".join(f'"{mode}"' for mode in EVICTION_MODES)
            raise UsageError(
                f"Middlebox: then={self.then!r} is none of the choices",
                expected=f"then= one of {known}",
                happened=f"got {self.then!r}",
                advice="pass one of them, as a string",
            )

    def __str__(self) -> str:
        return f"{self.name} (forgets after {self.idle_timeout:g} s, then {self.then})"
