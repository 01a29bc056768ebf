"""The engine's process: one that this process started, or another one's.

Owns how it is started, how its life is followed, and its last words. What is said to it
over HTTP is :mod:`.engine`'s.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

from pytest_tcpresilience.errors import HarnessError

POSIX = os.name == "posix"
LAST_WORDS_BYTES = 4000
# An engine that was told to end has nothing to finish; this is for a loaded machine.
STOP_TIMEOUT_S = 5.0
# Whoever started an engine writes this after its last words, with how it ended.
EPITAPH = "tcpresilience: engine process"

# "-m" would put the working directory first on the module path, where a project's own
# http.py or trio.py would take the place of the real ones.
_BOOT = (
    "import sys; sys.path[:] = [p for p in sys.path if p] + [sys.argv[1]];"
    "from pytest_tcpresilience.engine.__main__ import main; main()"
)


class EngineProcess(Protocol):
    """What an engine's handle asks of the process behind it."""

    @property
    def pid(self) -> int: ...

    @property
    def alive(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> None:
        """:raises subprocess.TimeoutExpired: when it has not ended by then."""
        ...

    def ending(self) -> str:
        """How it ended, as the end of a sentence."""
        ...

    def last_words(self) -> str:
        """The end of what it wrote to its standard error."""
        ...

    def stop(self, on_end: Callable[[], None]) -> None:
        """End it, or leave it to its owner; ``on_end`` runs before what is kept closes."""
        ...


def listen() -> socket.socket:
    """A listening socket for an engine's API.

    :raises HarnessError: on a machine without loopback.
    """
    listener: socket.socket | None = None
    try:
        listener = socket.create_server(("127.0.0.1", 0))
        # Where the interface is down, binding works and only connecting fails.
        socket.create_connection(listener.getsockname(), timeout=1.0).close()
        listener.accept()[0].close()
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        raise HarnessError(
            "the engine cannot start: no loopback",
            expected="a listening socket on 127.0.0.1",
            happened=str(error),
            advice="bring the loopback interface up (ip link set lo up), or allow "
            "sockets where a plugin or sandbox forbids them",
        ) from error


def _how(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"


def _tail(descriptor: int) -> str:
    start = max(os.fstat(descriptor).st_size - LAST_WORDS_BYTES, 0)
    return os.pread(descriptor, LAST_WORDS_BYTES, start).decode(errors="replace")


class OwnProcess:
    """A process of this one, which ends with it.

    :param listener: of the API; it stays the caller's.
    :raises HarnessError: when it cannot be started.
    """

    def __init__(self, listener: socket.socket, secret: str, seed: int | None) -> None:
        if not POSIX:
            raise HarnessError(
                "the engine cannot start: it needs a POSIX system",
                expected="Linux, or a system that hands listening sockets to a new process",
                happened=f"this is {sys.platform}",
                advice="run these tests on Linux; WSL2 will do",
            )
        self._kept_words: str | None = None
        self._words = self._keep_words()
        try:
            self._process = self._spawn(listener)
        except BaseException:
            self._words.close()
            raise
        settings = {
            "fd": listener.fileno(),
            "secret": secret,
            "parent": os.getpid(),
            "seed": seed,
        }
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended at once; the first call says so
            self._process.stdin.write(json.dumps(settings).encode() + b"\n")
            self._process.stdin.flush()

    @staticmethod
    def _keep_words() -> IO[bytes]:
        try:
            return tempfile.TemporaryFile()  # read after the engine's end
        except OSError as error:
            raise HarnessError(
                "the engine cannot start: no temporary file",
                expected="a place for what the engine writes to its standard error",
                happened=str(error),
                advice="free some disk space, or let TMPDIR name a directory that is writable",
            ) from error

    def _spawn(self, listener: socket.socket) -> subprocess.Popen[bytes]:
        home = str(Path(__file__).resolve().parents[2])
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"}
        try:
            return subprocess.Popen(
                [sys.executable, "-c", _BOOT, home],
                stdin=subprocess.PIPE,
                stdout=self._words,
                stderr=self._words,
                pass_fds=[listener.fileno()],
                env=environment,
                # The terminal's Ctrl-C goes to a whole process group.
                start_new_session=True,
            )
        except OSError as error:
            raise HarnessError(
                "the engine cannot start: no subprocess",
                expected=f"a process of {sys.executable}",
                happened=str(error),
                advice="the embedded engine is a Python process of its own; allow "
                "subprocesses, or raise the limit on processes",
            ) from error

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        if self._process.poll() is not None:
            return False
        if sys.platform != "linux":
            return True
        # While another thread waits, poll() knows nothing. This looks without reaping.
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self.pid, flags) is None
        except ChildProcessError:
            return False  # the other thread has reaped it just now

    def wait(self, timeout: float | None = None) -> None:
        self._process.wait(timeout)

    def ending(self) -> str:
        return _how(self._process.wait(STOP_TIMEOUT_S))

    def last_words(self) -> str:
        return _tail(self._words.fileno()) if self._kept_words is None else self._kept_words

    def write_epitaph(self) -> None:
        """For those who share it and cannot ask the kernel how it ended."""
        os.write(self._words.fileno(), f"\n{EPITAPH} {self.pid} {self.ending()}\n".encode())

    def kill(self) -> None:
        self._process.kill()

    def stop(self, on_end: Callable[[], None] = lambda: None) -> None:
        """Does nothing the second time."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        on_end()
        if self._kept_words is None:
            self._kept_words = self.last_words()
            self._words.close()


class SharedProcess:
    """A process that another one started and ends. Linux only.

    :raises ProcessLookupError: when it has ended already.
    :raises OSError: where the kernel or a sandbox refuses the means to follow it.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._kept_words: str | None = None
        self._epitaph = ""
        self._pidfd = os.pidfd_open(pid)
        try:
            # What it writes to has no name, so this is the way to it.
            self._words = os.open(f"/proc/{pid}/fd/2", os.O_RDONLY | os.O_CLOEXEC)
            self._wake_read, self._wake_write = os.pipe()
        except OSError as error:
            os.close(self._pidfd)
            if not self._exists():
                raise ProcessLookupError(f"process {pid} has ended") from error
            raise
        self._lock = threading.Lock()
        self._stopped = False

    def _exists(self) -> bool:
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def alive(self) -> bool:
        with self._lock:
            return not self._stopped and not self._ended(0)

    def _ended(self, timeout_s: float | None) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        found = poll.poll(None if timeout_s is None else timeout_s * 1000)
        return any(descriptor == self._pidfd for descriptor, _ in found)

    def wait(self, timeout: float | None = None) -> None:
        """Returns early when this handle is stopped."""
        if not self._stopped and not self._ended(timeout) and timeout is not None:
            raise subprocess.TimeoutExpired(f"engine {self._pid}", timeout)

    def _words_now(self) -> str:
        return _tail(self._words) if self._kept_words is None else self._kept_words

    def ending(self) -> str:
        deadline = time.monotonic() + STOP_TIMEOUT_S
        mark = f"{EPITAPH} {self._pid} "
        while time.monotonic() < deadline:
            _, found, rest = self._words_now().rpartition(mark)
            if found and rest.endswith("\n"):
                return rest.strip()
            if self._stopped:
                break
            time.sleep(0.005)  # its owner has yet to learn of its end
        return "ended, and so did the process that had started it"

    def last_words(self) -> str:
        return self._words_now().partition(f"\n{EPITAPH} ")[0]

    def stop(self, on_end: Callable[[], None] = lambda: None) -> None:
        """Let go of it; it lives on. Does nothing the second time."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        os.write(self._wake_write, b".")
        on_end()
        self._kept_words = _tail(self._words)
        for descriptor in (self._pidfd, self._words, self._wake_read, self._wake_write):
            os.close(descriptor)
