"""The lab's hosts and what befalls the network between them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import trio

from pytest_tcpresilience import HarnessError, Lab, Middlebox, UsageError
from pytest_tcpresilience.lab.segment import RST
from tests.lab.conftest import make_lab
from tests.lab.peers import WAIT_S, after, connected, ending

# In which something would have come that does not.
QUIET_S = 0.3


# --- hosts ----------------------------------------------------------------------------------


def test_a_connection_crosses_the_router_and_every_segment_is_captured(any_lab: Lab) -> None:
    near = any_lab.client.capture()
    middle, far = any_lab.router.capture(toward="server"), any_lab.server.capture()
    with connected(any_lab) as ends:
        ends.exchange()
        address = ends.client.getsockname()
        assert address[0] == any_lab.client.address
        assert ends.server.getpeername() == address
        assert any_lab.flows == 1
        there = ends.server.getsockname()
        seen = [capture.between(address, there) for capture in (near, middle, far)]
    assert len(seen[0]) >= 7
    what = [[(each.source, each.letters, each.seq, each.length) for each in one] for one in seen]
    assert sorted(what[0]) == sorted(what[1]) == sorted(what[2])
    # The router has taken one off.
    assert {each.ttl for each in seen[2] if each.source == address} == {63}
    assert [each.at for each in seen[0]] == sorted(each.at for each in seen[0])
    assert abs(seen[0][-1].at - time.monotonic()) < WAIT_S


def test_labs_side_by_side_do_not_know_each_other(lab: Lab) -> None:
    with make_lab() as other, lab.server.listen(4000) as one, other.server.listen(4000) as two:
        for each, listener in ((lab, one), (other, two)):
            with each.client.connect(("10.99.2.2", 4000)) as sock:
                accepted, address = listener.accept()
                accepted.close()
                assert address == sock.getsockname()
        two.close()
        with pytest.raises(ConnectionRefusedError):
            other.client.connect(("10.99.2.2", 4000))
        lab.client.connect(("10.99.2.2", 4000)).close()


def test_a_sysctl_is_one_hosts_own(any_lab: Lab) -> None:
    name = "net.ipv4.tcp_retries2"
    before = any_lab.server.sysctl(name)
    assert any_lab.client.sysctl(name, 3) == "3"
    assert any_lab.client.sysctl(name) == "3"
    assert any_lab.server.sysctl(name) == before != "3"
    with open("/proc/sys/net/ipv4/tcp_retries2") as file:
        assert file.read().strip() != "3"


# --- code and commands ----------------------------------------------------------------------


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = self.client_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def http_url(lab: Lab) -> Iterator[str]:
    with lab.server.inside():
        server = HTTPServer((lab.server.address, 0), Hello)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://{lab.server.address}:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
        text: str = answer.read().decode()
    return text


def test_code_inside_a_host_reaches_the_other_one(lab: Lab, http_url: str) -> None:
    assert lab.client.call(fetch, http_url) == lab.client.address
    assert lab.server.call(fetch, http_url) == lab.server.address


def test_asyncio_inside_a_host(lab: Lab, http_url: str) -> None:
    host, port = http_url[7:-1].split(":")

    async def talk() -> bytes:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        in_thread = await asyncio.to_thread(fetch, http_url)
        return answer + in_thread.encode()

    with lab.client.inside():
        answer = asyncio.run(talk())
    assert answer.count(lab.client.address.encode()) == 2


def test_trio_inside_a_host(lab: Lab, http_url: str) -> None:
    host, port = http_url[7:-1].split(":")

    async def talk() -> bytes:
        stream = await trio.open_tcp_stream(host, int(port))
        async with stream:
            await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
            return b"".join([chunk async for chunk in stream])

    assert lab.client.call(trio.run, talk).endswith(lab.client.address.encode())


def test_only_the_block_is_inside(lab: Lab) -> None:
    """Not another thread, not a socket that exists, and nothing once it is over."""
    original = socket.socket.__init__
    made: list[socket.socket] = []

    def own() -> str:
        """The namespace of a new socket, by its interfaces' addresses."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            made.append(sock)
            try:
                sock.connect(("10.99.2.2", 9))
            except OSError:
                return "outside"
            return str(sock.getsockname()[0])

    outside = own()
    with lab.client.inside():
        assert own() == "10.99.1.2"
        with lab.server.inside():
            assert own() == "10.99.2.2"
        assert own() == "10.99.1.2"
        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.append(own()))
        thread.start()
        thread.join()
        assert seen == [outside]
        left, right = socket.socketpair()
        left.close()
        right.close()
    assert own() == outside != "10.99.1.2"
    assert socket.socket.__init__ is original
    assert len(made) == 6


def test_a_default_timeout_holds_inside(lab: Lab) -> None:
    socket.setdefaulttimeout(4.5)
    try:
        with lab.client.inside(), socket.socket() as sock:
            assert sock.gettimeout() == 4.5
    finally:
        socket.setdefaulttimeout(None)


