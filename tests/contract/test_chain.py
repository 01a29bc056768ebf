"""A link whose toxics happen in another server: who does what, and who is to blame.

The other server is our own ``serve`` here, which speaks the same API, so that these tests
run everywhere. The cases of the other modules run on the real one where it is installed.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_tcpresilience.control import Carrier, Engine, EngineOwner
from pytest_tcpresilience.control import toxiproxy as toxiproxy_module
from pytest_tcpresilience.control.chain import Chain
from pytest_tcpresilience.control.naming import Maker
from pytest_tcpresilience.control.toxiproxy import (
    ToxiproxyServer,
    ToxiproxyVersionWarning,
    describe,
)
from pytest_tcpresilience.engine_choice import EngineChoice
from pytest_tcpresilience.errors import FaultUnavailable, HarnessError, UsageError
from pytest_tcpresilience.link import Link
from pytest_tcpresilience.settings import Settings
from pytest_tcpresilience.upstream import Upstream
from tests.contract.peers import WAIT_S, receive, see
from tests.contract.test_serve import Served
from tests.servers import EchoServer


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.process.kill()
    served.process.communicate()


def url_of(served: Served) -> str:
    return f"http://{served.host}:{served.port}"


def there(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(served.get("/proxies")[1])
    return found


@pytest.fixture
def owner(served: Served) -> Iterator[EngineOwner]:
    owner = EngineOwner(EngineChoice(engine=url_of(served)))
    yield owner
    owner.stop()


def chain_of(owner: EngineOwner) -> Chain:
    carrier = owner.engine(WAIT_S)
    assert isinstance(carrier, Chain)
    return carrier


@pytest.fixture
def make(owner: EngineOwner, echo_server: EchoServer) -> Iterator[Callable[[], Link]]:
    links: list[Link] = []

    def make() -> Link:
        carrier = chain_of(owner)
        upstream = Upstream.parse((echo_server.host, echo_server.port))
        links.append(Link(carrier, owner.next_name(), upstream, Settings(), "127.0.0.1"))
        return links[-1]

    yield make
    for link in links:
        link.close()


def client_of(link: Link) -> socket.socket:
    client = socket.create_connection((link.host, link.port), timeout=WAIT_S)
    client.sendall(b"hello")
    assert receive(client, 5) == b"hello"
    return client


# --- who does what -----------------------------------------------------------------------


def test_a_stream_toxic_is_the_servers_and_a_cut_is_the_hops(
    served: Served, make: Callable[[], Link], owner: EngineOwner
) -> None:
    link = make()
    hop = chain_of(owner).hop
    with link.latency(5) as latency, link.silent_drop() as drop:
        theirs = there(served)[link.name]["toxics"]
        ours = hop.call("GET", f"/proxies/{link.name}/toxics")
        assert [each["type"] for each in theirs] == ["latency"]
        assert [each["type"] for each in ours] == ["silent_drop"]
        assert (latency.name, drop.name) == ("latency", "silent_drop")
    assert there(served)[link.name]["toxics"] == []
    assert hop.call("GET", f"/proxies/{link.name}/toxics") == []


def test_the_toxic_acts_and_the_cut_cuts(make: Callable[[], Link]) -> None:
    link = make()
    with client_of(link) as client:
        with link.latency(100):
            begun = time.monotonic()
            client.sendall(b"x")
            assert receive(client, 1) == b"x"
            assert time.monotonic() - begun >= 0.1
        link.reset()
        assert see(client).what == "ECONNRESET"
        assert [event.kind for event in link.events].count("fault_hit") == 1


def test_both_proxies_end_with_the_link(served: Served, make: Callable[[], Link]) -> None:
    link = make()
    assert list(there(served)) == [link.name]
    link.close()
    assert there(served) == {}


def test_one_connection_cannot_be_chosen_there(
    owner: EngineOwner, make: Callable[[], Link]
) -> None:
    link = make()
    body = {"type": "latency", "attributes": {"latency": 1, "connection": 1}}
    with pytest.raises(FaultUnavailable, match="Toxiproxy cannot act on one connection"):
        chain_of(owner).call("POST", f"/proxies/{link.name}/toxics", body)


# --- addresses between machines ----------------------------------------------------------


def server_with(served: Served, **choice: str) -> ToxiproxyServer:
    engine = url_of(served)
    return ToxiproxyServer(engine, EngineChoice(engine=engine, **choice), WAIT_S)


def test_an_upstream_on_our_loopback_has_another_address_there(served: Served) -> None:
    server = server_with(served, upstream_host="host.docker.internal")
    for number, (given, seen) in enumerate(
        {
            "127.0.0.1:5432": "host.docker.internal:5432",
            "localhost:5432": "host.docker.internal:5432",
            "[::1]:5432": "host.docker.internal:5432",
            "db:5432": "db:5432",
        }.items()
    ):
        server.open(f"p{number}", given)
        assert there(served)[f"p{number}"]["upstream"] == seen


def test_its_proxies_listen_where_they_are_told_and_are_reached_elsewhere(
    served: Served, echo_server: EchoServer
) -> None:
    server = server_with(served, toxiproxy_listen="0.0.0.0", toxiproxy_host="localhost")
    address = server.open("p", f"127.0.0.1:{echo_server.port}")
    assert there(served)["p"]["listen"].startswith("0.0.0.0:")
    host, _, port = address.rpartition(":")
    assert host == "localhost"
    socket.create_connection((host, int(port)), timeout=WAIT_S).close()


def free_ports(count: int) -> range:
    """A range of which all ports are free at this moment."""
    for first in range(20_000, 30_000, 17):
        socks = []
        try:
            for port in range(first, first + count):
                socks.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            continue
        finally:
            for sock in socks:
                sock.close()
        return range(first, first + count)
    raise AssertionError("no free ports")


def test_ports_are_taken_from_the_range_until_it_is_used_up(served: Served) -> None:
    ports = free_ports(3)
    server = server_with(served, toxiproxy_ports=f"{ports[0]}-{ports[-1]}")
    with socket.create_server(("127.0.0.1", ports[0])):
        made = {int(server.open(f"p{i}", "127.0.0.1:9").rpartition(":")[2]) for i in range(2)}
        assert made == {ports[1], ports[2]}
        with pytest.raises(HarnessError, match="the port range is used up") as caught:
            server.open("p3", "127.0.0.1:9")
    assert f"{ports[0]}-{ports[-1]}" in caught.value.expected
    assert set(there(served)) == {"p0", "p1"}
    server.delete("p0")
    server.open("p4", "127.0.0.1:9")


def test_what_it_cannot_make_is_said_with_its_answer(served: Served) -> None:
    server = server_with(served, toxiproxy_listen="192.0.2.1")
    with pytest.raises(HarnessError, match="cannot make a proxy") as caught:
        server.open("p", "127.0.0.1:9")
    assert "192.0.2.1" in caught.value.expected
    assert "status 400" in caught.value.happened


# --- other people's proxies --------------------------------------------------------------


def create(served: Served, name: str) -> None:
    body = json.dumps({"name": name, "listen": "127.0.0.1:0", "upstream": "127.0.0.1:9"}).encode()
    with socket.create_connection((served.host, served.port), timeout=WAIT_S) as sock:
        head = f"POST /proxies HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        sock.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)
        assert b"201" in sock.makefile("rb").readline()


def test_leftovers_of_a_killed_run_are_removed_and_nothing_else(served: Served) -> None:
    me = Maker(toxiproxy_module._machine(), os.getpid(), 1)
    dead = me.name(time.time(), "link-1")  # our number, but another beginning
    alive = server_with(served).name("link-1")
    elsewhere = Maker("00000000", 1, 1).name(time.time(), "link-1")
    for name in (dead, alive, elsewhere, "redis"):
        create(served, name)
    server_with(served)
    assert set(there(served)) == {alive, elsewhere, "redis"}


def test_the_fixtures_object_leaves_others_alone(
    served: Served, owner: EngineOwner, make: Callable[[], Link]
) -> None:
    create(served, "theirs")
    link = make()
    chain = chain_of(owner)
    with chain.toxiproxy() as toxiproxy:
        theirs = toxiproxy.get_proxy("theirs")
        theirs.add_toxic(type="latency", attributes={"latency": 1})
        mine = toxiproxy.create(name="mine", upstream="127.0.0.1:9")
        mine.disable()
        link.latency(5)
        assert toxiproxy.reset() is True
        assert toxiproxy.get_proxy("mine").enabled
        assert toxiproxy.get_proxy(link.name).toxics() == {}
        assert list(theirs.toxics()) == ["latency_downstream"]
        with pytest.raises(UsageError, match="populate would replace proxies") as caught:
            toxiproxy.populate([{"name": "theirs", "upstream": "127.0.0.1:10", "listen": ""}])
        assert "theirs" in caught.value.happened
        toxiproxy.populate([{"name": "more", "upstream": "127.0.0.1:9", "listen": "127.0.0.1:0"}])
        toxiproxy.destroy_all()
        assert set(toxiproxy.proxies()) == {"theirs", link.name}
        toxiproxy.create(name="forgotten", upstream="127.0.0.1:9")
    assert set(there(served)) == {"theirs", link.name}


KILLED = """
import json, sys, time
from pytest_tcpresilience.control import EngineOwner
from pytest_tcpresilience.engine_choice import EngineChoice
from pytest_tcpresilience.link import Link
from pytest_tcpresilience.settings import Settings
from pytest_tcpresilience.upstream import Upstream
owner = EngineOwner(EngineChoice(engine=sys.argv[1]))
carrier = owner.engine(10)
link = Link(carrier, owner.next_name(), Upstream.parse("127.0.0.1:9"), Settings(), "127.0.0.1")
print(carrier.pid, flush=True)
time.sleep(60)
"""


def test_a_killed_runs_proxies_are_deleted_by_its_engine(served: Served) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, url_of(served)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert run.stdout is not None
        engine = int(run.stdout.readline())
        assert len(there(served)) == 1
        run.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + WAIT_S
        while there(served) or Path(f"/proc/{engine}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        run.kill()
        run.communicate()


# --- a server that fails -----------------------------------------------------------------


def test_one_that_dies_in_mid_test_is_to_blame_once(
    served: Served, owner: EngineOwner, make: Callable[[], Link]
) -> None:
    link = make()
    with client_of(link) as client:
        served.process.kill()
        served.process.wait()
        assert see(client).what in ("EOF", "ECONNRESET"), "the client does not hang"
    with pytest.raises(HarnessError, match="is gone; the client under test is not to blame"):
        link.latency(5)
    link.close()  # was said
    assert not chain_of(owner).server.alive


def test_one_that_dies_unnoticed_is_told_at_the_end(
    served: Served, make: Callable[[], Link]
) -> None:
    link = make()
    served.process.kill()
    served.process.wait()
    with pytest.raises(HarnessError, match="is gone") as caught:
        link.close()
    assert "DELETE" in caught.value.expected
    link.close()


def test_one_that_was_restarted_has_forgotten_the_link(
    served: Served, make: Callable[[], Link]
) -> None:
    link, other = make(), make()
    chain = link._engine
    assert isinstance(chain, Chain)
    chain.server.call("DELETE", f"/proxies/{link.name}")
    with pytest.raises(HarnessError, match="has forgotten a link; the client") as caught:
        link.latency(5)
    assert "restarted" in caught.value.happened
    link.close()
    other.close()
    assert there(served) == {}


class Fake(http.server.BaseHTTPRequestHandler):
    answer = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    do_DELETE = do_GET

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def fake() -> Iterator[Callable[[bytes], str]]:
    """A server that says one thing, whatever it is asked; its URL."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(answer: bytes) -> str:
        handler = type("Handler", (Fake,), {"answer": answer})
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,)).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def attach(url: str, timeout_s: float = WAIT_S) -> ToxiproxyServer:
    return ToxiproxyServer(url, EngineChoice(engine=url), timeout_s)


