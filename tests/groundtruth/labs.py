"""Scenarios in the lab: real links between real hosts, judged by what was on the wire."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from pytest_tcpresilience.lab.capture import Capture
from pytest_tcpresilience.lab.host import Host
from pytest_tcpresilience.lab.lab import Lab, Trouble
from pytest_tcpresilience.lab.segment import FIN, RST
from tests.groundtruth.ends import LATE, WAIT_S, act, connect, exchange, read_to_the_end
from tests.groundtruth.judge import mechanism_of
from tests.groundtruth.scenarios import (
    CONNECTS,
    CUT_S,
    OUTLIVES,
    WRITES,
    Observed,
    Scenario,
)


@dataclass
class World:
    """A lab with one connection in it, or none yet."""

    lab: Lab
    listener: socket.socket
    client: socket.socket
    server: socket.socket | None = None

    @property
    def accepted(self) -> socket.socket:
        assert self.server is not None
        return self.server

    def close(self) -> None:
        for sock in (self.listener, self.client, self.server):
            if sock is not None:
                sock.close()


def _linger_and_close(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _forget(then: str) -> Callable[[World], Trouble | None]:
    def forget(world: World) -> None:
        world.lab.evict(then)

    return forget


def _no_carrier(world: World) -> Trouble:
    _wait_for_carrier(world.lab.client, True)
    trouble = world.lab.pull_cable("client")
    _wait_for_carrier(world.lab.client, False)
    return trouble


def _wait_for_carrier(host: Host, wanted: bool) -> None:
    deadline = time.monotonic() + WAIT_S
    while host.has_carrier is not wanted:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _firewall_reboots(world: World) -> None:
    with world.lab.silence():  # while it is off
        world.lab.evict("reset")


def _router_reboots(world: World) -> None:
    world.lab.router.reboot(down=CUT_S)


def _port_closed(world: World) -> None:
    world.listener.close()


def _server_killed(world: World) -> None:
    _linger_and_close(world.accepted)


def _client_vanishes(world: World) -> None:
    world.lab.pull_cable("client")
    world.client.close()


def _fin_lost(world: World) -> None:
    world.lab.lose_close()
    world.client.close()


# One for each of scenarios.CAUSES. What it returns can be lifted.
STRIKES: dict[str, Callable[[World], Trouble | None]] = {
    "server_cable": lambda world: world.lab.pull_cable("server"),
    "client_cable": lambda world: world.lab.pull_cable("client"),
    "no_carrier": _no_carrier,
    "drop": lambda world: world.lab.silence(),
    "icmp": lambda world: world.lab.unreachable("host", "both"),
    "router_reboots": _router_reboots,
    "forgets_drop": _forget("drop"),
    "forgets_reset": _forget("reset"),
    "firewall_reboots": _firewall_reboots,
    "server_restarts": lambda world: world.lab.crash("server"),
    "forges_rst": _forget("reset_both"),
    "forges_fin": _forget("fin"),
    "server_killed": _server_killed,
    "server_closes": lambda world: world.accepted.close(),
    "server_frozen": lambda world: None,  # nobody reads its socket from now on
    "port_closed": _port_closed,
    "forgets_inbound": _forget("drop_inbound"),
    "client_vanishes": _client_vanishes,
    "fin_lost": _fin_lost,
}


def run(scenario: Scenario, cause: str, *, own_user: bool = False) -> tuple[Observed, str]:
    """One scenario in a lab of its own.

    :returns: what was observed, and the capture at the watched end.
    """
    with Lab(own_user=own_user) as lab:
        watched = lab.client if scenario.end == "client" else lab.server
        watched.sysctl("net.ipv4.tcp_retries2", scenario.retries2)
        listener = lab.server.listen()
        capture = watched.capture()
        world = World(lab, listener, lab.client.socket())
        with contextlib.closing(world):
            seen = _play(world, scenario, cause, watched, capture)
        capture.stop()
        return seen, capture.listing()


def _play(
    world: World, scenario: Scenario, cause: str, watched: Host, capture: Capture
) -> Observed:
    address = world.listener.getsockname()
    if scenario.does == CONNECTS:
        begun = time.monotonic()
        STRIKES[cause](world)
        ended = connect(world.client, address, scenario.attempts)
        mechanism, evidence = mechanism_of(ended, capture.segments, begun, scenario)
        # What ends it counts from its own call, as the fault has been there for long.
        first = next(each.at for each in capture.segments if each.at >= begun)
        return Observed(mechanism, ended.error, ended.at - first, 0.0, evidence)
    end = _open(world, scenario, address)
    last = capture.segments[-1].at
    begun = time.monotonic()
    trouble = STRIKES[cause](world)
    if scenario.does == OUTLIVES:
        return _outlive(world, trouble)
    since = time.monotonic() if scenario.does == WRITES else begun
    act(end, scenario)
    ended = read_to_the_end(end, since)
    seen = [each for each in capture.segments if each.at >= begun]
    mechanism, evidence = mechanism_of(ended, seen, since, scenario)
    if scenario.told:
        since = next(each.at for each in seen if each.flags & (RST | FIN) and not each.outgoing)
    return Observed(mechanism, ended.error, ended.at - since, begun - last, evidence)


def _open(world: World, scenario: Scenario, address: tuple[str, int]) -> socket.socket:
    """The watched end of a connection that has carried a byte each way."""
    if scenario.end == "client":
        scenario.settings.apply(world.client)
    world.client.settimeout(WAIT_S)
    world.client.connect(address)
    world.server = world.listener.accept()[0]
    if scenario.end == "server":
        scenario.settings.apply(world.server)
    exchange(world.client, world.server)
    return world.client if scenario.end == "client" else world.server


def _outlive(world: World, trouble: Trouble | None) -> Observed:
    ends = (world.client, world.accepted)
    if trouble is not None:
        for sock in ends:
            sock.sendall(LATE)
        time.sleep(CUT_S)
        trouble.lift()
    else:  # it was over before anybody could write
        for sock in ends:
            sock.sendall(LATE)
    lifted = time.monotonic()
    for sock in ends:
        sock.settimeout(WAIT_S)
        assert sock.recv(len(LATE), socket.MSG_WAITALL) == LATE
    return Observed("survives", "data", time.monotonic() - lifted, 0.0, "both ends' bytes came")
