"""Abrupt ends in every state of a connection leave nothing behind in the engine."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from pytest_tcpresilience.control import Engine
from pytest_tcpresilience.errors import HarnessError
from pytest_tcpresilience.kernel import capabilities, cuts
from tests.contract.peers import WAIT_S, RawServer, close_with_reset, receive_all, see

LONG_MS = 600_000


@dataclass
class Stage:
    """A proxy of an engine, a server behind it, and one connection."""

    engine: Engine
    server: RawServer
    name: str
    client: socket.socket
    upstream: socket.socket | None = None

    @property
    def path(self) -> str:
        return f"/proxies/{self.name}"

    @property
    def ends(self) -> list[socket.socket]:
        return [self.client] if self.upstream is None else [self.client, self.upstream]

    def toxic(self, type_: str, **attributes: int | str) -> None:
        body = {"type": type_, "attributes": attributes}
        self.engine.call("POST", f"{self.path}/toxics", body)

    def connect(self) -> None:
        proxy = self.engine.call("GET", self.path)
        host, _, port = proxy["listen"].rpartition(":")
        self.client.settimeout(WAIT_S)
        self.client.connect((host, int(port)))

    def establish(self) -> None:
        self.connect()
        self.upstream = self.server.accept()
        self.client.sendall(b"ping")
        assert self.upstream.recv(4) == b"ping"
        self.upstream.sendall(b"pong")
        assert self.client.recv(4) == b"pong"

    def sent_by_server(self, data: bytes) -> None:
        assert self.upstream is not None
        self.upstream.sendall(data)

    def connections(self) -> list[object]:
        return list(self.engine.call("GET", f"/resilience{self.path}/connections"))


# --- states ------------------------------------------------------------------------------


def before_the_dial(stage: Stage) -> None:
    stage.toxic("stall")
    stage.connect()


def dialling(stage: Stage) -> None:
    cuts.silence_listener(stage.server._listener)
    stage.connect()


def just_accepted(stage: Stage) -> None:
    stage.connect()
    stage.upstream = stage.server.accept()


def full_buffers(stage: Stage) -> None:
    stage.establish()
    for sock in stage.ends:
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                sock.send(b"x" * 65536)
        sock.settimeout(WAIT_S)


def client_half_closed(stage: Stage) -> None:
    stage.establish()
    assert stage.upstream is not None
    stage.client.shutdown(socket.SHUT_WR)
    assert receive_all(stage.upstream) == b""


def server_half_closed(stage: Stage) -> None:
    stage.establish()
    assert stage.upstream is not None
    stage.upstream.shutdown(socket.SHUT_WR)
    assert receive_all(stage.client) == b""


def limit_reached(stage: Stage) -> None:
    stage.establish()
    stage.toxic("limit_data", bytes=1)
    stage.sent_by_server(b"too much")
    assert receive_all(stage.client) == b"t"


def slow_close_pending(stage: Stage) -> None:
    stage.establish()
    stage.toxic("slow_close", delay=LONG_MS)
    assert stage.upstream is not None
    stage.upstream.shutdown(socket.SHUT_WR)


def with_toxic(type_: str, **attributes: int | str) -> Callable[[Stage], None]:
    def put_on(stage: Stage) -> None:
        stage.establish()
        stage.toxic(type_, **attributes)
        with contextlib.suppress(OSError):  # a fault that has closed it
            stage.client.send(b"held up")
            stage.sent_by_server(b"held up")

    return put_on


STATES: dict[str, Callable[[Stage], None]] = {
    "before the dial": before_the_dial,
    "dialling": dialling,
    "just accepted": just_accepted,
    "idle": Stage.establish,
    "full buffers": full_buffers,
    "client half-closed": client_half_closed,
    "server half-closed": server_half_closed,
    "limit reached": limit_reached,
    "slow close pending": slow_close_pending,
    "latency": with_toxic("latency", latency=LONG_MS),
    "no bandwidth": with_toxic("bandwidth", rate=0),
    "timeout pending": with_toxic("timeout", timeout=LONG_MS),
    "reset pending": with_toxic("reset_peer", timeout=LONG_MS),
    "stalled": with_toxic("stall"),
    "time-out pending": with_toxic("time_out", timeout=LONG_MS),
    "silent": with_toxic("silent_drop"),
    "evicted, drop": with_toxic("evict_drop"),
    "evicted, reset": with_toxic("evict_reset"),
    "hung up": with_toxic("hang_up"),
    "hung up on the client": with_toxic("hang_up", side="client"),
    "reset to the server": with_toxic("reset", side="server"),
    "evicted, drop inbound": with_toxic("evict_drop_inbound"),
    "silent to the server": with_toxic("silent_drop", direction="to_server"),
    "not read": with_toxic("stop_reading", side="both"),
    "close to be lost": with_toxic("lose_close"),
    "behind a box": with_toxic("middlebox"),
    "bytes counted": with_toxic("stall", after_bytes=1000),
}
# Where neither a held connection nor a dead line keeps a reset from being noticed.
NOTICED = set(STATES) - {
    "before the dial",
    "stalled",
    "time-out pending",
    "silent",
    "evicted, drop",
    "evicted, reset",
    "hung up on the client",  # who is still lingered for
    "close to be lost",  # whichever reset comes first
}


# --- ends --------------------------------------------------------------------------------


def both_reset(stage: Stage) -> None:
    for sock in stage.ends:
        close_with_reset(sock)


def server_resets(stage: Stage) -> None:
    close_with_reset(stage.ends[-1])


def both_close(stage: Stage) -> None:
    for sock in stage.ends:
        sock.close()


def disabled(stage: Stage) -> None:
    stage.engine.call("PATCH", stage.path, {"enabled": False})


def moved(stage: Stage) -> None:
    stage.engine.call("PATCH", stage.path, {"upstream": "127.0.0.1:1"})


ENDS: dict[str, Callable[[Stage], None]] = {
    "client resets": lambda stage: close_with_reset(stage.client),
    "client closes": lambda stage: stage.client.close(),
    "server resets": server_resets,
    "server closes": lambda stage: stage.ends[-1].close(),
    "both reset": both_reset,
    "both close": both_close,
    "proxy disabled": disabled,
    "proxy moved": moved,
    "everything reset": lambda stage: stage.engine.call("POST", "/reset"),
    "proxy deleted": lambda stage: stage.engine.call("DELETE", stage.path),
}
# After these no connection is left, whatever the state.
FINAL = {"proxy disabled", "proxy moved", "proxy deleted"}


@pytest.fixture(scope="module")
def own_engine() -> Iterator[Engine]:
    """Whose descriptors are counted, so nobody else's are among them."""
    engine = Engine(timeout_s=WAIT_S)
    yield engine
    engine.stop()


