"""What is measured: the upstream itself, our engine, and Toxiproxy's server."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import urllib3

from benchmarks.peers import Address
from pytest_tcpresilience.control import Engine
from pytest_tcpresilience.tcp.addresses import join_address

START_TIMEOUT_S = 10.0
# For a call that does not come back (Toxiproxy's issue 558).
CALL_TIMEOUT_S = 5.0
_numbers = itertools.count(1)


class Server(Protocol):
    """Speaks Toxiproxy's API."""

    @property
    def pid(self) -> int: ...

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any: ...

    def stop(self) -> None: ...


class Toxiproxy:
    """The real one, in a process of its own."""

    def __init__(self, program: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self._process = subprocess.Popen(
            [program, "-host", "127.0.0.1", "-port", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._pool = urllib3.HTTPConnectionPool(
            "127.0.0.1", port, retries=False, timeout=CALL_TIMEOUT_S
        )
        self.version = self._first_answer()["version"]

    def _first_answer(self) -> Any:
        until = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                return self.call("GET", "/version")
            except urllib3.exceptions.HTTPError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.001)

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        text = None if body is None else json.dumps(body)
        answer = self._pool.request(method, path, body=text)
        assert answer.status < 300, answer.data
        return json.loads(answer.data) if answer.data else None

    def stop(self) -> None:
        self._pool.close()
        self._process.kill()
        self._process.wait()


def find_toxiproxy(given: str | None) -> str | None:
    """Its program: what is given, ``$TOXIPROXY_SERVER``, or ``toxiproxy-server`` on PATH."""
    wanted = given or os.environ.get("TOXIPROXY_SERVER")
    if wanted is None:
        return shutil.which("toxiproxy-server")
    found = shutil.which(wanted)
    if found is None:
        raise SystemExit(f"no program {wanted}")
    return found


def embedded() -> Engine:
    return Engine(CALL_TIMEOUT_S)


class Proxy:
    """A proxy of a server, or with none the upstream itself."""

    def __init__(self, server: Server | None, upstream: Address) -> None:
        self.name = f"benchmark-{next(_numbers)}"
        self.server = server
        self.address = upstream
        if server is not None:
            body = {
                "name": self.name,
                "listen": "127.0.0.1:0",
                "upstream": join_address(*upstream),
            }
            listen = str(server.call("POST", "/proxies", body)["listen"])
            self.address = ("127.0.0.1", int(listen.rpartition(":")[2]))

    def call(self, method: str, path: str = "", body: dict[str, Any] | None = None) -> Any:
        assert self.server is not None
        return self.server.call(method, f"/proxies/{self.name}{path}", body)


@contextlib.contextmanager
def proxied(server: Server | None, upstream: Address) -> Iterator[Proxy]:
    proxy = Proxy(server, upstream)
    try:
        yield proxy
    finally:
        if server is not None:
            proxy.call("DELETE")


def cpu_s(server: Server) -> float:
    """CPU time of all its threads so far, in seconds."""
    tasks = Path(f"/proc/{server.pid}/task").iterdir()
    spent = [int((task / "schedstat").read_text().split()[0]) for task in tasks]
    return sum(spent) / 1e9


def memory_kb(server: Server) -> int:
    """Its resident memory in KiB."""
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")
