"""The application's client: it waits for the messages of a feed."""

from __future__ import annotations

import os
import socket

# With this a dead server is noticed after 3 s; "off" is the change that nobody meant to make.
KEEPALIVE = os.environ.get("FEED_KEEPALIVE", "on") == "on"
# The last resort. A feed that is merely quiet ends after it, too.
READ_TIMEOUT_S = 5.0


class Feed:
    """One subscription, to be used as a context manager."""

    def __init__(self, host: str, port: int) -> None:
        self._sock = socket.create_connection((host, port), timeout=READ_TIMEOUT_S)
        if KEEPALIVE:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
        self._file = self._sock.makefile("rb")

    def next(self) -> bytes:
        """The next message. :raises OSError: when the feed is lost."""
        line = self._file.readline()
        if not line:
            raise ConnectionError("the server has closed the feed")
        return line.rstrip(b"\n")

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._file.close()
        self._sock.close()
