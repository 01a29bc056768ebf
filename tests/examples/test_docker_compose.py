"""``examples/docker-compose``: its files agree, and its topology runs as plain processes.

What needs Docker is not run here: the pulling of images, and the network between them.
"""

from __future__ import annotations

import configparser
import re
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_tcpresilience.engine_choice import CHOICES, choose_engine, ports_of
from tests.contract.test_serve import Served
from tests.projects import Run

HERE = Path(__file__).resolve().parents[2] / "examples" / "docker-compose"
COMPOSE = (HERE / "compose.yaml").read_text()
INI = ("pytest-inside.ini", "pytest-host.ini")


def settings(name: str) -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read_string((HERE / name).read_text())
    return dict(parser["pytest"])


@pytest.mark.parametrize("name", INI)
def test_the_settings_are_ones_that_exist(name: str) -> None:
    known = {option.ini for option in CHOICES}
    found = settings(name)
    assert set(found) <= known
    assert choose_engine(found, {}, {}).url == found["resilience_engine"]


def test_the_ports_of_the_host_are_those_that_are_published() -> None:
    published = re.search(r'"127\.0\.0\.1:(\d+-\d+):(\d+-\d+)"', COMPOSE)
    assert published is not None
    assert published[1] == published[2] == settings("pytest-host.ini")["resilience_toxiproxy_ports"]
    assert len(ports_of(published[1])) == 24


def test_the_names_are_those_of_the_services() -> None:
    services = re.findall(r"^  (\w+):$", COMPOSE, re.MULTILINE)
    assert services == ["db", "toxiproxy", "tests"]
    assert settings("pytest-inside.ini")["resilience_engine"] == "http://toxiproxy:8474"
    assert "UPSTREAM: db:6379" in COMPOSE
    assert "host.docker.internal:host-gateway" in COMPOSE
    assert settings("pytest-host.ini")["resilience_upstream_host"] == "host.docker.internal"


def test_docker_reads_the_file() -> None:
    if shutil.which("docker") is None:
        pytest.skip("no docker here")
    command = ["docker", "compose", "-f", str(HERE / "compose.yaml"), "config", "--quiet"]
    if subprocess.run([*command[:2], "version"], capture_output=True).returncode:
        pytest.skip("no docker compose here")
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


class Redis(socketserver.StreamRequestHandler):
    """As much of Redis as the example asks for."""

    def handle(self) -> None:
        while self.rfile.readline():
            self.wfile.write(b"+PONG\r\n")


@pytest.fixture
def db() -> Iterator[str]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Redis) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@contextmanager
def on_this_machine(name: str, db: str, project: Path) -> Iterator[tuple[Served, Run]]:
    """The addresses between the containers are all loopback here; the rest is as it stands."""
    served = Served()
    try:
        text = (HERE / name).read_text()
        text = re.sub(r"http://\S+", f"http://127.0.0.1:{served.port}", text)
        text = text.replace("host.docker.internal", "127.0.0.1")
        text = re.sub(r"resilience_toxiproxy_ports = .*", "", text)
        project.mkdir()
        (project / "pytest.ini").write_text(text)
        shutil.copy(HERE / "test_app.py", project)
        with Run(project, "test_app.py", UPSTREAM=db) as run:
            yield served, run
    finally:
        served.process.kill()
        served.process.communicate()


def test_the_same_topology_as_plain_processes(
    db: str, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Side by side, since both wait."""
    inside, host = INI
    with (
        on_this_machine(inside, db, tmp_path / "inside") as first,
        on_this_machine(host, db, tmp_path / "host") as second,
    ):
        for name, (served, run) in {inside: first, host: second}.items():
            with subtests.test(name):
                status, output = run.end()
                assert status == 0, output
                assert "2 passed" in output
                assert served.get("/proxies")[1] == "{}"
