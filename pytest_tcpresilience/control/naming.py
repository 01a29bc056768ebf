"""Names of our proxies on a Toxiproxy server that we share with others.

Pure. Owns what a name says: which machine and which process made the proxy, and when. So
names of several runs, workers and users cannot clash, what a killed run left behind is
recognised, and nobody else's proxy is ever taken for ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

# A run on another machine cannot be asked whether it lives. None takes as long as this.
STALE_S = 24 * 3600

_FORM = re.compile(
    r"tcpresilience-(?P<machine>[0-9a-f]{8})-(?P<pid>\d{1,9})-(?P<started>\d{1,20})"
    r"-(?P<made>\d{1,12})-(?P<rest>.+)"
)


@dataclass(frozen=True)
class Maker:
    """A process that makes proxies.

    :param machine: eight hexadecimal digits, the same for all processes that can see each
        other's numbers.
    :param pid: its number there.
    :param started: when it began, in the kernel's ticks, since numbers are used again.
    """

    machine: str
    pid: int
    started: int

    def name(self, made: float, rest: str) -> str:
        """The name of a proxy.

        :param made: seconds since the epoch.
        :param rest: unique within the process.
        """
        return f"tcpresilience-{self.machine}-{self.pid}-{self.started}-{int(made)}-{rest}"


def is_leftover(name: str, machine: str, now: float, started: Callable[[int], int | None]) -> bool:
    """Whether a proxy is one of ours whose maker has ended.

    :param machine: the one that asks.
    :param now: seconds since the epoch.
    :param started: when a process of this machine began; ``None`` when there is none.
    """
    found = _FORM.fullmatch(name)
    if found is None:
        return False
    if found["machine"] != machine:
        return now - int(found["made"]) > STALE_S
    return started(int(found["pid"])) != int(found["started"])