def descriptors(engine: Engine) -> int:
    return len(os.listdir(f"/proc/{engine.pid}/fd"))


def await_count(count: Callable[[], int], most: int, of: str) -> None:
    """Polled: the end of a task has no event."""
    deadline = time.monotonic() + WAIT_S
    while (left := count()) > most:
        assert time.monotonic() < deadline, f"{left} left, and not {most}: {of}"
        time.sleep(0.002)


@contextlib.contextmanager
def deleted(engine: Engine, name: str) -> Iterator[None]:
    """A proxy that goes also when its row of the table fails, or has deleted it."""
    try:
        yield
    finally:
        with contextlib.suppress(HarnessError):
            engine.call("DELETE", f"/proxies/{name}")


def play(engine: Engine, state: str, end: str) -> None:
    server = RawServer("127.0.0.1")
    upstream = f"127.0.0.1:{server.port}"
    engine.call("POST", "/proxies", {"name": "p", "upstream": upstream})
    with contextlib.closing(server), socket.socket() as client, deleted(engine, "p"):
        stage = Stage(engine, server, "p", client)
        STATES[state](stage)
        ENDS[end](stage)
        if end != "proxy deleted":
            if end in FINAL or (end == "both reset" and state in NOTICED):
                await_count(lambda: len(stage.connections()), 0, f"connections, {state}, {end}")
            events = engine.call("GET", "/resilience/proxies/p/events")
            assert not [each for each in events if each["kind"] == "internal_error"]
            engine.call("DELETE", stage.path)  # and every socket with it
        # Each socket of the engine is gone, so whoever still listens hears of it.
        for sock in stage.ends:
            if sock.fileno() >= 0:
                while (seen := see(sock)).what == "data":
                    pass
                assert seen.what in ("EOF", "ECONNRESET", "EPIPE"), (state, end)


NEEDED = ("silence", "heal", "silence_listener", "evict", "deafen", "mute")


@pytest.mark.parametrize("state", STATES)
def test_whatever_ends_in_a_state_leaves_nothing_behind(own_engine: Engine, state: str) -> None:
    lacking = capabilities.probe().lacks(
        ("silence", "heal", "silence_listener", "evict", "deafen", "mute")
    )
    if lacking:
        pytest.skip(lacking)
    own_engine.call("GET", "/proxies")  # the connection for calls is there
    before = descriptors(own_engine)
    for end in ENDS:
        play(own_engine, state, end)
    await_count(lambda: descriptors(own_engine), before, "descriptors")
    assert own_engine.last_words() == "", "a mistake would have been printed"


def test_the_states_of_the_table_exist() -> None:
    assert set(STATES) > NOTICED
    assert set(ENDS) > FINAL
