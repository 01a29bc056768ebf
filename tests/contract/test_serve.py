"""``python -m pytest_tcpresilience serve``: a process that any Toxiproxy client can drive."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from toxiproxy import Toxiproxy
from toxiproxy.api import APIConsumer

from pytest_tcpresilience import cli
from tests.contract.peers import WAIT_S, receive, receive_all
from tests.servers import EchoServer

COMMAND = [sys.executable, "-m", "pytest_tcpresilience", "serve"]
NOWHERE = "127.0.0.1:7001"


class Served:
    """A running ``serve``, ready."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        found = re.search(r"http://(\S+):(\d+) ", self.line)
        assert found, self.line
        self.host, self.port = found[1].strip("[]"), int(found[2])

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=WAIT_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def end(self, signal_: signal.Signals) -> tuple[int, str, str]:
        """Its exit status, and what it wrote after the first line."""
        self.process.send_signal(signal_)
        output, errors = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, output, errors


class Serve(Protocol):
    def __call__(self, *arguments: str) -> Served: ...


@pytest.fixture
def serve() -> Iterator[Serve]:
    started: list[Served] = []

    def start(*arguments: str) -> Served:
        started.append(Served(*arguments))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def refused(*arguments: str) -> str:
    """The one line in which ``serve`` says what it cannot do."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=WAIT_S)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    return done.stderr.removesuffix("\n")


# --- life --------------------------------------------------------------------------------


def test_one_line_says_that_it_is_ready(serve: Serve) -> None:
    served = serve("--seed", "7")
    assert re.fullmatch(
        r"pytest-tcpresilience \S+ serves Toxiproxy's API on http://127\.0\.0\.1:\d+ \(seed 7\)\n",
        served.line,
    )
    status, version = served.get("/version")
    assert (status, json.loads(version)["seed"]) == (200, 7)


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_also_while_it_carries_a_connection(
    serve: Serve, echo_server: EchoServer, tmp_path: Path, signal_: signal.Signals
) -> None:
    config = tmp_path / "proxies.json"
    config.write_text(json.dumps([{"name": "p", "upstream": f"127.0.0.1:{echo_server.port}"}]))
    served = serve("--config", str(config))
    listen = json.loads(served.get("/proxies/p")[1])["listen"]
    with socket.create_connection(("127.0.0.1", int(listen.rpartition(":")[2]))) as client:
        client.sendall(b"ping")
        assert receive(client, 4) == b"ping"
        assert served.end(signal_) == (0, "", "")
        assert receive_all(client) == b""


def test_it_listens_on_ipv6_when_it_is_told_to(serve: Serve) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    assert serve("--host", "::1").get("/proxies") == (200, "{}")


def test_toxiproxy_python_drives_it(
    serve: Serve, echo_server: EchoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    # Its address is state of a class; the host is the one that it has from the start.
    assert APIConsumer.host == served.host
    monkeypatch.setattr(APIConsumer, "port", served.port)
    server = Toxiproxy()
    assert server.running() is True
    proxy = server.create(name="p", upstream=f"127.0.0.1:{echo_server.port}")
    proxy.add_toxic(type="limit_data", attributes={"bytes": 3})
    host, _, port = proxy.listen.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as client:
        client.sendall(b"12345")
        assert receive_all(client) == b"123"
    server.destroy_all()
    assert server.proxies() == {}


def test_its_default_address_is_toxiproxys() -> None:
    parsed = cli._parser().parse_args(["serve"])
    assert (parsed.host, parsed.port) == (APIConsumer.host, APIConsumer.port)


# --- metrics -----------------------------------------------------------------------------


def test_metrics_are_counted_while_a_connection_lives(
    serve: Serve, echo_server: EchoServer
) -> None:
    served = serve("--proxy-metrics")
    upstream = f"127.0.0.1:{echo_server.port}"
    connection = http.client.HTTPConnection(served.host, served.port, timeout=WAIT_S)
    connection.request("POST", "/proxies", json.dumps({"name": "p", "upstream": upstream}))
    listen = json.loads(connection.getresponse().read())["listen"]
    connection.close()
    with socket.create_connection(("127.0.0.1", int(listen.rpartition(":")[2]))) as client:
        client.sendall(b"12345")
        assert receive(client, 5) == b"12345"
        status, page = served.get("/metrics")
    assert status == 200
    labels = f'listener="{listen}",proxy="p",upstream="{upstream}"'
    for metric in ("received", "sent"):
        for direction in ("upstream", "downstream"):
            name = f"toxiproxy_proxy_{metric}_bytes_total"
            assert f'{name}{{direction="{direction}",{labels}}} 5\n' in page


def test_metrics_are_unknown_unless_switched_on(serve: Serve) -> None:
    assert serve().get("/metrics") == (404, "404 page not found\n")


# --- the file of proxies -----------------------------------------------------------------


def test_a_file_of_proxies(serve: Serve, tmp_path: Path) -> None:
    config = tmp_path / "proxies.json"
    wanted = [
        {"name": "a", "listen": "127.0.0.1:0", "upstream": NOWHERE},
        {"name": "b", "listen": "127.0.0.1:0", "upstream": NOWHERE, "enabled": False},
    ]
    config.write_text(json.dumps(wanted))
    shown: dict[str, Any] = json.loads(serve("--config", str(config)).get("/proxies")[1])
    assert {name: each["enabled"] for name, each in shown.items()} == {"a": True, "b": False}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no JSON: Expecting value"),
        (b"[", "no JSON: Expecting value"),
        (b"\xff", "no JSON: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "no JSON: maximum recursion depth exceeded"),
        (b"{}", "bad request body: json: a list of proxies is wanted"),
        (b"[1]", "bad request body: json: proxy 1 must be an object"),
        (b'[{"name": "p"}]', "missing required field: upstream at proxy 1"),
        (b'[{"name": "p", "upstream": "x"}]', "upstream 'x': want host:port"),
    ],
    ids=["empty", "malformed", "no-utf8", "deep", "object", "number", "no-upstream", "no-port"],
)
def test_a_file_that_makes_no_sense(tmp_path: Path, content: bytes, message: str) -> None:
    config = tmp_path / "proxies.json"
    config.write_bytes(content)
    said = refused("--port", "0", "--config", str(config))
    assert said.startswith(f"pytest-tcpresilience: {config}: {message}")


@pytest.mark.parametrize(
    ("name", "message"), [("none.json", "No such file or directory"), (".", "Is a directory")]
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, message: str) -> None:
    path = str(tmp_path / name)
    assert refused("--config", path) == f"pytest-tcpresilience: {path}: {message}"


def test_a_proxys_port_in_use(tmp_path: Path) -> None:
    config = tmp_path / "proxies.json"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        config.write_text(json.dumps([{"name": "p", "listen": listen, "upstream": NOWHERE}]))
        said = refused("--port", "0", "--config", str(config))
    wanted = f"pytest-tcpresilience: {config}: listen tcp {listen}: Address already in use"
    assert said.startswith(wanted)


# --- arguments ---------------------------------------------------------------------------


def test_its_own_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("--port", str(port))
    wanted = f"pytest-tcpresilience: listen tcp 127.0.0.1:{port}: Address already in use"
    assert said.startswith(wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: command"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["serve", "--port", "65536"], "argument --port: invalid port value: '65536'"),
        (["serve", "--port", "http"], "argument --port: invalid port value: 'http'"),
        (["serve", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
    ],
)
def test_arguments_that_make_no_sense(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_host_that_is_no_address_of_this_machine() -> None:
    said = refused("--host", "192.0.2.1", "--port", "0")
    assert said.startswith("pytest-tcpresilience: listen tcp 192.0.2.1:0: ")
    assert "Cannot assign requested address" in said
