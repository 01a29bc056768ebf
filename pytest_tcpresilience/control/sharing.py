"""One engine for all workers of a pytest-xdist run.

Owns the address that a run's controller hands to its workers, and the engine behind it,
which is started when the first of them connects: a run without links starts nothing.
When an engine dies, the next one to connect has a new one started.
"""

from __future__ import annotations

import os
import secrets
import select
import sys
import threading
import time

from pytest_tcpresilience.control.engine import Invitation
from pytest_tcpresilience.control.process import OwnProcess, listen
from pytest_tcpresilience.errors import HarnessError

# An engine that ends within this time of its start, so many times in a row, will not live.
SHORT_LIFE_S = 1.0
MOST_SHORT_LIVES = 5


def can_share() -> bool:
    """Whether a process can follow the life of one that is not its child."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


class SharedEngine:
    """The controller's side. Its thread waits, and costs nothing.

    :raises HarnessError: on a machine without loopback.
    """

    def __init__(self) -> None:
        self._listener = listen()
        self._secret = secrets.token_urlsafe(24)
        self._wake_read, self._wake_write = os.pipe()
        self._process: OwnProcess | None = None
        self._stopping = False
        # Why there is no engine, for the end of the run.
        self.failure: str | None = None
        self._invitation = Invitation(int(self._listener.getsockname()[1]), self._secret)
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self._run, name="tcpresilience-shared-engine", daemon=True
        )
        self._thread.start()

    @property
    def invitation(self) -> Invitation:
        return self._invitation

    def _run(self) -> None:
        short_lives = 0
        while self._somebody_connects():
            begun = time.monotonic()
            process = self._start()
            if process is None:
                break
            process.wait()
            with self._lock:
                if self._stopping:
                    return
                process.write_epitaph()
            short_lives = short_lives + 1 if time.monotonic() - begun < SHORT_LIFE_S else 0
            if short_lives == MOST_SHORT_LIVES:
                self.failure = f"{process.ending()}; its last words:\n{process.last_words()}"
                break
        self._listener.close()  # workers are then refused, and say so

    def _somebody_connects(self) -> bool:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        poll.poll()
        return not self._stopping

    def _start(self) -> OwnProcess | None:
        with self._lock:
            if self._stopping:
                return None
            if self._process is not None:
                self._process.stop()
            try:
                self._process = OwnProcess(self._listener, self._secret, None)
            except HarnessError as error:
                self.failure = str(error)
                return None
            return self._process

    def stop(self) -> None:
        """End the engine, if there is one, and give the address up.

        Does nothing the second time.
        """
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            os.write(self._wake_write, b".")
            if self._process is not None:
                self._process.stop()
        self._thread.join()
        self._listener.close()
        for descriptor in (self._wake_read, self._wake_write):
            os.close(descriptor)
