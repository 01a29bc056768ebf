"""What is measured, each a function of a server and its upstreams; ``None`` for direct.

A measure returns its figures by the name of their row.
"""

from __future__ import annotations

import contextlib
import statistics
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import urllib3

from benchmarks import peers, targets
from benchmarks.peers import Address
from benchmarks.targets import Proxy, Server, proxied
from pytest_tcpresilience.errors import ResilienceError

Upstreams = Mapping[str, Address]
Figures = dict[str, float]


@dataclass(frozen=True)
class Effort:
    """How much of each is done for one figure."""

    megabytes: int = 1500
    round_trips: int = 2000
    connections: int = 500
    calls: int = 100
    delays: int = 10
    idle: tuple[int, ...] = (1_000, 10_000)
    rounds: int = 7


QUICK = Effort(
    megabytes=20, round_trips=50, connections=20, calls=5, delays=2, idle=(10, 20), rounds=1
)
LATENCY_MS = 50
RATE_KB = 2000
LIMITED_BYTES = 1_000_000


def _with_cpu(server: Server | None, name: str, count: int, run: Callable[[], float]) -> Figures:
    """The figure, and the server's CPU time in µs for each of ``count``."""
    if server is None:
        return {name: run()}
    before = targets.cpu_s(server)
    figure = run()
    return {name: figure, f"{name} cpu": (targets.cpu_s(server) - before) * 1e6 / count}


def throughput(server: Server | None, upstreams: Upstreams, effort: Effort) -> Figures:
    with proxied(server, upstreams["sink"]) as proxy:
        count = effort.megabytes
        return _with_cpu(server, "bulk", count, lambda: peers.bulk(proxy.address, count))


def round_trips(server: Server | None, upstreams: Upstreams, effort: Effort) -> Figures:
    figures: Figures = {}
    count = effort.round_trips
    with proxied(server, upstreams["echo"]) as proxy:
        peers.round_trip(proxy.address, 64, 20)
        for size in (1, 64, 16384):

            def run(size: int = size) -> float:
                return peers.round_trip(proxy.address, size, count)

            figures.update(_with_cpu(server, f"rtt {size}", count, run))
    return figures


def connects(server: Server | None, upstreams: Upstreams, effort: Effort) -> Figures:
    with proxied(server, upstreams["echo"]) as proxy:
        count = effort.connections
        return _with_cpu(server, "connects", count, lambda: peers.connects(proxy.address, count))


def _milliseconds(count: int, call: Callable[[], object]) -> float:
    """The median of so many calls."""
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e3


def control(server: Server | None, upstreams: Upstreams, effort: Effort) -> Figures:
    if server is None:
        return {}

    def make_and_end() -> None:
        with proxied(server, upstreams["echo"]):
            pass

    with proxied(server, upstreams["sink"]) as proxy:
        figures = {
            "link": _milliseconds(effort.calls, make_and_end),
            "call idle": _milliseconds(effort.calls, lambda: proxy.call("GET")),
        }
        with peers.busy(proxy.address):
            figures["call busy"] = _milliseconds(effort.calls, lambda: proxy.call("GET"))
    return figures


def blocked_control(server: Server | None, upstreams: Upstreams, effort: Effort) -> Figures:
    """Toxiproxy's issue 558: a toxic goes while the data path cannot get rid of its bytes.

    A server that has not answered by the call's time limit is not asked again.
    """
    if server is None:
        return {}
    proxy = Proxy(server, upstreams["silent"])
    toxic = {"type": "latency", "stream": "upstream", "attributes": {"latency": 1}}
    proxy.call("POST", "/toxics", toxic)
    with peers.blocked(proxy.address):
        begun = time.perf_counter()
        with contextlib.suppress(urllib3.exceptions.HTTPError, ResilienceError):
            proxy.call("DELETE", "/toxics/latency_upstream")
        took = time.perf_counter() - begun
    if took < targets.CALL_TIMEOUT_S:
        proxy.call("DELETE")
    return {"call blocked": took * 1e3}


def fault(server: Server | None, upstreams: Upstreams, effort: Effort) -> Figures:
    """From a call that takes a proxy down to the end that its client sees."""
    if server is None:
        return {}
    times = []
    with proxied(server, upstreams["echo"]) as proxy:
        for _ in range(effort.calls):
            with peers.connect(proxy.address) as sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
                begun = time.perf_counter()
                proxy.call("POST", "", {"enabled": False})
                with contextlib.suppress(ConnectionResetError):
                    assert sock.recv(1) == b""
                times.append(time.perf_counter() - begun)
            proxy.call("POST", "", {"enabled": True})
            # Toxiproxy forgets the port that it had chosen.
            listen = str(proxy.call("GET")["listen"])
            proxy.address = ("127.0.0.1", int(listen.rpartition(":")[2]))
    return {"fault": statistics.median(times) * 1e3}


def accuracy(server: Server | None, upstreams: Upstreams, effort: Effort) -> Figures:
    if server is None:
        return {}
    with proxied(server, upstreams["echo"]) as proxy:
        toxic: dict[str, object] = {"type": "latency", "attributes": {"latency": LATENCY_MS}}
        proxy.call("POST", "/toxics", toxic)
        delay_ms = peers.round_trip(proxy.address, 64, effort.delays) / 1e3
    with proxied(server, upstreams["sink"]) as proxy:
        toxic = {"type": "bandwidth", "stream": "upstream", "attributes": {"rate": RATE_KB}}
        proxy.call("POST", "/toxics", toxic)
        with peers.connect(proxy.address) as sock:
            begun = time.perf_counter()
            sock.sendall(struct.pack("=Q", LIMITED_BYTES) + bytes(LIMITED_BYTES))
            assert sock.recv(1) == b"k"
            rate_kb = LIMITED_BYTES / 1000 / (time.perf_counter() - begun)
    return {"latency error": delay_ms - LATENCY_MS, "rate error": (rate_kb / RATE_KB - 1) * 100}


MEASURES = (throughput, round_trips, connects, control, fault, accuracy)


def memory(server: Server, upstreams: Upstreams, count: int) -> float:
    """KiB of resident memory for each idle connection, above that of a server without."""
    with proxied(server, upstreams["echo"]) as proxy:
        with peers.idle(proxy.address, 10):
            pass
        before = targets.memory_kb(server)
        with peers.idle(proxy.address, count):
            return (targets.memory_kb(server) - before) / count
