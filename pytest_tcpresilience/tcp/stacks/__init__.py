"""TCP stacks as data: when each probes, repeats and gives up, from its native tunables.

``Linux()`` is a Linux with its defaults, ``AIX(tcp_keepidle=240)`` an AIX whose keepalive
idle time is 240 half-seconds. All share :class:`Stack`; nothing here opens a socket.
"""

from __future__ import annotations

from pytest_tcpresilience.tcp.provenance import unknown_name
from pytest_tcpresilience.tcp.stacks.base import FACTS, Schedule, Stack, Tunable
from pytest_tcpresilience.tcp.stacks.bsd import FreeBSD, MacOS, NetBSD, OpenBSD
from pytest_tcpresilience.tcp.stacks.common import Linux, Textbook, Windows, WindowsRegistry
from pytest_tcpresilience.tcp.stacks.unix import AIX, HPUX, Solaris

PROFILES: tuple[type[Stack], ...] = (
    Linux,
    AIX,
    FreeBSD,
    NetBSD,
    OpenBSD,
    MacOS,
    Windows,
    WindowsRegistry,
    Solaris,
    HPUX,
    Textbook,
)
STACKS: dict[str, type[Stack]] = {profile.key: profile for profile in PROFILES}


def stack_named(name: str) -> Stack:
    """The stack of that name with its defaults: ``"linux"``, ``"aix"``, ``"windows"``, ...

    :raises UsageError: for another name, with the nearest that there is.
    """
    key = name.lower() if isinstance(name, str) else name
    if not isinstance(key, str) or key not in STACKS:
        raise unknown_name("stack", name, STACKS)
    return STACKS[key]()


__all__ = [
    "AIX",
    "FACTS",
    "HPUX",
    "PROFILES",
    "STACKS",
    "FreeBSD",
    "Linux",
    "MacOS",
    "NetBSD",
    "OpenBSD",
    "Schedule",
    "Solaris",
    "Stack",
    "Textbook",
    "Tunable",
    "Windows",
    "WindowsRegistry",
    "stack_named",
]
