"""A handle on a running engine: what links and fixtures say to it.

Owns the calls, and what it means when there is no answer: an engine that died is named
as that. How its process came to be is :mod:`.process`'s.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_tcpresilience.control.calls import Calls, Unreachable
from pytest_tcpresilience.control.process import (
    EngineProcess,
    OwnProcess,
    SharedProcess,
    listen,
)
from pytest_tcpresilience.engine_choice import EMBEDDED
from pytest_tcpresilience.errors import EngineDied, HarnessError, ResilienceError
from pytest_tcpresilience.kernel import processes
from pytest_tcpresilience.kernel.sockdiag import Address

if TYPE_CHECKING:
    from toxiproxy import Toxiproxy

# The engine answers a long poll within 20 s.
POLL_S = 15.0
# Its sockets close a moment before a process is gone.
DEATH_S = 1.0


class CannotFollow(Exception):
    """The life of another process's engine cannot be followed from here."""


@dataclass(frozen=True)
class Invitation:
    """Where a run's shared engine is found, and what lets in."""

    port: int
    secret: str

    def to_json(self) -> dict[str, Any]:
        return {"port": self.port, "secret": self.secret}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Invitation:
        return cls(int(document["port"]), str(document["secret"]))


class Engine:
    """A running engine of this project, of this process's own or shared by a run.

    :param timeout_s: for its start, and for each call.
    :param seed: of what is random in it; drawn if not given.
    :param shared: the run's engine, which this process has not started. What this process
        makes there is not seen by others, and ends with this process.
    :raises HarnessError: when it cannot be started.
    :raises CannotFollow: when a shared one's end would not be noticed here.
    """

    def __init__(
        self, timeout_s: float, *, seed: int | None = None, shared: Invitation | None = None
    ) -> None:
        self._shared = shared is not None
        self._reported = False
        self._stopping = False
        self.timeout_s = timeout_s
        # The links that it carries: name to listening address.
        self.links: dict[str, Address] = {}
        self._process: EngineProcess | None = None
        self._calls: Calls | None = None
        self._mourner: threading.Thread | None = None
        try:
            if shared is None:
                self._start(seed)
            else:
                self._join(shared)
            self._mourner = threading.Thread(
                target=self._mourn, name="tcpresilience-engine", daemon=True
            )
            self._mourner.start()
            self.version = str(self.call("GET", "/version")["engine"])
            self.name = EMBEDDED
        except BaseException:
            self.stop()
            raise

    # --- process -------------------------------------------------------------------------

    def _start(self, seed: int | None) -> None:
        self._secret = secrets.token_urlsafe(24)
        self._user = "tcpresilience"
        with listen() as listener:
            self.port = int(listener.getsockname()[1])
            self._process = OwnProcess(listener, self._secret, seed)
        # The listener is the engine's alone now: if the engine ends before it
        # accepts, the first call is refused and does not wait.
        self._calls = self._open_calls()

    def _join(self, shared: Invitation) -> None:
        self._secret, self.port = shared.secret, shared.port
        self._user = f"pid-{os.getpid()}"
        self._calls = self._open_calls()
        try:
            # Whoever invited us starts it when we connect.
            pid = int(self._calls.call("GET", "/resilience/engine")["pid"])
            self._process = SharedProcess(pid)
        except (Unreachable, ProcessLookupError) as error:
            raise HarnessError(
                "the run's shared engine cannot be used",
                expected=f"an engine at 127.0.0.1:{self.port}, started by the run's controller",
                happened=str(error),
                advice="read the last lines of the run, where its controller says what became "
                "of the engine; run the test again",
            ) from error
        except OSError as error:
            raise CannotFollow(str(error)) from error

    def _open_calls(self) -> Calls:
        from base64 import b64encode

        credentials = b64encode(f"{self._user}:{self._secret}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}", "User-Agent": "tcpresilience"}
        return Calls("the engine", "127.0.0.1", self.port, headers, self.timeout_s)

    def _mourn(self) -> None:
        """Wait for the engine's end; if it was not ours, wake the clients of this process.

        A killed engine's sockets close. A client behind a cut cannot hear that.
        """
        assert self._process is not None
        self._process.wait()
        if not self._stopping:
            processes.shut_down_own(set(self.links.values()))

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def last_words(self) -> str:
        """The end of what the engine wrote to its standard error."""
        assert self._process is not None
        return self._process.last_words()

    def death(self) -> EngineDied:
        """The error that reports an engine's unexpected end."""
        assert self._process is not None
        self._reported = True
        how = self._process.ending()
        words = self.last_words().strip() or "(it said nothing)"
        return EngineDied(
            "the engine died; the client under test is not to blame",
            expected=f"engine process {self.pid} to live until the end of the session",
            happened=f"it {how}; its last words:\n{words}",
            advice="run the test again: the next link starts a new engine. Report it if the "
            "last words are a traceback",
        )

    @property
    def death_is_reported(self) -> bool:
        return self._reported

    def stop(self) -> None:
        """End the engine and everything that it carries; a shared one is left to its owner.

        Does nothing the second time.
        """
        self._stopping = True
        if self._process is not None:
            self._process.stop(self._forget_mourner)
        if self._calls is not None:
            self._calls.close()

    def _forget_mourner(self) -> None:
        if self._mourner is not None:
            self._mourner.join()

    # --- calls ---------------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        patience_s: float = 0.0,
    ) -> Any:
        """One request; the parsed answer.

        :param patience_s: how much longer than usual it may take.
        :raises UsageError: what the engine refuses as a bad request (400, 409).
        :raises FaultUnavailable: what this machine cannot do (501).
        :raises EngineDied: when the process is gone.
        :raises HarnessError: for everything else.
        """
        assert self._calls is not None
        self._refuse_successor()
        try:
            answer = self._calls.call(method, path, body, patience_s=patience_s)
        except Unreachable as error:
            raise self._broken(method, path, error) from error
        except ResilienceError:
            self._refuse_successor()
            raise
        self._refuse_successor()
        return answer

    def _refuse_successor(self) -> None:
        """At a shared engine's address the next one answers, once the first has ended.

        :raises EngineDied: when the first has. While it lives, no other answers.
        """
        if self._shared and not self.alive:
            raise self.death()

    def _broken(self, method: str, path: str, error: Exception) -> HarnessError:
        assert self._process is not None
        try:
            self._process.wait(DEATH_S)
        except subprocess.TimeoutExpired:
            return HarnessError(
                "the connection to the engine broke",
                expected=f"an answer to {method} {path}",
                happened=f"{error}; the engine's process is alive",
                advice="something on this machine resets connections to 127.0.0.1",
            )
        return self.death()

    @contextlib.contextmanager
    def toxiproxy(self) -> Iterator[Toxiproxy]:
        """toxiproxy-python's server object for this engine.

        Proxies that were created meanwhile are destroyed at the end, and its class-wide
        address is put back.
        """
        from pytest_tcpresilience.control.adapter import borrowed

        # requests takes the credentials out of the URL and sends them as basic auth.
        host = f"{self._user}:{self._secret}@127.0.0.1"
        with borrowed(self, host, self.port, links=lambda: set(self.links), shared=False) as server:
            yield server
