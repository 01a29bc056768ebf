"""When something runs out: descriptors, disk space, ports, addresses."""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pytest_tcpresilience.control import Engine, process
from pytest_tcpresilience.engine.complaints import complain
from pytest_tcpresilience.engine.descriptors import KEPT_BACK, Reserve
from pytest_tcpresilience.errors import HarnessError
from tests.contract.conftest import ProxyFactory
from tests.contract.peers import WAIT_S, RawServer, receive, see
from tests.contract.rawhttp import RawHttp
from tests.contract.test_serve import COMMAND
from tests.servers import EchoServer

DESCRIPTORS = 48
FULL_DISK = Path("/dev/full")


# --- descriptors -------------------------------------------------------------------------


class Cramped:
    """A ``serve`` that may have few descriptors, with one proxy to ``server``."""

    def __init__(self, server: EchoServer) -> None:
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", *COMMAND, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        found = re.search(r":(\d+) ", self.process.stdout.readline())
        assert found
        self.port = int(found[1])
        upstream = f"127.0.0.1:{server.port}"
        status, proxy = self.call("POST", "/proxies", {"name": "p", "upstream": upstream})
        assert status == 201
        self.address = ("127.0.0.1", int(proxy["listen"].rpartition(":")[2]))

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read() or "null")
        finally:
            connection.close()

    def events(self) -> list[dict[str, Any]]:
        status, events = self.call("GET", "/resilience/proxies/p/events")
        assert status == 200
        return list(events)

    def cpu_s(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def close(self) -> tuple[str, str]:
        self.process.terminate()
        return self.process.communicate(timeout=WAIT_S)


@pytest.fixture
def cramped(echo_server: EchoServer) -> Iterator[Cramped]:
    served = Cramped(echo_server)
    yield served
    if served.process.poll() is None:
        served.process.kill()
        served.process.communicate()


def open_until_full(cramped: Cramped) -> list[socket.socket]:
    """More clients than there can be; who fitted in, and who waits or was reset."""
    clients = [socket.create_connection(cramped.address) for _ in range(DESCRIPTORS)]
    deadline = time.monotonic() + WAIT_S
    while not any(event["kind"] == "accept_failed" for event in cramped.events()):
        assert time.monotonic() < deadline
    return clients


def is_echoed(sock: socket.socket) -> bool:
    try:
        sock.sendall(b"still here")
        return receive(sock, 10) == b"still here"
    except ConnectionError:
        return False


def test_a_full_table_of_descriptors_costs_new_connections_only(cramped: Cramped) -> None:
    first = socket.create_connection(cramped.address)
    assert is_echoed(first)
    clients = open_until_full(cramped)
    try:
        # Those that exist live on, and the API tells what is wrong.
        assert is_echoed(first)
        before, begun = cramped.cpu_s(), time.monotonic()
        for _ in range(5):
            assert cramped.call("GET", "/version")[0] == 200
        failed = [event for event in cramped.events() if event["kind"] == "accept_failed"]
        assert {event["error"] for event in failed} == {"Too many open files"}
        assert "upstream_failed" not in {event["kind"] for event in cramped.events()}
        # A full accept queue is readable all the time: no busy loop for that.
        time.sleep(0.4)
        used = cramped.cpu_s() - before
        assert used < 0.5 * (time.monotonic() - begun)
        assert len(failed) <= 2 * DESCRIPTORS, "said once for each episode"
    finally:
        for client in clients:
            client.close()
    # And it recovers, once those that still waited have had their turn.
    deadline, through = time.monotonic() + WAIT_S, False
    while not through:
        assert time.monotonic() < deadline
        with socket.create_connection(cramped.address) as late:
            through = is_echoed(late)
    assert is_echoed(first)
    first.close()
    assert cramped.close() == ("", "")


def test_a_proxy_that_no_descriptor_is_free_for_is_refused_clearly(cramped: Cramped) -> None:
    # Each proxy takes one descriptor, and nothing gives one back.
    answers = [
        cramped.call("POST", "/proxies", {"name": f"q{number}", "upstream": "127.0.0.1:1"})
        for number in range(DESCRIPTORS)
    ]
    made = [document["name"] for status, document in answers if status == 201]
    refused = [document for status, document in answers if status != 201]
    assert made
    assert refused
    assert {each["status"] for each in refused} == {503}
    assert {each["error"] for each in refused} == {"listen tcp 127.0.0.1:0: Too many open files"}
    assert set(cramped.call("GET", "/proxies")[1]) == {"p", *made}
    for name in made:
        assert cramped.call("DELETE", f"/proxies/{name}")[0] == 204
    assert cramped.call("POST", "/proxies", {"name": "r", "upstream": "127.0.0.1:1"})[0] == 201


def test_the_reserve_gives_up_what_it_has_and_takes_it_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    reserve = Reserve()
    assert [reserve.give_up() for _ in range(KEPT_BACK + 1)] == [True] * KEPT_BACK + [False]
    for _ in range(KEPT_BACK + 1):
        reserve.take_back()
    assert len(os.listdir("/proc/self/fd")) == before + KEPT_BACK
    reserve.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_engine_may_have_as_many_descriptors_as_the_system_allows(engine: Engine) -> None:
    soft, hard = resource.prlimit(engine.pid, resource.RLIMIT_NOFILE)
    assert soft == hard


# --- a full disk -------------------------------------------------------------------------


needs_full_disk = pytest.mark.skipif(not FULL_DISK.exists(), reason="no /dev/full here")
# The engine with a mistake in it: each dial fails in a way that nobody thought of.
MISTAKEN = (
    "from pytest_tcpresilience.engine import endpoints\n"
    "async def dial(address): raise ZeroDivisionError('a mistake')\n"
    "endpoints.dial = dial\n"
)


@needs_full_disk
def test_an_engine_whose_words_meet_a_full_disk_goes_on(
    monkeypatch: pytest.MonkeyPatch, server4: RawServer
) -> None:
    path, _, rest = process._BOOT.partition("from ")
    monkeypatch.setattr(process, "_BOOT", f"{path}\n{MISTAKEN}from {rest}")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: FULL_DISK.open("w+b", buffering=0))
    engine = Engine(timeout_s=WAIT_S)
    try:
        upstream = f"127.0.0.1:{server4.port}"
        proxy = engine.call("POST", "/proxies", {"name": "p", "upstream": upstream})
        with socket.create_connection(("127.0.0.1", int(proxy["listen"].split(":")[1]))) as client:
            assert see(client).what in ("EOF", "ECONNRESET")
        events = engine.call("GET", "/resilience/proxies/p/events?after=1&wait=5")
        assert [event["kind"] for event in events] == ["closed", "internal_error"]
        assert "ZeroDivisionError('a mistake')" in events[-1]["error"]
        assert engine.call("GET", "/proxies") == {"p": proxy}
    finally:
        engine.stop()