@pytest.mark.parametrize("answer", [b"<html>hello</html>", b"{}", b'{"version": 2}', b"\xff"])
def test_something_else_listens_there(fake: Callable[[bytes], str], answer: bytes) -> None:
    url = fake(answer)
    with pytest.raises(HarnessError, match=f"no Toxiproxy answers at {url}"):
        attach(url)
    assert describe(EngineChoice(engine=url), WAIT_S) == f"Toxiproxy (no answer) at {url}"


def test_something_that_speaks_no_http_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:

        def greet() -> None:
            client, _ = sock.accept()
            with client:
                client.sendall(b"220 mail.example ESMTP\r\n")

        greeter = threading.Thread(target=greet)
        greeter.start()
        with pytest.raises(HarnessError, match="no Toxiproxy answers at"):
            attach(f"http://127.0.0.1:{sock.getsockname()[1]}")
        greeter.join()


def test_nothing_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    with pytest.raises(HarnessError, match="no Toxiproxy answers at") as caught:
        attach(url)
    assert "start the server first" in caught.value.advice


def test_one_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(HarnessError, match=f"Toxiproxy at {url} did not answer"):
            attach(url, 0.2)


def test_one_that_hangs_later_does_not_hang_toxiproxy_python(served: Served) -> None:
    import requests

    server = server_with(served)
    server.timeout_s = 0.2
    with server.toxiproxy() as toxiproxy:
        os.kill(served.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(requests.Timeout):
                toxiproxy.proxies()
        finally:
            os.kill(served.process.pid, signal.SIGCONT)


def test_one_that_is_too_old(fake: Callable[[bytes], str]) -> None:
    with pytest.raises(UsageError, match="is too old"):
        attach(fake(b"1.2.1"))


def test_one_that_is_newer_than_any_we_know(fake: Callable[[bytes], str]) -> None:
    url = fake(b'{"version": "3.1.0"}')
    with (
        pytest.warns(ToxiproxyVersionWarning, match=r"is version 3\.1\.0; tested is up to 2\.12"),
        warnings.catch_warnings(),
    ):
        attach(url)
    assert describe(EngineChoice(engine=url), WAIT_S) == f"Toxiproxy 3.1.0 at {url}"


# --- a server of the run's own -----------------------------------------------------------


def own(program: Path | str) -> EngineOwner:
    return EngineOwner(EngineChoice(engine="toxiproxy", toxiproxy=str(program)))


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_program_that_is_not_there() -> None:
    owner = own("no-such-toxiproxy")
    with pytest.raises(HarnessError, match="there is no Toxiproxy server to start") as caught:
        owner.engine(WAIT_S)
    assert "--resilience-toxiproxy=PATH" in caught.value.advice
    assert owner.started is None
    choice = EngineChoice(engine="toxiproxy", toxiproxy="no-such-toxiproxy")
    assert describe(choice, WAIT_S) == "Toxiproxy (there is no no-such-toxiproxy)"


def test_a_program_that_ends_at_once(tmp_path: Path) -> None:
    program = script(tmp_path / "broken", "echo out of cheese; exit 3")
    with pytest.raises(HarnessError, match="the Toxiproxy server did not start") as caught:
        own(program).engine(WAIT_S)
    assert "out of cheese" in caught.value.happened
    assert "does not run" in describe(
        EngineChoice(engine="toxiproxy", toxiproxy=str(program)), WAIT_S
    )


# Speaks the API, and takes its arguments as Toxiproxy's server does.
STAND_IN = f"""
case $1 in -version) echo toxiproxy-server version 2.12.0; exit;; esac
exec {sys.executable} -m pytest_tcpresilience serve --host "$2" --port "$4"
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    return script(tmp_path / "toxiproxy-server", STAND_IN)


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


def test_it_is_started_on_a_free_port_and_ends_with_the_run(stand_in: Path) -> None:
    choice = EngineChoice(engine="toxiproxy", toxiproxy=str(stand_in))
    assert describe(choice, WAIT_S) == f"Toxiproxy 2.12.0 ({stand_in})"
    owner = EngineOwner(choice)
    chain = chain_of(owner)
    (server,) = children(chain.pid)
    assert chain.server.version == "2.12.0"
    owner.stop()
    wait_until_gone(server)


def test_it_ends_with_an_engine_that_is_killed(stand_in: Path) -> None:
    owner = own(stand_in)
    chain = chain_of(owner)
    (server,) = children(chain.pid)
    os.kill(chain.pid, signal.SIGKILL)
    wait_until_gone(server)
    successor = chain_of(owner)
    assert successor.server.alive
    owner.stop()


def test_the_same_one_serves_all_who_share_the_engine(stand_in: Path) -> None:
    owner = own(stand_in)
    chain = chain_of(owner)
    again = chain.hop.call("POST", "/resilience/toxiproxy", {"program": "/nonexistent"})
    assert again["port"] == chain.server.port
    owner.stop()


def test_without_a_secret_nobody_has_programs_started(served: Served) -> None:
    body = b'{"program": "/bin/true"}'
    with socket.create_connection((served.host, served.port), timeout=WAIT_S) as sock:
        head = "POST /resilience/toxiproxy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert b" 404 " in sock.makefile("rb").readline()


def test_an_engine_and_a_chain_are_carriers(owner: EngineOwner) -> None:
    carriers: list[Carrier] = [chain_of(owner), chain_of(owner).hop]
    assert [isinstance(each, Engine) for each in carriers] == [False, True]
    assert {each.pid for each in carriers} == {carriers[0].pid}
