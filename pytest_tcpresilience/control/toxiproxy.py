"""A real Toxiproxy, as the place where the toxics of links happen.

Owns the proxies that links have there: their names, addresses and ends, and what it
means when the server is the wrong one, does not answer, or has forgotten them. A proxy
that is not ours is never touched, and the server's ``/reset`` is never called.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from pytest_tcpresilience.control.calls import Calls, Unreachable
from pytest_tcpresilience.control.naming import Maker, is_leftover
from pytest_tcpresilience.engine_choice import EngineChoice, ports_of
from pytest_tcpresilience.errors import HarnessError, UsageError
from pytest_tcpresilience.kernel.owners import started_at
from pytest_tcpresilience.tcp.addresses import join_address

if TYPE_CHECKING:
    from toxiproxy import Toxiproxy

# The first version with the API of today, and the newest one that we have run with.
OLDEST = (2, 0)
NEWEST_KNOWN = (2, 12)
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ToxiproxyVersionWarning(UserWarning):
    """The Toxiproxy server is newer than those that this plugin was tested with."""


def read_version(answer: bytes) -> str:
    """What ``GET /version`` says; up to 2.4 it was plain text.

    :raises ValueError: for what no Toxiproxy says.
    """
    text = answer.decode().strip()
    if text.startswith("{"):
        text = str(json.loads(text)["version"])
    if not re.fullmatch(r"git|v?\d+\.\d+[\w.+-]*", text):
        raise ValueError(text[:80])
    return text


def check_version(version: str, url: str) -> str | None:
    """What to warn of, or ``None``. ``git`` is what a server says that was built from source.

    :raises UsageError: for one that is too old.
    """
    found = re.match(r"v?(\d+)\.(\d+)", version)
    if found is None:
        return None
    number = int(found[1]), int(found[2])
    if number < OLDEST:
        raise UsageError(
            f"the Toxiproxy at {url} is too old",
            expected=f"version {OLDEST[0]}.{OLDEST[1]} or newer",
            happened=f"it is version {version}",
            advice="install a newer one, or use the embedded engine",
        )
    if number > NEWEST_KNOWN:
        newest = f"{NEWEST_KNOWN[0]}.{NEWEST_KNOWN[1]}"
        return f"the Toxiproxy at {url} is version {version}; tested is up to {newest}"
    return None


def describe(choice: EngineChoice, timeout_s: float) -> str:
    """The server and its version, for the header of a run. Nothing is started."""
    if choice.url is not None:
        return f"Toxiproxy {_version_at(choice.url, timeout_s)} at {choice.url}"
    program = shutil.which(choice.toxiproxy)
    if program is None:
        return f"Toxiproxy (there is no {choice.toxiproxy})"
    try:
        said = subprocess.run(
            [program, "-version"], capture_output=True, text=True, timeout=timeout_s, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"Toxiproxy ({program} does not run: {error})"
    return f"Toxiproxy {said.stdout.split()[-1] if said.stdout.split() else '?'} ({program})"


def _version_at(url: str, timeout_s: float) -> str:
    parts = urlsplit(url)
    calls = Calls("", parts.hostname or "", parts.port or 0, {}, timeout_s)
    try:
        return read_version(calls.request("GET", "/version")[1])
    except (Unreachable, HarnessError, ValueError, KeyError, TypeError):
        return "(no answer)"
    finally:
        calls.close()


def _machine() -> str:
    """The same for all processes that can see each other's process ids."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


