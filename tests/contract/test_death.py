"""How an engine ends: with its owner, when it is told to, and when it is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from pytest_tcpresilience.control import Carrier, Engine, EngineOwner, process
from pytest_tcpresilience.errors import EngineDied, HarnessError
from pytest_tcpresilience.link import Link
from pytest_tcpresilience.settings import Settings
from pytest_tcpresilience.upstream import Upstream
from tests.contract.peers import WAIT_S, RawServer, is_alive, receive, see

# The product's promise; reached by polling, because it is not this process's child.
GONE_WITHIN_S = 2.0


@pytest.fixture
def own_engine() -> Iterator[Engine]:
    """An engine that the test may kill."""
    engine = Engine(timeout_s=WAIT_S)
    yield engine
    engine.stop()


def gone(process_id: int) -> bool:
    deadline = time.monotonic() + GONE_WITHIN_S
    while is_alive(process_id):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def kill(engine: Carrier) -> None:
    os.kill(engine.pid, signal.SIGKILL)


def descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the directory's own
    return found


# --- with its owner ----------------------------------------------------------------------


OWNER = """
    import os, sys, time
    from pytest_tcpresilience.control import Engine
    engine = Engine(timeout_s=10)
    {then}
    print(engine.pid, grandchild, flush=True)
    time.sleep(60)
"""
# A forked child that keeps the owner's end of the engine's standard input open.
FORK = "grandchild = os.fork()\n    if not grandchild: time.sleep(60)"


def run_owner(then: str) -> tuple[subprocess.Popen[bytes], int, int]:
    """A process that owns an engine; its engine's and its forked child's ids."""
    script = textwrap.dedent(OWNER.format(then=then))
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    with owner.stdout as output:
        engine_id, grandchild_id = (int(word) for word in output.readline().split())
    return owner, engine_id, grandchild_id


def test_an_engine_ends_when_its_owner_is_killed() -> None:
    owner, engine_id, _ = run_owner("grandchild = 0")
    assert is_alive(engine_id)
    owner.kill()
    owner.wait()
    assert gone(engine_id)


def test_an_engine_ends_when_its_owner_is_killed_and_a_forked_child_lives_on() -> None:
    owner, engine_id, grandchild_id = run_owner(FORK)
    try:
        assert is_alive(engine_id)
        owner.kill()
        owner.wait()
        assert gone(engine_id)
        assert is_alive(grandchild_id)
    finally:
        os.kill(grandchild_id, signal.SIGKILL)


def test_an_engine_ends_when_its_owner_forgets_it() -> None:
    script = "from pytest_tcpresilience.control import Engine; print(Engine(10).pid, flush=True)"
    run = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)
    assert gone(int(run.stdout))


def test_a_terminals_interrupt_does_not_reach_the_engine(own_engine: Engine) -> None:
    assert os.getpgid(own_engine.pid) != os.getpgid(os.getpid())
    os.kill(own_engine.pid, signal.SIGINT)
    assert own_engine.call("GET", "/proxies") == {}


# --- when it is told to ------------------------------------------------------------------


def test_a_stopped_engine_leaves_no_process_thread_or_descriptor() -> None:
    Engine(timeout_s=WAIT_S).stop()  # what is imported and opened once, is by now
    threads, before = threading.active_count(), descriptors()
    engine = Engine(timeout_s=WAIT_S)
    assert engine.call("GET", "/proxies") == {}
    engine.stop()
    assert not is_alive(engine.pid)
    assert engine.pid not in [child.pid for child in psutil.Process().children()]
    assert threading.active_count() == threads
    assert descriptors().items() <= before.items()  # nothing new


def test_stopping_ends_what_the_engine_carries() -> None:
    engine, server = Engine(timeout_s=WAIT_S), RawServer("127.0.0.1")
    try:
        body = {"name": "p", "upstream": f"127.0.0.1:{server.port}"}
        host, _, port = engine.call("POST", "/proxies", body)["listen"].rpartition(":")
        with socket.create_connection((host, int(port))) as client:
            upstream = server.accept()
            engine.stop()
            assert see(client).what in ("EOF", "ECONNRESET")
            assert see(upstream).what in ("EOF", "ECONNRESET")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))
    finally:
        engine.stop()
        server.close()


def test_stopping_twice_is_fine() -> None:
    engine = Engine(timeout_s=WAIT_S)
    engine.stop()
    engine.stop()
    assert not engine.alive


# --- when it is killed -------------------------------------------------------------------


def test_a_call_to_a_killed_engine_says_how_it_died(own_engine: Engine) -> None:
    kill(own_engine)
    with pytest.raises(EngineDied) as caught:
        own_engine.call("GET", "/proxies")
    assert "killed by signal 9" in caught.value.happened
    assert "its last words" in caught.value.happened
    assert str(own_engine.pid) in caught.value.expected
    assert own_engine.death_is_reported


def test_a_killed_engine_still_says_how_it_died_after_it_was_stopped(own_engine: Engine) -> None:
    kill(own_engine)
    own_engine.stop()
    with pytest.raises(EngineDied, match="killed by signal 9"):
        own_engine.call("GET", "/proxies")


def test_a_traceback_is_among_the_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_BOOT", "raise ZeroDivisionError('the last straw')")
    with pytest.raises(EngineDied) as caught:
        Engine(timeout_s=WAIT_S)
    assert "exited with status 1" in caught.value.happened
    assert "ZeroDivisionError: the last straw" in caught.value.happened


def test_an_owner_replaces_a_killed_engine() -> None:
    owner = EngineOwner()
    try:
        first = owner.engine(WAIT_S)
        assert owner.engine(WAIT_S) is first
        kill(first)
        assert gone(first.pid)
        second = owner.engine(WAIT_S)
        assert second.pid != first.pid
        assert second.call("GET", "/proxies") == {}
    finally:
        owner.stop()
    assert owner.started is None


def test_a_killed_engine_is_not_alive_while_another_thread_waits_for_it(
    own_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Popen.poll() says nothing then, and an owner would hand out the dead engine."""
    assert isinstance(own_engine._process, process.OwnProcess)
    monkeypatch.setattr(own_engine._process._process, "poll", lambda: None)
    assert own_engine.alive
    kill(own_engine)
    assert gone(own_engine.pid)
    assert not own_engine.alive


