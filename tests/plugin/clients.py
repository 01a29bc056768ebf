"""A client of the recording server, as a library would be: lines out, lines in."""

from __future__ import annotations

import socket

from pytest_tcpresilience import Link


class LineClient:
    """Connects when it is used, and gives its connection up when something is wrong with it.

    :param settings: timeout of reads and connects, in seconds.
    """

    def __init__(self, link: Link, *, timeout: float | None = None) -> None:
        self._link = link
        self._timeout = timeout
        self.sock: socket.socket | None = None

    def connect(self) -> socket.socket:
        self.sock = socket.create_connection((self._link.host, self._link.port), self._timeout)
        return self.sock

    def send(self, line: bytes) -> None:
        sock = self.sock or self.connect()
        sock.sendall(line + b"\n")

    def read(self) -> bytes:
        assert self.sock is not None
        data = b""
        while not data.endswith(b"\n"):
            more = self.sock.recv(1)
            if not more:
                raise EOFError("the server hung up")
            data += more
        return data[:-1]

    def ask(self, line: bytes) -> bytes:
        try:
            self.send(line)
            return self.read()
        except (OSError, EOFError):
            self.close()
            raise

    def ask_until_answered(self, line: bytes) -> bytes:
        while True:
            try:
                return self.ask(line)
            except (OSError, EOFError):
                pass

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None