class ToxiproxyServer:
    """A running server.

    :param url: ``http://host:port``.
    :param choice: the addresses between the machines.
    :param timeout_s: for each call.
    :raises UsageError: for a server that is too old.
    :raises HarnessError: when no Toxiproxy answers.
    """

    def __init__(self, url: str, choice: EngineChoice, timeout_s: float) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.url = url
        self.host, self.port = parts.hostname, parts.port
        self.timeout_s = timeout_s
        self._choice = choice
        self._ports = ports_of(choice.toxiproxy_ports)
        self._calls = Calls(
            f"Toxiproxy at {url}",
            self.host,
            self.port,
            {"User-Agent": "tcpresilience"},
            timeout_s,
        )
        self._machine = _machine()
        self._me = Maker(self._machine, os.getpid(), started_at(os.getpid()) or 0)
        self._own: set[str] = set()
        # Of these the loss was reported, so that their end is no news.
        self._lost: set[str] = set()
        try:
            self.version = self._read_version()
            complaint = check_version(self.version, url)
            if complaint:
                warnings.warn(complaint, ToxiproxyVersionWarning, stacklevel=2)
            self.remove_leftovers()
        except BaseException:
            self.close()
            raise

    def _read_version(self) -> str:
        try:
            status, answer = self._calls.request("GET", "/version")
            if status != 200:
                raise ValueError(f"status {status}")
            return read_version(answer)
        except (Unreachable, ValueError, KeyError, TypeError) as error:
            raise HarnessError(
                f"no Toxiproxy answers at {self.url}",
                expected="a Toxiproxy server's answer to GET /version",
                happened=str(error) or type(error).__name__,
                advice="start the server first, or correct the address that "
                "--resilience-engine names",
            ) from error

    def close(self) -> None:
        self._calls.close()

    @property
    def alive(self) -> bool:
        """Whether it answers."""
        try:
            return self._calls.request("GET", "/version")[0] == 200
        except (Unreachable, HarnessError):
            return False

    # --- proxies -------------------------------------------------------------------------

    def name(self, rest: str) -> str:
        """A name that no other proxy on the server has."""
        return self._me.name(time.time(), rest)

    def open(self, name: str, upstream: str) -> str:
        """Make a proxy; the address at which it is reached from here.

        :param upstream: ``host:port``, as it is reached from here.
        :raises HarnessError: when it cannot be made.
        """
        host = self._listen_host()
        body = {"name": name, "upstream": self._as_it_sees(upstream)}
        answer: dict[str, Any] | None = None
        for port in self._candidates():
            # An answer that gets lost must not leave a proxy that nobody deletes.
            self._own.add(name)
            status, data = self._request(
                "POST", "/proxies", {**body, "listen": join_address(host, port)}
            )
            if status == 201:
                answer = json.loads(data)
                break
            self._own.discard(name)
            if b"address already in use" not in data.lower():
                raise HarnessError(
                    f"Toxiproxy at {self.url} cannot make a proxy",
                    expected=f"a proxy on {host} to {body['upstream']}",
                    happened=f"status {status}: {data.decode(errors='replace').strip()}",
                    advice="correct the addresses that the session's options name",
                )
        if answer is None:
            raise HarnessError(
                "the port range is used up",
                expected=f"a free port in {self._choice.toxiproxy_ports} on {host}",
                happened="each one is in use, by this run's links or by others",
                advice="publish more ports, run fewer workers, or close links earlier",
            )
        port = int(answer["listen"].rpartition(":")[2])
        return join_address(self._choice.toxiproxy_host or self.host, port)

    def _candidates(self) -> list[int]:
        # From different ends of the range, so that workers do not all try the same.
        return random.sample(self._ports, len(self._ports)) if self._ports else [0]

    def _listen_host(self) -> str:
        if self._choice.toxiproxy_listen:
            return self._choice.toxiproxy_listen
        return "127.0.0.1" if self.host in LOOPBACK else "0.0.0.0"

    def _as_it_sees(self, upstream: str) -> str:
        host, _, port = upstream.rpartition(":")
        if self._choice.upstream_host and host.strip("[]") in LOOPBACK:
            return join_address(self._choice.upstream_host, int(port))
        return upstream

    def delete(self, name: str) -> None:
        """End a proxy of ours.

        :raises HarnessError: when it is no longer there, or the server is not.
        """
        self._own.discard(name)
        reported = name in self._lost
        self._lost.discard(name)
        try:
            status, _ = self._request("DELETE", f"/proxies/{quote(name, safe='')}")
            if status == 404:
                raise self._forgotten(name)
        except HarnessError:
            if not reported:
                raise

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One request; the parsed answer. Errors as :meth:`.Calls.call`."""
        try:
            return self._calls.call(method, path, body)
        except Unreachable as error:
            raise self._gone(f"{method} {path}", error) from error

    def call_proxy(self, name: str, method: str, path: str, body: object = None) -> Any:
        """A call on one of our proxies.

        :raises HarnessError: also when the server has forgotten the proxy.
        """
        try:
            return self.call(method, f"/proxies/{quote(name, safe='')}{path}", body)
        except HarnessError as error:
            if "proxy not found" in error.happened:
                raise self._forgotten(name) from error
            raise

    def _request(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        try:
            return self._calls.request(method, path, body)
        except Unreachable as error:
            raise self._gone(f"{method} {path}", error) from error

    def _gone(self, what: str, error: Exception) -> HarnessError:
        self._lost |= self._own
        return HarnessError(
            f"Toxiproxy at {self.url} is gone; the client under test is not to blame",
            expected=f"an answer to {what}",
            happened=str(error),
            advice="look into the server's log: it ended or was restarted in the middle of a test",
        )

    def _forgotten(self, name: str) -> HarnessError:
        self._lost |= self._own
        return HarnessError(
            f"Toxiproxy at {self.url} has forgotten a link; the client under test is not to blame",
            expected=f"its proxy {name}",
            happened="proxy not found: the server was restarted, or somebody deleted it",
            advice="let nobody else delete proxies whose names begin with tcpresilience-",
        )

    def remove_leftovers(self) -> None:
        """Delete proxies of ours whose makers have ended."""
        for name in self.call("GET", "/proxies"):
            if is_leftover(name, self._machine, time.time(), started_at):
                with contextlib.suppress(HarnessError):  # somebody else was quicker
                    self.call("DELETE", f"/proxies/{quote(name, safe='')}")

    # --- toxiproxy-python ----------------------------------------------------------------

    @contextlib.contextmanager
    def toxiproxy(self) -> Iterator[Toxiproxy]:
        """toxiproxy-python's object for this server, which leaves others' proxies alone."""
        from pytest_tcpresilience.control.adapter import borrowed

        with borrowed(
            self, self.host, self.port, links=lambda: set(self._own), shared=True
        ) as server:
            yield server
