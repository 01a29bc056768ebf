"""Scenarios in virtual time: on links of the simulated network, between two of its Linux hosts.

Judged twice where links are: by ``detects_break``, and by a capture at the watched end, read as
in the lab. The two must agree. What real networks do and links do not is played on the path.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from pytest_tcpresilience import detects_break
from pytest_tcpresilience.lab.segment import Segment
from pytest_tcpresilience.tcp.stacks import Linux
from pytest_tcpresilience.virtual.link import VirtualLink
from pytest_tcpresilience.virtual.path import Path
from pytest_tcpresilience.virtual.run import VirtualTcp
from tests.groundtruth import links
from tests.groundtruth.ends import LATE, TCP_SYNCNT, WAIT_S, Ended, name_of
from tests.groundtruth.judge import mechanism_of
from tests.groundtruth.scenarios import (
    CLOSES,
    CONNECTS,
    CUT_S,
    NEVER_S,
    OUTLIVES,
    WRITES,
    Observed,
    Scenario,
)

PORT = 7
OWN_TIMEOUT_S = 1.0
# Round trips enough for what was sent to be acknowledged: one takes 1 ms.
SETTLED_S = 0.010

# Causes of rows that links cannot show, each as what the path does.
ON_PATH: dict[str, Callable[[Path], None]] = {
    "icmp": lambda path: path.unplug(unreachable=True),
    "drop": lambda path: path.unplug(),
}
# And those that nothing in virtual time does.
UNPLAYED = {
    "no_carrier": "hosts of the simulated network have no queue of their own that could refuse a "
    "segment: all that they send is on its way",
    "fin_lost": "nothing on a virtual path loses one kind of segment, and a virtual link's "
    "`lose_close` is that of real links",
}


@dataclass
class World:
    """A network with one link, and the two ends of one connection, or none yet."""

    virtual: VirtualTcp
    link: VirtualLink
    scenario: Scenario
    client: Any
    listener: Any
    server: Any = None

    @property
    def now(self) -> float:
        """Seconds since the run began. By itself the network is only as late as its last event."""
        self.link.sync()
        return self.virtual.network.now

    @property
    def watched(self) -> Any:
        return self.client if self.scenario.end == "client" else self.server

    def capture(self) -> list[Segment]:
        """All that the watched end's host has seen, as a lab's capture has it. No TTL is known."""
        host = self.virtual.host(self.scenario.end)
        found = []
        for seen in self.virtual.trace.at(host.name):
            one, ours = seen.segment, seen.segment.source[0] == host.address
            ends, numbers = (one.source, one.destination), (one.seq, one.ack)
            size = len(one.payload)
            found.append(Segment(seen.at, *ends, one.flags, *numbers, size, one.window, 0, ours))
        return found


def playable(scenario: Scenario) -> bool:
    return bool(scenario.fault) or scenario.causes[0] in ON_PATH


def run(scenario: Scenario) -> Observed:
    """One scenario in a network of its own. It takes milliseconds."""
    virtual = VirtualTcp()
    watched = virtual.host(scenario.end)
    virtual.host("server")
    watched.stack = Linux(tcp_retries2=scenario.retries2)
    link = virtual(f"server:{PORT}")

    async def main() -> Observed:
        with trio.fail_after(NEVER_S + 2 * WAIT_S):
            with virtual.host("server"):
                listener = trio.socket.socket()
            await listener.bind(("server", PORT))
            listener.listen()
            with trio.socket.socket() as client, listener:
                return await _play(World(virtual, link, scenario, client, listener))
        raise AssertionError("unreachable")

    return virtual.run(main)


async def _play(world: World) -> Observed:
    scenario = world.scenario
    if scenario.does == CONNECTS:
        return await _break(world, world.now)
    await _open(world)
    last = world.capture()[-1].at
    with world.server:
        if scenario.does == OUTLIVES:
            return await _outlive(world)
        if scenario.end == "client" and scenario.fault and scenario.mechanism is not None:
            return await _break(world, last)
        return await _watch(world, last)


async def _open(world: World) -> None:
    """A connection that has carried a byte each way, acknowledged."""
    await world.client.connect((world.link.host, PORT))
    world.server, _ = await world.listener.accept()
    world.scenario.settings.apply(world.watched)
    for sender, receiver in ((world.client, world.server), (world.server, world.client)):
        await sender.send(b"x")
        assert await receiver.recv(1) == b"x"
    await trio.sleep(SETTLED_S)


def _strike(world: World) -> Any:
    # Faults of both kinds of link are called the same; their classes are not.
    link: Any = world.link
    return links.STRIKES[world.scenario.fault](link)


async def _watch(world: World, last: float) -> Observed:
    """Ends that ``detects_break`` does not watch, and those that never notice."""
    scenario = world.scenario
    fault = _strike(world) if scenario.fault else None
    if fault is None:
        ON_PATH[scenario.causes[0]](world.virtual.path("client", "server"))
    if scenario.does == CLOSES:
        world.client.close()  # and so it hits
    hit = await fault.until_hit(WAIT_S) if fault else world.now
    ended = await _use(world, hit)
    mechanism, evidence = mechanism_of(ended, world.capture(), hit, scenario)
    return Observed(mechanism, ended.error, ended.at - hit, hit - last, evidence)


async def _break(world: World, last: float) -> Observed:
    """As a user's test would have it, and by the capture."""
    hit = world.now
    ended = Ended(None, hit)
    with detects_break(world.link, within=links.within(world.scenario)) as detection:
        hit = await _strike(world).until_hit(WAIT_S)
        ended = await _use(world, hit)
        if ended.error == "EOF":
            raise EOFError("end of the stream")
        if ended.own_timeout:
            raise TimeoutError("timed out")
        assert ended.error is not None
        raise OSError(getattr(errno, ended.error), "of the watched end")
    mechanism, evidence = mechanism_of(ended, world.capture(), hit, world.scenario)
    assert str(detection.mechanism) == mechanism, "the verdict is not what the capture shows"
    return Observed(mechanism, ended.error, ended.at - hit, hit - last, evidence)


async def _use(world: World, hit: float) -> Ended:
    """What the watched end does, and how its wait ended. Within as long as no row waits."""
    scenario, connects = world.scenario, world.scenario.does == CONNECTS
    limit = OWN_TIMEOUT_S if connects and not scenario.attempts else NEVER_S
    with trio.move_on_after(limit):
        try:
            got = await (_connect(world) if connects else _talk(world))
        except OSError as error:
            return Ended(name_of(error), world.now)
        return Ended("data" if got else "EOF", world.now)
    return Ended(None, hit + limit, own_timeout=True)


async def _connect(world: World) -> bytes:
    if world.scenario.attempts:
        world.client.setsockopt(trio.socket.IPPROTO_TCP, TCP_SYNCNT, world.scenario.attempts)
    await world.client.connect((world.link.host, PORT))
    return b"connected"


async def _talk(world: World) -> bytes:
    if world.scenario.does == WRITES:
        await world.watched.send(LATE)
    return bytes(await world.watched.recv(65536))


async def _outlive(world: World) -> Observed:
    ends = (world.client, world.server)
    with _strike(world):
        for sock in ends:
            await sock.send(LATE)
        await trio.sleep(CUT_S)
    lifted = world.now
    for sock in ends:
        assert await sock.recv(len(LATE)) == LATE
    return Observed("survives", "data", world.now - lifted, 0.0, "both ends' bytes came")