def test_a_command_runs_on_its_host(any_lab: Lab) -> None:
    script = (
        "import socket, sys; s = socket.create_connection(('10.99.2.2', int(sys.argv[1])));"
        "s.sendall(sys.stdin.readline().encode()); print(s.getsockname()[0])"
    )
    with any_lab.server.listen() as listener:
        command = [sys.executable, "-c", script, str(listener.getsockname()[1])]
        process = any_lab.client.popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        out, _ = process.communicate("hello\n", timeout=WAIT_S)
        with listener.accept()[0] as accepted:
            assert accepted.recv(10) == b"hello\n"
    assert (out, process.returncode) == ("10.99.1.2\n", 0)


def test_a_command_ends_as_it_ends(lab: Lab) -> None:
    with pytest.raises(subprocess.CalledProcessError, match="status 3") as caught:
        lab.client.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (caught.value.stdout, caught.value.stderr) == ("out\n", "err\n")
    assert lab.client.run(["sh", "-c", "exit 4"], check=False).returncode == 4
    missing = lab.client.run(["no-such-program"], check=False)
    assert (missing.returncode, missing.stderr) == (
        127,
        "no-such-program: No such file or directory\n",
    )
    killed = lab.client.run(["sh", "-c", "kill -TERM $$"], check=False)
    assert killed.returncode == -signal.SIGTERM


def test_a_signal_reaches_the_command(lab: Lab) -> None:
    script = "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.02; done"
    with lab.client.popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.communicate(timeout=WAIT_S)[0] == "got it\n"
    assert process.returncode == 5


def test_a_command_that_takes_too_long_is_ended(lab: Lab) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        lab.client.run(["sleep", "600"], timeout=0.2)
    (process,) = lab.processes
    assert process.returncode == -signal.SIGKILL


# --- the network ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "arrives"),
    [("both", (False, False)), ("to_server", (False, True)), ("to_client", (True, False))],
)
def test_silence_is_one_way_or_both(lab: Lab, direction: str, arrives: tuple[bool, bool]) -> None:
    with connected(lab) as ends:
        capture = lab.client.capture()
        with lab.silence(direction) as trouble:
            assert repr(trouble) == f"<silence {direction}>"
            begun = time.monotonic()
            ends.client.sendall(b"request")
            ends.server.sendall(b"answer")
            time.sleep(QUIET_S)
            came = [ending(sock, 0.001)[0] == "data" for sock in (ends.server, ends.client)]
            assert tuple(came) == arrives
            # Only an end that hears the other one knows that its data is there.
            segments = after(capture.segments, begun)
            assert any(not each.outgoing for each in segments) is arrives[1]
            assert not any(each.icmp for each in segments)
        assert repr(trouble) == f"<silence {direction}, lifted>"
        trouble.lift()
        for sock, had_it in zip((ends.server, ends.client), came, strict=True):
            assert had_it or ending(sock)[0] == "data"


@pytest.mark.parametrize(
    ("kind", "code"), [("net", 0), ("host", 1), ("port", 3), ("prohibited", 13)]
)
def test_the_router_says_that_the_server_is_unreachable(lab: Lab, kind: str, code: int) -> None:
    with connected(lab) as ends, lab.client.capture() as capture, lab.unreachable(kind):
        begun = time.monotonic()
        ends.client.sendall(b"x")
        while not any(each.icmp for each in after(capture.segments, begun)):
            assert time.monotonic() - begun < WAIT_S
        errors = [each for each in after(capture.segments, begun) if each.icmp]
        assert errors[0].icmp == (3, code)
        assert errors[0].told_by == "10.99.1.1"


def test_a_lost_close_leaves_the_other_end_as_it_was(lab: Lab) -> None:
    with connected(lab) as ends, lab.lose_close():
        ends.client.close()
        assert ending(ends.server, QUIET_S)[0] == "nothing"
        listed = lab.server.run(["ss", "-tnH", "state", "established"]).stdout
        assert len(listed.splitlines()) == 1


def test_what_only_the_server_sends_is_lost_when_it_comes_in(lab: Lab) -> None:
    """The firewall of a cloud that tracks what goes out: requests are carried out."""
    with connected(lab) as ends:
        lab.evict(then="drop_inbound")
        ends.client.sendall(b"request")
        assert ending(ends.server)[0] == "data"
        ends.server.sendall(b"answer")
        assert ending(ends.client, QUIET_S)[0] == "nothing"


def test_new_connections_pass_a_firewall_that_has_forgotten(lab: Lab) -> None:
    with connected(lab) as old:
        lab.evict(then="drop")
        assert lab.flows == 0
        with connected(lab) as new:
            new.exchange()
        old.client.sendall(b"x")
        assert ending(old.server, QUIET_S)[0] == "nothing"


@pytest.mark.parametrize(("then", "how"), [("reset_both", "ECONNRESET"), ("fin", "EOF")])
def test_an_eviction_that_is_told_reaches_both_ends_of_every_flow(
    any_lab: Lab, then: str, how: str
) -> None:
    with connected(any_lab) as one, connected(any_lab) as other:
        any_lab.evict(then=then)
        for sock in (one.client, one.server, other.client, other.server):
            assert ending(sock)[0] == how


