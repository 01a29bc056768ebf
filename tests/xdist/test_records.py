"""Records under pytest-xdist: the same as without, and none lost with a worker that dies."""

from __future__ import annotations

import json

import psutil
import pytest

# Loaded here, and so the same for each run in this process.
from pytest_tcpresilience.report import hooks  # noqa: F401
from tests.inner import Inner

# One line of JSON at the end: what the controller knows.
CONFTEST = """
    import json
    import pytest
    from pytest_tcpresilience.report.collecting import collect

    def pytest_configure(config):
        collect(config)

    def pytest_unconfigure(config):
        if not hasattr(config, "workerinput"):
            with open(config.rootpath / "document.json", "w") as file:
                json.dump(collect(config).document().to_json(), file)
"""

SUITE = """
    import os
    import socket
    import pytest
    from pytest_tcpresilience import Keepalive, assert_keepalive, detects_break

    def broken(tcp_link, server):
        link = tcp_link(server.address)
        with open("engines", "a") as file:
            file.write(f"{link.engine_pid}\\n")
        with socket.create_connection((link.host, link.port)) as sock:
            Keepalive(1, 1, 1).apply(sock)
            sock.sendall(b"x\\n")
            sock.recv(9)
            with detects_break(link, within=2.0):
                link.reset()
                sock.recv(1)

    @pytest.mark.parametrize("number", range(4))
    @pytest.mark.xdist_group("slow")
    def test_grouped(tcp_link, recording_server, number):
        broken(tcp_link, recording_server)

    def test_alone(tcp_link, recording_server):
        broken(tcp_link, recording_server)

    @pytest.mark.skip
    def test_skipped(): pass
"""

CRASH = """
    def test_that_ends_its_worker(tcp_link, recording_server):
        broken(tcp_link, recording_server)
        os._exit(3)
"""


def document(inner: Inner, source: str, *args: str) -> dict[str, object]:
    inner.pytester.makeconftest(CONFTEST)
    inner.run_subprocess(source, *args)
    found: dict[str, object] = json.loads((inner.pytester.path / "document.json").read_text())
    return found


def comparable(found: dict[str, object]) -> object:
    """What must not depend on how the tests were shared out."""
    records = found["records"]
    assert isinstance(records, list)
    kept = [
        {
            name: record[name]
            for name in ("test", "entry", "client", "outcome", "mechanism", "effect")
        }
        for record in records
    ]
    return found["tests"], found["asked"], found["problems"], kept


RECORD = ("--resilience-record", "-k", "not [3]")


@pytest.mark.parametrize(
    "mode", ["load", "worksteal", "loadscope", "loadfile", "loadgroup", "each"]
)
def test_document_and_contract_are_the_same_with_workers(inner: Inner, mode: str) -> None:
    inner.pytester.makeconftest(CONFTEST)
    inner.pytester.makeini("[pytest]\nmarkers = xdist_group")
    inner.run(SUITE, "-p", "no:xdist", "--resilience-contract=alone.json", *RECORD)
    alone = json.loads((inner.pytester.path / "document.json").read_text())
    contract = f"--resilience-contract={mode}.json"
    engines = inner.pytester.path / "engines"
    engines.unlink()
    inner.run_subprocess(SUITE, "-n2", f"--dist={mode}", contract, *RECORD)
    (engine,) = set(engines.read_text().split())  # all workers share one
    assert not psutil.pid_exists(int(engine))
    shared = json.loads((inner.pytester.path / "document.json").read_text())
    assert comparable(shared) == comparable(alone)
    assert len(comparable(alone)[3]) == 4  # type: ignore[index]
    assert {state for test, state in shared["tests"].items() if "[3]" in test} == {"deselected"}
    contracts = [(inner.pytester.path / f"{name}.json").read_bytes() for name in (mode, "alone")]
    assert contracts[0] == contracts[1]


def test_what_a_worker_reported_before_it_died_is_kept(inner: Inner) -> None:
    found = document(inner, SUITE + CRASH, "-n", "1", "--max-worker-restart=0")
    tests = found["tests"]
    assert isinstance(tests, dict)
    by_name = {test.partition("::")[2]: state for test, state in tests.items()}
    assert by_name["test_that_ends_its_worker"] == "crashed"
    assert by_name["test_alone"] == "ran"
    records = comparable(found)[3]  # type: ignore[index]
    assert len(records) == 5
    problems = found["problems"]
    assert isinstance(problems, list)
    assert len(problems) == 1
    assert "worker gw0 ended before its work" in problems[0]
