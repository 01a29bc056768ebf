"""Code of this process on a host of the lab: its sockets are made there.

Owns the one place where Python makes sockets, ``socket.socket.__init__``, while somebody is
inside. A socket belongs to the namespace in which it was made, whoever uses it, so this
needs no privilege and moves no thread.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

# Makes the descriptor of a socket: family, type, protocol.
Maker = Callable[[int, int, int], int]

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_maker: ContextVar[Maker | None] = ContextVar("pytest_tcpresilience_lab_host", default=None)
_lock = threading.Lock()
_inside = 0
_original = socket.socket.__init__


def _init(
    self: socket.socket, family: int = -1, type: int = -1, proto: int = -1, fileno: Any = None
) -> None:
    maker = _maker.get()
    kind = socket.AF_INET if family == -1 else family
    if maker is None or fileno is not None or kind not in _FAMILIES:
        _original(self, family, type, proto, fileno)
        return
    fd = maker(int(kind), socket.SOCK_STREAM if type == -1 else int(type), max(proto, 0))
    _original(self, fileno=fd)
    if timeout := socket.getdefaulttimeout():
        self.settimeout(timeout)


@contextlib.contextmanager
def inside(maker: Maker) -> Iterator[None]:
    """In this block, this thread's (or task's) internet sockets come from ``maker``."""
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            socket.socket.__init__ = _init  # type: ignore[method-assign]
    token = _maker.set(maker)
    try:
        yield
    finally:
        _maker.reset(token)
        with _lock:
            _inside -= 1
            if not _inside:
                socket.socket.__init__ = _original  # type: ignore[method-assign]
