"""The engine's seed: shown, settable, and what decides who is hit."""

from __future__ import annotations

import socket

import pytest

from pytest_tcpresilience.control import Engine
from tests.contract.peers import WAIT_S
from tests.contract.rawhttp import RawHttp
from tests.servers import EchoServer

CONNECTIONS = 12


def lucky_ones(engine: Engine, server: EchoServer, *, neighbour: bool) -> list[bool]:
    """Which of a proxy's connections a toxic of toxicity 0.5 leaves alone."""
    upstream = f"127.0.0.1:{server.port}"
    proxy = engine.call("POST", "/proxies", {"name": "seeded", "upstream": upstream})
    address = ("127.0.0.1", int(proxy["listen"].rpartition(":")[2]))
    toxics = "/proxies/seeded/toxics"
    if neighbour:  # which draws, too
        engine.call("POST", toxics, {"type": "latency", "toxicity": 0.5})
    engine.call("POST", toxics, {"type": "limit_data", "toxicity": 0.5})
    spared = []
    for _ in range(CONNECTIONS):
        with socket.create_connection(address, timeout=WAIT_S) as client:
            client.sendall(b"?")
            spared.append(client.recv(1) == b"?")
    engine.call("DELETE", "/proxies/seeded")
    return spared


def test_a_drawn_seed_is_shown(http: RawHttp) -> None:
    assert 0 <= http("GET", "/version").document["seed"] < 2**32


@pytest.mark.parametrize("seed", [0, 4711, -1])
def test_a_given_seed_is_shown(seed: int) -> None:
    engine = Engine(WAIT_S, seed=seed)
    try:
        assert engine.call("GET", "/version")["seed"] == seed
    finally:
        engine.stop()


def test_the_same_seed_hits_the_same_connections(echo_server: EchoServer) -> None:
    runs = []
    for seed, neighbour in ((1, False), (1, True), (2, False)):
        engine = Engine(WAIT_S, seed=seed)
        try:
            runs.append(lucky_ones(engine, echo_server, neighbour=neighbour))
            again = lucky_ones(engine, echo_server, neighbour=neighbour)
        finally:
            engine.stop()
        assert again == runs[-1], "the proxy's name decides, not its age"
    assert runs[0] == runs[1] != runs[2]
    assert set(runs[0]) == {True, False}