def test_a_host_that_lost_power_remembers_nothing(any_lab: Lab) -> None:
    command = ["sh", "-c", "echo up; exec sleep 600"]
    with connected(any_lab) as ends, any_lab.client.capture() as capture:
        with any_lab.server.popen(command, stdout=subprocess.PIPE, text=True) as sleeper:
            assert sleeper.stdout is not None
            assert sleeper.stdout.readline() == "up\n"
            any_lab.crash("server")
            assert sleeper.wait(WAIT_S) == -signal.SIGKILL
        begun = time.monotonic()
        ends.client.sendall(b"x")
        assert ending(ends.client)[0] == "ECONNRESET"
        (reset,) = [each for each in after(capture.segments, begun) if each.has(RST)]
        assert reset.ttl == 63  # its own kernel's, and not the router's
    with connected(any_lab) as ends:
        ends.exchange()


def believes_in_its_cable(lab: Lab) -> bool:
    return lab.client.has_carrier


def test_a_host_notices_its_own_cable(lab: Lab) -> None:
    lab.client.wait_until_running()
    deadline = time.monotonic() + WAIT_S
    with lab.pull_cable("client"):
        while believes_in_its_cable(lab):
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert believes_in_its_cable(lab)
    with connected(lab) as ends:
        ends.exchange()


# --- what makes no sense --------------------------------------------------------------------

MISTAKES: list[tuple[Callable[[Lab], object], str]] = [
    (lambda lab: lab.pull_cable("router"), "host='router' is none of the choices"),
    (lambda lab: lab.crash("router"), "host='router' is none of the choices"),
    (lambda lab: lab.silence("sideways"), "direction='sideways' is none of the choices"),
    (lambda lab: lab.unreachable("tomorrow"), "kind='tomorrow' is none of the choices"),
    (lambda lab: lab.evict("kindly"), "then='kindly' is none of the choices"),
    (lambda lab: lab.put_behind(Middlebox(1.5)), "cannot be middlebox (forgets after 1.5 s"),
    (lambda lab: lab.put_behind(Middlebox(2, "fin")), "tells nobody"),
    (lambda lab: lab.router.reboot(-1), "down=-1 is no time"),
    (lambda lab: lab.router.address, "the router has no address of its own"),
    (lambda lab: lab.router.capture("router"), "host='router' is none of the choices"),
    (lambda lab: lab.client.sysctl("vm.swappiness"), "'vm.swappiness' is no sysctl of a host"),
    (lambda lab: lab.client.sysctl("net.ipv4.nonsense"), "the client has no net.ipv4.nonsense"),
    (
        lambda lab: lab.client.sysctl("net.ipv4.ip_forward", "many"),
        "the client cannot have net.ipv4.ip_forward = many",
    ),
    (lambda lab: lab.client.popen("ls"), "popen on a lab's host takes a list"),
]


def test_mistakes_are_named(lab: Lab) -> None:
    for mistake, message in MISTAKES:
        with pytest.raises(UsageError, match=re.escape(message)):
            mistake(lab)
    # None of them has left anything behind.
    with connected(lab) as ends:
        ends.exchange()


def test_a_lab_that_has_ended_says_so(lab: Lab) -> None:
    lab.close()
    lab.close()
    for use in (lab.client.listen, lab.evict, lab.pull_cable):
        with pytest.raises(UsageError, match="the lab has ended"):
            use()


def test_a_keeper_that_was_killed_is_the_harness_fault(lab: Lab) -> None:
    with contextlib.suppress(ProcessLookupError):
        lab.channel._process.kill()
    lab.channel._process.wait()
    with pytest.raises(HarnessError, match="the lab's keeper does not answer"):
        lab.client.socket()


def test_a_kernel_that_refuses_a_ruleset_is_quoted(lab: Lab) -> None:
    with pytest.raises(HarnessError, match="could not set its router up") as caught:
        lab.channel.run(("router", [lab._nft, "-f", "-"], "nonsense\n"))
    assert "syntax error" in caught.value.happened


def test_a_flow_with_one_end_cannot_be_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_tcpresilience.lab.forger.ANSWER_S", 0.2)
    with connected(lab):
        lab.pull_cable("server")
        with pytest.raises(HarnessError, match="does not say where it stands"):
            lab.evict(then="fin")


def test_an_interface_that_stays_down_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_tcpresilience.lab.host._CARRIER_S", 0.05)
    lab._ip_batch("client", "link set eth0 down\n")
    with pytest.raises(HarnessError, match="the client's eth0 does not come up"):
        lab.client.wait_until_running()


def test_a_capture_that_lost_something_says_so(lab: Lab) -> None:
    capture = lab.client.capture()
    capture._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    # Its reader is kept away meanwhile.
    with capture._lock, connected(lab) as ends:
        for _ in range(50):
            ends.exchange()
    with pytest.raises(HarnessError, match=r"the capture lost \d+ segment"):
        _ = capture.segments
    capture.stop()
