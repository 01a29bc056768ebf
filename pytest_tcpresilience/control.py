"""Finds, starts, calls and ends engines.

Owns the engine's process and the HTTP to it, and is the only module that knows
toxiproxy-python. Nothing is imported from there, nor from urllib3, before an engine is
wanted: a session without links stays free of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pytest_tcpresilience.errors import EngineDied, FaultUnavailable, HarnessError, UsageError
from pytest_tcpresilience.kernel import processes
from pytest_tcpresilience.kernel.sockdiag import Address

if TYPE_CHECKING:
    import urllib3
    from toxiproxy import Toxiproxy

POSIX = os.name == "posix"
LAST_WORDS_BYTES = 4000
# An engine that was told to end has nothing to finish; this is for a loaded machine.
STOP_TIMEOUT_S = 5.0
# The engine answers a long poll within 20 s.
POLL_S = 15.0

# "-m" would put the working directory first on the module path, where a project's own
# http.py or trio.py would take the place of the real ones.
_BOOT = (
    "import sys; sys.path[:] = [p for p in sys.path if p] + [sys.argv[1]];"
    "from pytest_tcpresilience.engine.__main__ import main; main()"
)


class Engine:
    """A running engine process of this project.

    :param timeout_s: for its start, and for each call.
    :param seed: of what is random in it; drawn if not given.
    :raises HarnessError: when it cannot be started.
    """

    def __init__(self, timeout_s: float, *, seed: int | None = None) -> None:
        self._timeout_s = timeout_s
        self._seed = seed
        self._secret = secrets.token_urlsafe(24)
        self._stopping = False
        self._reported = False
        # The links that it carries: name to listening address.
        self.links: dict[str, Address] = {}
        self._kept_words: str | None = None
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - read after the engine's end
        try:
            with self._listen() as listener:
                self.port = int(listener.getsockname()[1])
                self._process = self._spawn(listener)
            # The listener is the engine's alone now: if the engine ends before it
            # accepts, the first call is refused and does not wait.
            self._pool = self._open_pool()
            self._mourner = threading.Thread(
                target=self._mourn, name="tcpresilience-engine", daemon=True
            )
            self._mourner.start()
            self.version = str(self.call("GET", "/version")["engine"])
        except BaseException:
            self.stop()
            raise

    # --- process -------------------------------------------------------------------------

    def _listen(self) -> socket.socket:
        listener: socket.socket | None = None
        try:
            listener = socket.create_server(("127.0.0.1", 0))
            # Where the interface is down, binding works and only connecting fails.
            socket.create_connection(listener.getsockname(), timeout=1.0).close()
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

    def _spawn(self, listener: socket.socket) -> subprocess.Popen[bytes]:
        if not POSIX:
            raise HarnessError(
                "the engine cannot start: it needs a POSIX system",
                expected="Linux, or a system that hands listening sockets to a new process",
                happened=f"this is {sys.platform}",
                advice="run these tests on Linux; WSL2 will do",
            )
        home = str(Path(__file__).resolve().parents[1])
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"}
        try:
            process = subprocess.Popen(
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
        settings = {
            "fd": listener.fileno(),
            "secret": self._secret,
            "parent": os.getpid(),
            "seed": self._seed,
        }
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended at once; the first call says so
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            process.stdin.flush()
        return process

    def _mourn(self) -> None:
        """Wait for the engine's end; if it was not ours, wake the clients of this process.

        A killed engine's sockets close. A client behind a cut cannot hear that.
        """
        self._process.wait()
        if not self._stopping:
            processes.shut_down_own(set(self.links.values()))

    @property
    def alive(self) -> bool:
        if self._process.poll() is not None:
            return False
        if sys.platform != "linux":
            return True
        # While the mourner waits, poll() knows nothing. This looks without reaping.
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self.pid, flags) is None
        except ChildProcessError:
            return False  # the mourner has reaped it just now

    @property
    def pid(self) -> int:
        return self._process.pid

    def last_words(self) -> str:
        """The end of what the engine wrote to its standard error."""
        if self._kept_words is not None:
            return self._kept_words
        size = os.fstat(self._words.fileno()).st_size
        start = max(size - LAST_WORDS_BYTES, 0)
        return os.pread(self._words.fileno(), LAST_WORDS_BYTES, start).decode(errors="replace")

    def death(self) -> EngineDied:
        """The error that reports an engine's unexpected end."""
        self._reported = True
        status = self._process.wait(STOP_TIMEOUT_S)
        how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
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
        """End the engine and everything that it carries. Does nothing the second time."""
        self._stopping = True
        process: subprocess.Popen[bytes] | None = getattr(self, "_process", None)
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        mourner: threading.Thread | None = getattr(self, "_mourner", None)
        if mourner is not None:
            mourner.join()
        pool: urllib3.HTTPConnectionPool | None = getattr(self, "_pool", None)
        if pool is not None:
            pool.close()
        if self._kept_words is None:
            self._kept_words = self.last_words()
            self._words.close()

    # --- calls ---------------------------------------------------------------------------

    def _open_pool(self) -> urllib3.HTTPConnectionPool:
        import urllib3

        return urllib3.HTTPConnectionPool(
            "127.0.0.1",
            self.port,
            maxsize=8,
            retries=False,
            headers={"Authorization": f"Bearer {self._secret}", "User-Agent": "tcpresilience"},
        )

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
        import urllib3

        try:
            response = self._pool.request(
                method,
                path,
                body=None if body is None else json.dumps(body),
                timeout=self._timeout_s + patience_s,
            )
        except urllib3.exceptions.NewConnectionError as error:
            # Refused; to urllib3 that is one of the timeouts.
            raise self._broken(method, path, error) from error
        except urllib3.exceptions.TimeoutError as error:
            raise HarnessError(
                "the engine did not answer",
                expected=f"an answer to {method} {path} in {self._timeout_s:g} s",
                happened=str(error),
                advice="a loaded machine may need a longer resilience_engine_timeout",
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise self._broken(method, path, error) from error
        return self._parse(method, path, response.status, response.data)

    def _broken(self, method: str, path: str, error: Exception) -> HarnessError:
        try:
            self._process.wait(1.0)  # its sockets close a moment before it is gone
        except subprocess.TimeoutExpired:
            return HarnessError(
                "the connection to the engine broke",
                expected=f"an answer to {method} {path}",
                happened=f"{error}; the engine's process is alive",
                advice="something on this machine resets connections to 127.0.0.1",
            )
        return self.death()

    @staticmethod
    def _parse(method: str, path: str, status: int, data: bytes) -> Any:
        if status < 300:
            return json.loads(data) if data else None
        try:
            message = str(json.loads(data)["error"])
        except (ValueError, KeyError, TypeError):
            message = data.decode(errors="replace").strip()
        if status == 501:
            raise FaultUnavailable(
                "this machine cannot produce the fault",
                expected="a kernel with what the fault needs",
                happened=message,
                advice="run on Linux with these interfaces, outside of a sandbox that forbids "
                "them; the header of the run lists what is missing",
            )
        if status in (400, 409):
            raise UsageError(
                "the engine refuses the request",
                expected="a request that makes sense",
                happened=f"{method} {path}: {message}",
                advice="correct the argument that it names",
            )
        raise HarnessError(
            "the engine gave an unexpected answer",
            expected=f"success for {method} {path}",
            happened=f"status {status}: {message}",
            advice="a link that was deleted behind its back, or a mistake of this plugin",
        )

    @contextlib.contextmanager
    def toxiproxy(self) -> Iterator[Toxiproxy]:
        """toxiproxy-python's server object for this engine.

        Proxies that were created meanwhile are destroyed at the end, and its class-wide
        address is put back.
        """
        from toxiproxy import Toxiproxy
        from toxiproxy.api import APIConsumer

        class EngineServer(Toxiproxy):  # type: ignore[misc]
            """toxiproxy-python's server; its own check cannot read credentials."""

            def running(inner) -> bool:
                return self.alive

        before = APIConsumer.host, APIConsumer.port
        known = set(self.call("GET", "/proxies"))
        server = EngineServer()
        # requests takes the credentials out of the URL and sends them as basic auth.
        server.update_api_consumer(f"tcpresilience:{self._secret}@127.0.0.1", self.port)
        try:
            yield server
        finally:
            APIConsumer.host, APIConsumer.port = before
            if self.alive:
                for name in set(self.call("GET", "/proxies")) - known - set(self.links):
                    with contextlib.suppress(HarnessError):
                        self.call("DELETE", f"/proxies/{quote(name, safe='')}")


class EngineOwner:
    """The session's engine: started by the first link, replaced when it died."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._links = 0

    def engine(self, timeout_s: float) -> Engine:
        """The engine, alive.

        :raises HarnessError: when it cannot be started.
        """
        if self._engine is not None and not self._engine.alive:
            self._engine.stop()
            self._engine = None
        if self._engine is None:
            self._engine = Engine(timeout_s)
        return self._engine

    def next_name(self) -> str:
        """A name for a link that no other link of this session has."""
        self._links += 1
        return f"link-{self._links}"

    @property
    def started(self) -> Engine | None:
        return self._engine

    def stop(self) -> None:
        if self._engine is not None:
            self._engine.stop()
            self._engine = None
