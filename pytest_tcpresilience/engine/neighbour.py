"""A Toxiproxy server that this engine starts, and that ends with it.

Owns the process: one for all who share the engine, on a free port, ended with the engine
however that ends. What is said to it is its callers' business.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

import trio

from pytest_tcpresilience.engine.errors import ApiError
from pytest_tcpresilience.kernel import owners, procnet

START_S = 8.0
POLL_S = 0.005
END_S = 2.0
LAST_WORDS_BYTES = 2000
# Somebody else may take the port between our choice and the server's bind.
ATTEMPTS = 5

# PR_SET_PDEATHSIG (prctl(2)): the kernel ends the server when the engine is gone. Set by a
# small program in between, since only the process itself can ask for it.
_BOOT = (
    "import ctypes, os, signal, sys;"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL);"
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])"
)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _is_listening(pid: int, port: int) -> bool:
    """Whether it is this process that listens on the port, and not a stranger."""
    try:
        return bool(procnet.listening(port) & owners.of_process(pid))
    except OSError:  # it has ended
        return False


class Neighbour:
    """The server, once somebody has asked for it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._words: Any = None
        self._port = 0
        self._starting = trio.Lock()

    async def start(self, program: str) -> int:
        """The port on 127.0.0.1 where it answers. Started by the first call.

        :raises ApiError: 501 where it cannot be started.
        """
        async with self._starting:
            if self._process is None or self._process.poll() is not None:
                await self._start(program)
            return self._port

    async def _start(self, program: str) -> None:
        if sys.platform != "linux":
            raise ApiError("a Toxiproxy can be started on Linux only; start it yourself", 501)
        for _ in range(ATTEMPTS):
            self.end()
            self._port = _free_port()
            self._spawn(program)
            if await self._answers():
                return
            if "address already in use" not in self.last_words().lower():
                break
        words = self.last_words() or "(it said nothing)"
        raise ApiError(f"{program} did not start: {words}", 501)

    def _spawn(self, program: str) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - read after its end
        # From this thread, which lives as long as the engine: the kernel's promise is about
        # the thread that has started a process.
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", _BOOT, str(os.getpid())),
                *(program, "-host", "127.0.0.1", "-port", str(self._port)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._words,
            stderr=self._words,
        )

    async def _answers(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if _is_listening(self._process.pid, self._port):
                return True
            await trio.sleep(POLL_S)
        return False

    def last_words(self) -> str:
        """The end of what it wrote to its standard output and error."""
        if self._words is None:
            return ""
        descriptor = self._words.fileno()
        start = max(os.fstat(descriptor).st_size - LAST_WORDS_BYTES, 0)
        return os.pread(descriptor, LAST_WORDS_BYTES, start).decode(errors="replace").strip()

    def end(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._words is not None:
            self._words.close()
            self._words = None