@needs_full_disk
def test_a_complaint_that_cannot_be_printed_is_no_further_trouble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FULL_DISK.open("w", buffering=1) as full:
        monkeypatch.setattr("sys.stderr", full)
        complain(ZeroDivisionError())
        with pytest.raises(OSError, match="No space left"):
            full.close()
    complain(ZeroDivisionError())  # closed


def test_no_place_for_the_engines_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(HarnessError, match="the engine cannot start: no temporary file") as caught:
        Engine(timeout_s=WAIT_S)
    assert "No space left on device" in caught.value.happened
    assert "TMPDIR" in caught.value.advice


@needs_full_disk
def test_serve_says_in_a_line_that_standard_output_is_full() -> None:
    with FULL_DISK.open("w") as full:
        done = subprocess.run(
            [*COMMAND, "--port", "0"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=WAIT_S,
        )
    wanted = "pytest-tcpresilience: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, wanted)


# --- ports and addresses -----------------------------------------------------------------


def test_a_privileged_port_is_refused_clearly(http: RawHttp, name: str) -> None:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", 1))
        except PermissionError:
            pass
        else:
            pytest.skip("this user may bind port 1")
    body = {"name": name, "listen": "127.0.0.1:1", "upstream": "127.0.0.1:7001"}
    answer = http("POST", "/proxies", body)
    assert answer.status == 400
    assert answer.error.startswith("listen tcp 127.0.0.1:1: Permission denied")
    assert http("GET", f"/proxies/{name}").status == 404


@pytest.mark.parametrize("listen", ["[2001:db8::1]:0", "192.0.2.1:0"])
def test_an_address_that_this_machine_does_not_have_is_refused_clearly(
    http: RawHttp, name: str, listen: str
) -> None:
    body = {"name": name, "listen": listen, "upstream": "127.0.0.1:7001"}
    answer = http("POST", "/proxies", body)
    assert answer.status == 400
    assert answer.error.startswith(f"listen tcp {listen}: ")
    assert http("GET", f"/proxies/{name}").status == 404


def test_one_proxys_trouble_is_not_anothers(
    http: RawHttp, proxy: ProxyFactory, server4: RawServer, name: str
) -> None:
    created = proxy(server4.address)
    address = ("127.0.0.1", int(created["listen"].rpartition(":")[2]))
    with socket.create_connection(address) as client:
        upstream = server4.accept()
        for listen in (created["listen"], "192.0.2.1:0", "no-such-host.invalid:0"):
            body = {"name": name, "listen": listen, "upstream": "127.0.0.1:7001"}
            assert http("POST", "/proxies", body).status == 400
            assert http("PATCH", f"/proxies/{created['name']}", {"listen": "x"}).status == 400
        client.sendall(b"still here")
        assert receive(upstream, 10) == b"still here"
