"""Socket options: which there are, on which stack, and what they do.

Owns the table. An option that a stack does not have is refused with ENOPROTOOPT, as its
kernel would.
"""

from __future__ import annotations

import errno
import socket as stdlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pytest_tcpresilience.tcp import keepalive
from pytest_tcpresilience.tcp.stacks import Linux
from pytest_tcpresilience.virtual.buffers import MSS, RECEIVE_BYTES, SEND_BYTES
from pytest_tcpresilience.virtual.host import Host, os_error
from pytest_tcpresilience.virtual.timers import Options, own_count

# uapi/linux/tcp.h, where Python has no name for it.
_SYNCNT = getattr(stdlib, "TCP_SYNCNT", 7)
_USER_TIMEOUT = keepalive.TCP_USER_TIMEOUT or 18
_MOST_SYN_RETRIES = 127
_TCP, _SOCKET = stdlib.IPPROTO_TCP, stdlib.SOL_SOCKET


@dataclass(frozen=True)
class Number:
    """An option that changes a timer.

    :param field: of :class:`.Options`. :param most: beyond it, EINVAL.
    :param scale: what one is worth, in the field's unit.
    :param system: what is in force where an application has set nothing.
    """

    name: str
    field: str
    least: int
    most: int
    system: Callable[[Host], float]
    scale: float = 1


NUMBERS: dict[tuple[int, int], Number] = {
    (_SOCKET, stdlib.SO_KEEPALIVE): Number("SO_KEEPALIVE", "keepalive", 0, 2**31 - 1, lambda _: 0),
    (_TCP, keepalive.TCP_KEEPIDLE): Number(
        "TCP_KEEPIDLE", "idle", 1, keepalive.MAX_IDLE_S, lambda host: host.stack.idle
    ),
    (_TCP, keepalive.TCP_KEEPINTVL): Number(
        "TCP_KEEPINTVL", "interval", 1, keepalive.MAX_INTERVAL_S, lambda host: host.stack.interval
    ),
    (_TCP, keepalive.TCP_KEEPCNT): Number(
        "TCP_KEEPCNT", "probes", 1, keepalive.MAX_PROBES, lambda host: own_count(host.stack)
    ),
    (_TCP, _USER_TIMEOUT): Number(
        "TCP_USER_TIMEOUT", "user_timeout", 0, 2**31 - 1, lambda _: 0, scale=0.001
    ),
    (_TCP, _SYNCNT): Number(
        "TCP_SYNCNT",
        "syn_count",
        1,
        _MOST_SYN_RETRIES,
        lambda host: getattr(host.stack, "tcp_syn_retries", 0),
    ),
}
# What is taken, given back, and changes nothing here: there is no Nagle, no delayed ACK and
# no TIME_WAIT that would keep a port.
IGNORED: dict[tuple[int, int], int] = {
    (_TCP, stdlib.TCP_NODELAY): 0,
    (_SOCKET, stdlib.SO_REUSEADDR): 0,
    (_SOCKET, getattr(stdlib, "SO_REUSEPORT", 15)): 0,
    (_SOCKET, stdlib.SO_RCVBUF): RECEIVE_BYTES,
    (_SOCKET, stdlib.SO_SNDBUF): SEND_BYTES,
    (_TCP, getattr(stdlib, "TCP_NOTSENT_LOWAT", 25)): 0,
    (_TCP, getattr(stdlib, "TCP_QUICKACK", 12)): 1,
}
FIXED: dict[tuple[int, int], int] = {
    (_SOCKET, stdlib.SO_TYPE): stdlib.SOCK_STREAM,
    (_TCP, stdlib.TCP_MAXSEG): MSS,
}
LINGER = (_SOCKET, stdlib.SO_LINGER)


class OptionTable:
    """The options of one socket."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._ignored = dict(IGNORED)

    def _number(self, key: tuple[int, int]) -> Number:
        number = NUMBERS.get(key)
        stack = self._host.stack
        offered = stack.offered | ({"TCP_SYNCNT"} if isinstance(stack, Linux) else set())
        if number is None or number.name not in offered:
            what = f"option {key[1]} of level {key[0]}" if number is None else number.name
            raise os_error(errno.ENOPROTOOPT, f"{stack} on {self._host.name} has no {what}")
        return number

    def get(self, options: Options, level: int, name: int) -> Any:
        """:raises OSError: ENOPROTOOPT."""
        key = level, name
        if key == LINGER:
            return struct.pack("ii", options.linger is not None, options.linger or 0)
        if key in FIXED or key in self._ignored:
            return FIXED.get(key, self._ignored.get(key))
        number = self._number(key)
        value = getattr(options, number.field)
        return round(number.system(self._host) if value is None else value / number.scale)

    def set(self, options: Options, level: int, name: int, value: Any) -> None:
        """:raises OSError: ENOPROTOOPT, or EINVAL for a number that the kernel refuses."""
        key = level, name
        if key == LINGER:
            on, seconds = struct.unpack("ii", value)
            options.linger = seconds if on else None
            return
        if isinstance(value, (bytes, bytearray)):
            (value,) = struct.unpack("i", value)
        if key in self._ignored:
            self._ignored[key] = int(value)
            return
        number = self._number(key)
        if not number.least <= int(value) <= number.most:
            raise os_error(errno.EINVAL, f"{number.name} {value}")
        scaled = int(value) * number.scale
        is_switch = number.field == "keepalive"
        setattr(options, number.field, bool(scaled) if is_switch else scaled)
