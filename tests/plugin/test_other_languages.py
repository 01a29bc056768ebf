"""Clients that are no Python, and processes of their own: judged from outside all the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_tcpresilience import (
    ExpectationFailed,
    Keepalive,
    Link,
    LinkFactory,
    RecordingServer,
    detects_break,
    recovers,
)

FAST = Keepalive(idle=1, interval=1, probes=1)

# Each client connects, asks, prints what it is answered, waits for more, and prints what has
# become of that. It ends with its standard input.
PYTHON = """
import socket, sys, threading
host, port, idle = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sock = socket.create_connection((host, port))
sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
for option, value in ((socket.TCP_KEEPIDLE, idle), (socket.TCP_KEEPINTVL, 1),
                      (socket.TCP_KEEPCNT, 1)):
    sock.setsockopt(socket.IPPROTO_TCP, option, value)
sock.sendall(b"hello\\n")
print(sock.recv(16).decode(), end="", flush=True)
def wait():
    try:
        sock.recv(16)
    except OSError as error:
        print(error.errno, flush=True)
threading.Thread(target=wait, daemon=True).start()
sys.stdin.read()
"""

# Node sets the idle time; libuv sets 1 s between probes and 10 of them.
NODE = """
const [host, port, idle] = process.argv.slice(-3)
const reconnect = process.env.RECONNECT
function connect() {
  const socket = require('net').connect(port, host, () => socket.write('hello\\n'))
  socket.setKeepAlive(true, idle * 1000)
  socket.on('data', data => process.stdout.write(data))
  socket.on('error', error => {
    if (reconnect) setTimeout(connect, 50); else console.log(error.code)
  })
}
connect()
process.stdin.on('data', () => {}).on('end', () => process.exit())
"""

GO = """
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

func main() {
	idle, _ := strconv.Atoi(os.Args[3])
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: time.Duration(idle) * time.Second, Interval: time.Second, Count: 1,
	}}
	conn, err := dialer.Dial("tcp", net.JoinHostPort(os.Args[1], os.Args[2]))
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() {
		buffer := make([]byte, 16)
		fmt.Fprint(conn, "hello\\n")
		count, _ := conn.Read(buffer)
		os.Stdout.Write(buffer[:count])
		_, err := conn.Read(buffer)
		fmt.Println(errors.Is(err, syscall.ETIMEDOUT))
	}()
	io.ReadAll(os.Stdin)
}
"""


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


@pytest.fixture(scope="module")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go client, built once. KeepAliveConfig came with Go 1.23."""
    go = tool("go")
    directory: Path = tmp_path_factory.mktemp("go")
    (directory / "main.go").write_text(GO)
    (directory / "go.mod").write_text("module client\n\ngo 1.23\n")
    built = subprocess.run(
        [go, "build", "-o", "client", "."],
        cwd=directory,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(Path.home()),
            "GOFLAGS": "-mod=mod",
            "GOTOOLCHAIN": "local",
            "CGO_ENABLED": "0",
        },
        capture_output=True,
        text=True,
        timeout=110,
    )
    if built.returncode:
        pytest.skip(f"go cannot build the client here: {built.stderr.strip()[:200]}")
    return directory / "client"


@pytest.fixture
def link(tcp_link: LinkFactory, recording_server: RecordingServer) -> Link:
    return tcp_link(recording_server.address)


@contextmanager
def running(link: Link, *command: str, idle: int) -> Iterator[subprocess.Popen[str]]:
    """The client in a process of its own, that has had one answer."""
    with subprocess.Popen(
        [*command, link.host, str(link.port), str(idle)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "hello\n"
        yield process
        process.stdin.close()


def read(process: subprocess.Popen[str]) -> str:
    """What the client has to say next."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_python_client_in_another_process(link: Link) -> None:
    with (
        running(link, sys.executable, "-c", PYTHON, idle=1) as client,
        detects_break(link, within=FAST) as detection,
    ):
        link.silent_drop()
        if read(client) == "110":
            detection.mark()
    assert detection.mechanism == "keepalive"  # the witness has seen the probes


def test_a_go_client(link: Link, go_client: Path) -> None:
    with (
        running(link, str(go_client), idle=1) as client,
        detects_break(link, within=FAST) as detection,
    ):
        link.silent_drop()
        if read(client) == "true":
            detection.mark()
    assert detection.mechanism == "keepalive"


def test_a_node_client(link: Link) -> None:
    node = tool("node")
    with (
        running(link, node, "-e", NODE, "--", idle=1) as client,
        detects_break(link, within=3.0) as detection,
    ):
        link.evict()  # the first probe is answered with RST
        if read(client) == "ECONNRESET":
            detection.mark()
    assert detection.mechanism == "reset"
    assert detection.after > 0.5


@pytest.mark.resilience(slack=0.1)
def test_a_node_client_that_is_too_slow(link: Link) -> None:
    """Its settings are read from its socket, and named in the cause."""
    node = tool("node")
    with (
        pytest.raises(ExpectationFailed, match="why: keepalive is on but slower") as caught,
        running(link, node, "-e", NODE, "--", idle=20) as client,
        detects_break(link, within=0.3),
    ):
        link.silent_drop()
        read(client)
    assert "(keepalive 20/1/10, 30.0 s)" in str(caught.value)


def test_a_node_client_that_reconnects(
    link: Link, recording_server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = tool("node")
    monkeypatch.setenv("RECONNECT", "yes")
    with (
        running(link, node, "-e", NODE, "--", idle=1) as client,
        recovers(link, within=5.0, server=recording_server, once=b"hello") as recovery,
    ):
        link.reset()
        assert read(client) == "hello"
    assert recovery.attempts == 1
    assert recovery.time >= 0.05
