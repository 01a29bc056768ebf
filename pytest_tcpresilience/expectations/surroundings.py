"""What an expectation needs of the world around its block, for real links and virtual ones.

Owns the choice between real time, where threads watch over a block, and virtual time, where
the network does. What is asked of the block, and the decision, are the same in both.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_tcpresilience.expectations.interrupt import Interrupter, for_block
from pytest_tcpresilience.expectations.lifeguard import Lifeguard
from pytest_tcpresilience.expectations.monitor import Monitor
from pytest_tcpresilience.link import Link

if TYPE_CHECKING:
    from pytest_tcpresilience.virtual.link import VirtualLink

    AnyLink: TypeAlias = Link | VirtualLink


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return True


@dataclass(frozen=True)
class Surroundings:
    """One row for each kind of time.

    :param interrupter: how a block that begins in that frame is ended by force.
    :param lifeguard: what sees to it that it ends. :param monitor: what watches its health.
    :param pause: let so many seconds pass in a plain function, if that is possible at all.
    """

    interrupter: Callable[[Any], Interrupter]
    lifeguard: Callable[..., Any]
    monitor: Callable[[Any], Any]
    pause: Callable[[float], bool]


REAL = Surroundings(for_block, Lifeguard, Monitor, _sleep)


def surroundings_of(link: object) -> Surroundings | None:
    """By the kind of the link; ``None`` for what is no link."""
    if isinstance(link, Link):
        return REAL
    # Whoever has a virtual link has imported the room that makes them, and trio with it.
    room = sys.modules.get("pytest_tcpresilience.virtual.link")
    if room is None or not isinstance(link, room.VirtualLink):
        return None
    from pytest_tcpresilience.expectations import virtual_time

    return virtual_time.VIRTUAL