def test_a_client_behind_a_cut_is_woken_when_the_engine_is_killed(
    own_engine: Engine, server: RawServer
) -> None:
    link = Link(own_engine, "cut", Upstream.parse(server.address), Settings(), server.host)
    with (
        socket.create_connection((link.host, link.port)) as client,
        ThreadPoolExecutor() as pool,
    ):
        client.sendall(b"hello")
        assert receive(server.accept(), 5) == b"hello"
        link.silent_drop()
        waiting = pool.submit(see, client)
        assert not waiting.done()
        kill(own_engine)
        # Its kernel heard nothing: the FIN of a socket under a cut cannot be read.
        assert waiting.result().what == "EOF"


def test_sockets_that_are_not_behind_a_link_are_left_alone_by_that(own_engine: Engine) -> None:
    one, other = socket.socketpair()
    with one, other, socket.socket() as unconnected, socket.create_server(("127.0.0.1", 0)) as on:
        kill(own_engine)
        assert own_engine._mourner is not None
        own_engine._mourner.join()
        one.sendall(b"hello")
        assert other.recv(5) == b"hello"
        unconnected.connect(on.getsockname())
        assert on.fileno() >= 0


# --- when it cannot start ----------------------------------------------------------------


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Whatever failed must have been cleared away."""
    threads, before = threading.active_count(), descriptors()
    yield
    assert threading.active_count() == threads
    assert descriptors().items() <= before.items()  # nothing new


@pytest.mark.usefixtures("nothing_left")
def test_an_interpreter_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(HarnessError, match="the engine cannot start: no subprocess") as caught:
        Engine(timeout_s=WAIT_S)
    assert "a process of /nonexistent/python" in caught.value.expected
    assert "No such file or directory" in caught.value.happened


@pytest.mark.usefixtures("nothing_left")
def test_a_program_that_exits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    false = next(str(path) for path in map(Path, ("/bin/false", "/usr/bin/false")) if path.exists())
    monkeypatch.setattr(sys, "executable", false)
    with pytest.raises(EngineDied) as caught:
        Engine(timeout_s=WAIT_S)
    assert "exited with status 1" in caught.value.happened
    assert "(it said nothing)" in caught.value.happened


@pytest.mark.usefixtures("nothing_left")
def test_a_program_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\nexec cat\n")  # ends with its standard input
    mute.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(mute))
    monkeypatch.setattr(process, "STOP_TIMEOUT_S", 1.0)
    with pytest.raises(HarnessError, match="the engine did not answer"):
        Engine(timeout_s=0.2)


@pytest.mark.usefixtures("nothing_left")
def test_a_machine_without_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> socket.socket:
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(HarnessError, match="the engine cannot start: no loopback") as caught:
        Engine(timeout_s=WAIT_S)
    assert "Cannot assign requested address" in caught.value.happened
    assert "loopback interface" in caught.value.advice


def test_an_engine_without_a_loopback_interface() -> None:
    """In a network namespace of its own, whose loopback interface is down."""
    namespace = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine does not allow network namespaces")
    program = "from pytest_tcpresilience.control import Engine; Engine(5.0)"
    run = subprocess.run(
        [*namespace, sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )
    assert "HarnessError: the engine cannot start: no loopback" in run.stderr
    assert "ip link set lo up" in run.stderr


def test_a_system_that_is_not_posix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "POSIX", False)
    with pytest.raises(HarnessError, match="it needs a POSIX system"):
        Engine(5.0)
