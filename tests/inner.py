"""An inner test suite, run by pytester, whose links lead to a server of the outer test."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pytest_tcpresilience.engine_choice import CHOICES
from pytest_tcpresilience.report.options import CELLS
from pytest_tcpresilience.report.options import OPTIONS as GATE_OPTIONS
from pytest_tcpresilience.settings import OPTIONS
from tests.servers import EchoServer

# What each inner test may ask for. Every link is noted in a file, so that the outer test
# knows which processes and ports must be gone.
INNER_CONFTEST = """
    import json
    import socket

    import pytest

    @pytest.fixture
    def link(tcp_link):
        link = tcp_link(({host!r}, {port}))
        ports = [link.port, getattr(link._engine, "port", 0)]
        note = {{"engine": link._engine.pid, "ports": ports}}
        with open({notes!r}, "a") as file:
            file.write(json.dumps(note) + "\\n")
        return link

    @pytest.fixture
    def client(link):
        with socket.create_connection((link.host, link.port)) as sock:
            sock.sendall(b"hello")
            assert sock.recv(5, socket.MSG_WAITALL) == b"hello"
            yield sock
"""


# Every warning is an error, but for pytest-asyncio's about a default of its own.
STRICT = ("-W", "error", "-W", "ignore:The configuration option")
# Plugins that a new process need not spend a second on. Some of them import trio, too.
LEAN = ("-p", "no:trio", "-p", "no:anyio", "-p", "no:hypothesispytest", "-p", "no:asyncio")


@dataclass(frozen=True)
class Inner:
    """The inner suite and what it left behind."""

    pytester: pytest.Pytester
    notes: Path

    def run(self, source: str, *args: str) -> pytest.RunResult:
        """One test file, in this process."""
        self.pytester.makepyfile(source)
        return self.pytester.runpytest_inprocess(*STRICT, *args)

    def run_subprocess(self, source: str, *args: str) -> pytest.RunResult:
        """One test file, in a process of its own."""
        self.pytester.makepyfile(source)
        return self.pytester.runpytest_subprocess(*STRICT, *LEAN, *args)

    def show(self, option: str) -> pytest.RunResult:
        """One of the options that list something and run nothing."""
        return self.pytester.runpytest_inprocess(*STRICT, option)

    def _noted(self) -> list[dict[str, object]]:
        # A line that is still being written has no end yet.
        text = self.notes.read_text() if self.notes.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    @property
    def engines(self) -> set[int]:
        """The process ids of all engines that carried a noted link so far."""
        return {int(str(note["engine"])) for note in self._noted()}

    @property
    def links(self) -> int:
        """How many links were noted so far."""
        return len(self._noted())

    def assert_nothing_left(self, *, within: float = 0.0) -> None:
        """No engine and no port of any link that was made; at least one was made.

        :param within: seconds, for a session that could not end its engine itself.
        """
        assert self.engines
        processes = []
        for pid in self.engines:
            try:
                processes.append(psutil.Process(pid))
            except psutil.NoSuchProcess:
                continue
        _, alive = psutil.wait_procs(processes, timeout=within)
        assert alive == []
        # The engines are gone, with their sockets. What could still hold a port is the owner,
        # which binds it; connecting would also find a stranger that has the number by now.
        mine = {
            each.laddr.port
            for each in psutil.Process().net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        }
        for note in self._noted():
            assert not mine.intersection(note["ports"])  # type: ignore[arg-type]


@pytest.fixture
def inner(
    pytester: pytest.Pytester, echo_server: EchoServer, monkeypatch: pytest.MonkeyPatch
) -> Inner:
    # The outer session's own arguments and settings are not the inner one's.
    for name in (
        "PYTEST_ADDOPTS",
        "PYTEST_XDIST_WORKER",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD",
        *(option.variable for option in (*OPTIONS, *CHOICES, *GATE_OPTIONS, CELLS)),
    ):
        monkeypatch.delenv(name, raising=False)
    notes = pytester.path / "links.jsonl"
    # An ini file of its own ends pytest's search for one in the directories above.
    pytester.makeini("[pytest]")
    pytester.makeconftest(
        INNER_CONFTEST.format(host=echo_server.host, port=echo_server.port, notes=str(notes))
    )
    return Inner(pytester, notes)
