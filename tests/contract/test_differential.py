"""The same bytes under the same toxics, on both engines at once, and what differs."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_tcpresilience.control import Carrier, Engine, EngineOwner
from pytest_tcpresilience.engine_choice import EngineChoice
from pytest_tcpresilience.link import Link
from pytest_tcpresilience.settings import Settings
from pytest_tcpresilience.upstream import Upstream
from tests.contract.peers import WAIT_S, RawServer
from tests.toxiproxy_server import real_toxiproxy

# Timers are never early. How late a loaded machine is, is no engine's doing.
LATE_S = 1.0
# Longer than any pause of a script, and the lateness.
QUIET_S = 2.5


@dataclass(frozen=True)
class Script:
    """What is sent under which toxics.

    :param sends: chunks, with the seconds to wait before each.
    :param closes: whether the sender closes after the last one.
    :param removes: seconds after the last chunk at which the toxics are removed.
    :param first: seconds at which the first byte is due; ``None`` when none arrives.
    :param last: likewise, the last byte. :param end: likewise, the end of the stream.
    """

    name: str
    toxics: tuple[tuple[str, dict[str, int]], ...]
    first: float | None
    last: float | None
    end: float | None
    sends: tuple[tuple[float, int], ...] = ((0.0, 1000),)
    closes: bool = True
    removes: float | None = None


LATENCY = ("latency", {"latency": 200})
SCRIPTS = (
    Script("nothing", (), 0, 0, 0),
    Script("latency", (LATENCY,), 0.2, 0.2, 0.2),
    Script("latency of each", (LATENCY,), 0.2, 0.8, 0.8, ((0, 9), (0.3, 9), (0.3, 9))),
    Script("latency twice", (LATENCY, LATENCY), 0.4, 0.4, 0.4),
    Script("bandwidth", (("bandwidth", {"rate": 100}),), 0, 0.4, 0.4, ((0, 50_000),)),
    Script("slicer", (("slicer", {"average_size": 100, "delay": 20_000}),), 0, 0.18, 0.18),
    Script("slow_close", (("slow_close", {"delay": 400}),), 0, 0, 0.4),
    Script("timeout", (("timeout", {"timeout": 400}),), None, None, 0.4, closes=False),
    Script("timeout for ever", (("timeout", {"timeout": 0}),), None, None, None, closes=False),
    Script(
        "timeout removed",
        (("timeout", {"timeout": 0}),),
        *(None, None, 0.3),
        closes=False,
        removes=0.3,
    ),
    Script("reset_peer", (("reset_peer", {"timeout": 0}),), None, None, 0, closes=False),
    Script("reset_peer later", (("reset_peer", {"timeout": 300}),), None, None, 0, closes=False),
    Script("limit_data", (("limit_data", {"bytes": 700}),), 0, 0, 0, closes=False),
    Script("limit_data not reached", (("limit_data", {"bytes": 7000}),), 0, 0, 0),
    Script("latency, limit_data", (LATENCY, ("limit_data", {"bytes": 5})), 0.2, 0.2, 0.2),
)


@dataclass
class Outcome:
    """What the receiver saw.

    :param arrivals: seconds from the first send to each read.
    :param end: ``"EOF"``, ``"ECONNRESET"`` or ``"open"``. :param ended_at: when, if so.
    """

    data: bytes = b""
    arrivals: list[float] = field(default_factory=list)
    end: str = "open"
    ended_at: list[float] = field(default_factory=list)


@pytest.fixture(scope="module")
def both() -> Iterator[dict[str, Carrier]]:
    program = real_toxiproxy()
    owner = EngineOwner(EngineChoice(engine="toxiproxy", toxiproxy=program))
    embedded = Engine(WAIT_S)
    yield {"embedded": embedded, "toxiproxy": owner.engine(WAIT_S)}
    embedded.stop()
    owner.stop()


def read_all(sock: socket.socket, begun: float) -> Outcome:
    outcome = Outcome()
    # Long enough for whatever a script has in it.
    sock.settimeout(QUIET_S)
    while True:
        try:
            data = sock.recv(65536)
        except ConnectionResetError:
            outcome.end, outcome.ended_at = "ECONNRESET", [time.monotonic() - begun]
            return outcome
        except TimeoutError:
            return outcome
        if not data:
            outcome.end, outcome.ended_at = "EOF", [time.monotonic() - begun]
            return outcome
        outcome.data += data
        outcome.arrivals.append(time.monotonic() - begun)


def add_all(link: Link, script: Script, stream: str) -> list[str]:
    names = []
    for number, (type_, attributes) in enumerate(script.toxics):
        body: dict[str, Any] = {
            "name": f"t{number}",
            "type": type_,
            "stream": stream,
            "attributes": attributes,
        }
        names.append(str(link.call("POST", "/toxics", body)["name"]))
    return names


def run(carrier: Carrier, name: str, script: Script, stream: str) -> Outcome:
    server = RawServer("127.0.0.1")
    upstream = Upstream.parse(server.address)
    link = Link(carrier, name, upstream, Settings(), "127.0.0.1")
    try:
        # The toxics before the connection: on an established one the engines differ.
        toxics = add_all(link, script, stream)
        begun = time.monotonic()  # some toxics count from the opening
        with (
            socket.create_connection((link.host, link.port), timeout=WAIT_S) as client,
            ThreadPoolExecutor(1) as pool,
        ):
            accepted = server.accept()
            sender, receiver = (client, accepted) if stream == "upstream" else (accepted, client)
            source = random.Random(script.name)
            reading = pool.submit(read_all, receiver, begun)
            for pause_s, size in script.sends:
                time.sleep(pause_s)
                with contextlib.suppress(ConnectionError):  # a toxic was quicker
                    sender.sendall(source.randbytes(size))
            if script.removes is not None:
                time.sleep(script.removes)
                for toxic in toxics:
                    link.call("DELETE", f"/toxics/{toxic}")
            if script.closes:
                sender.shutdown(socket.SHUT_WR)
            return reading.result()
    finally:
        link.close()
        server.close()


@pytest.fixture(scope="module")
def outcomes(both: dict[str, Carrier]) -> dict[tuple[str, str, str], Outcome]:
    """All scripts in both directions on both engines, side by side."""
    cases = [
        (engine, script, stream)
        for script in SCRIPTS
        for stream in ("downstream", "upstream")
        for engine in both
    ]
    with ThreadPoolExecutor(len(cases)) as pool:
        found = pool.map(
            lambda case: run(
                both[case[0]], f"{case[0]}-{SCRIPTS.index(case[1])}-{case[2]}", case[1], case[2]
            ),
            cases,
        )
        return {
            (script.name, stream, engine): outcome
            for (engine, script, stream), outcome in zip(cases, found, strict=True)
        }


@pytest.mark.parametrize("stream", ["downstream", "upstream"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_same_script_has_the_same_outcome(
    outcomes: dict[tuple[str, str, str], Outcome], script: Script, stream: str
) -> None:
    ours = outcomes[script.name, stream, "embedded"]
    theirs = outcomes[script.name, stream, "toxiproxy"]
    assert ours.data == theirs.data
    # Toxiproxy's reset is a FIN now and then, as DIFFERENCES says.
    laundered = theirs.end == "EOF" and any(type_ == "reset_peer" for type_, _ in script.toxics)
    assert ours.end == ("ECONNRESET" if laundered else theirs.end)
    for mine, its, due in (
        (ours.arrivals[:1], theirs.arrivals[:1], script.first),
        (ours.arrivals[-1:], theirs.arrivals[-1:], script.last),
        (ours.ended_at, theirs.ended_at, script.end),
    ):
        assert len(mine) == len(its) == (due is not None)
        assert all(due <= at <= due + LATE_S for at in (*mine, *its) if due is not None)
