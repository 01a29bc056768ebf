"""One engine for several processes: what each of them sees, and what outlives whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from pytest_tcpresilience.control import Engine, EngineOwner, Invitation
from pytest_tcpresilience.control import engine as engine_module
from pytest_tcpresilience.control.sharing import SharedEngine, can_share
from pytest_tcpresilience.errors import EngineDied, HarnessError
from tests.contract.peers import WAIT_S

pytestmark = pytest.mark.skipif(not can_share(), reason="needs pidfd_open")

# A worker: says what it sees before and after it has made a proxy of its own.
WORKER = """
import json, sys
from pytest_tcpresilience.control import Engine, Invitation
engine = Engine(10, shared=Invitation.from_json(json.loads(sys.argv[1])))
before = sorted(engine.call("GET", "/proxies"))
made = engine.call("POST", "/proxies", {"name": "mine", "upstream": "127.0.0.1:9"})
print(json.dumps([engine.pid, before, made["listen"]]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def shared() -> Iterator[SharedEngine]:
    engine = SharedEngine()
    yield engine
    engine.stop()


@pytest.fixture
def joined(shared: SharedEngine) -> Iterator[Engine]:
    engine = Engine(WAIT_S, shared=shared.invitation)
    yield engine
    engine.stop()


def test_nothing_is_started_before_somebody_connects(shared: SharedEngine) -> None:
    children = {child.pid for child in psutil.Process().children()}
    engine = Engine(WAIT_S, shared=shared.invitation)
    assert {child.pid for child in psutil.Process().children()} - children == {engine.pid}
    engine.stop()


def test_what_a_process_makes_is_its_own_and_ends_with_it(
    shared: SharedEngine, joined: Engine
) -> None:
    import json
    import socket

    joined.call("POST", "/proxies", {"name": "mine", "upstream": "127.0.0.1:9"})
    document = json.dumps(shared.invitation.to_json())
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, document], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert worker.stdout is not None
        pid, before, listen = json.loads(worker.stdout.readline())
        assert pid == joined.pid
        assert before == []
        host, _, port = listen.rpartition(":")
        socket.create_connection((host, int(port))).close()
    finally:
        worker.kill()
        worker.communicate()
    for _ in range(1000):
        try:
            socket.create_connection((host, int(port))).close()
        except ConnectionRefusedError:
            break
        threading.Event().wait(0.01)
    else:
        pytest.fail("a killed process's proxy still listens")
    assert list(joined.call("GET", "/proxies")) == ["mine"]


def test_letting_go_of_it_does_not_end_it(shared: SharedEngine, joined: Engine) -> None:
    other = Engine(WAIT_S, shared=shared.invitation)
    assert other.pid == joined.pid
    other.stop()
    other.stop()
    assert not other.alive
    assert joined.call("GET", "/proxies") == {}


def test_its_death_is_told_to_all_and_the_next_one_replaces_it(
    shared: SharedEngine, joined: Engine
) -> None:
    os.kill(joined.pid, signal.SIGKILL)
    joined._process.wait(WAIT_S)  # type: ignore[union-attr]
    with pytest.raises(EngineDied) as caught:
        joined.call("GET", "/proxies")
    assert "killed by signal 9" in caught.value.happened
    successor = Engine(WAIT_S, shared=shared.invitation)
    assert successor.pid != joined.pid
    # The address is the same; what is asked of the dead one is not done by the living one.
    with pytest.raises(EngineDied):
        joined.call("POST", "/proxies", {"name": "mine", "upstream": "127.0.0.1:9"})
    assert successor.call("GET", "/proxies") == {}
    successor.stop()


def test_its_last_words_reach_whoever_shares_it(shared: SharedEngine, joined: Engine) -> None:
    assert shared._process is not None
    os.write(shared._process._words.fileno(), b"Traceback: out of cheese\n")
    os.kill(joined.pid, signal.SIGKILL)
    with pytest.raises(EngineDied) as caught:
        joined.call("GET", "/proxies")
    assert caught.value.happened == (
        "it was killed by signal 9; its last words:\nTraceback: out of cheese"
    )


@pytest.mark.parametrize("path", ["/proxies", "/proxies/unknown"], ids=["answers", "refuses"])
def test_a_successor_that_answers_for_the_dead_is_not_heard(
    joined: Engine, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """It ends after it was seen alive, and the next one answers at the same address."""
    assert joined._calls is not None
    ask = joined._calls.call

    def ask_after_its_end(*args: Any, **kwargs: Any) -> Any:
        os.kill(joined.pid, signal.SIGKILL)
        joined._process.wait(WAIT_S)  # type: ignore[union-attr]
        return ask(*args, **kwargs)

    monkeypatch.setattr(joined._calls, "call", ask_after_its_end)
    with pytest.raises(EngineDied, match="killed by signal 9"):
        joined.call("GET", path)


def test_an_invitation_that_leads_nowhere() -> None:
    stopped = SharedEngine()
    stopped.stop()
    with pytest.raises(HarnessError, match="the run's shared engine cannot be used") as caught:
        Engine(WAIT_S, shared=stopped.invitation)
    assert "started by the run's controller" in caught.value.expected


def test_stopping_twice_is_fine_and_leaves_nothing(shared: SharedEngine) -> None:
    engine = Engine(WAIT_S, shared=shared.invitation)
    engine.stop()
    shared.stop()
    shared.stop()
    assert not psutil.pid_exists(engine.pid)
    assert "tcpresilience-shared-engine" not in {each.name for each in threading.enumerate()}


def test_where_its_life_cannot_be_followed_an_own_one_is_started(
    shared: SharedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(engine_module, "SharedProcess", refuse)
    owner = EngineOwner(shared=shared.invitation)
    try:
        engine = owner.engine(WAIT_S)
        assert isinstance(engine, Engine)
        assert engine.port != shared.invitation.port
        assert engine.call("GET", "/proxies") == {}
    finally:
        owner.stop()


def test_an_invitation_survives_the_way_to_a_worker() -> None:
    invitation = Invitation(port=1, secret="s")
    assert Invitation.from_json(invitation.to_json()) == invitation
