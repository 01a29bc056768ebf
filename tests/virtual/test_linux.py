"""The virtual Linux against what was measured on the real one (6.18, 250 Hz).

The tables are those of ``tests/unit/test_windows.py`` and of the facts behind it. Virtual
timers are exact where real ones are late, so a virtual time is at most 20 ms after the
shortest measured one, and the measured ones are within the kernel's lateness of it.
"""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from pytest_tcpresilience.tcp.stacks import Linux
from pytest_tcpresilience.tcp.windows import EARLY_S, WHEEL_FLOOR_S, WHEEL_SHARE
from pytest_tcpresilience.virtual.alarm import Timer
from pytest_tcpresilience.virtual.network import Network
from pytest_tcpresilience.virtual.states import State
from pytest_tcpresilience.virtual.timers import Options
from tests.unit.test_windows import IDLE_ROWS
from tests.virtual.wire import LATENCY_S, PORT, Wire, connect

Settings = tuple[int, int, int]


def keepalive(settings: Settings, user_timeout: float = 0.0) -> Options:
    idle, interval, probes = settings
    return Options(True, idle, interval, probes, user_timeout)


def assert_measured(virtual: float, times: tuple[float, ...]) -> None:
    """A real kernel with these timers would have been seen at these times."""
    latest = virtual * (1 + WHEEL_SHARE) + WHEEL_FLOOR_S
    outside = [each for each in times if not virtual - EARLY_S <= each <= latest]
    assert not outside, f"{outside} measured, {virtual} in virtual time"


def cut_and_wait(wire: Wire, data: bytes = b"") -> float:
    wire.run(0.5)
    if not data:  # the clock of keepalive begins with the last segment
        wire.server.write(b"last")
        wire.run(2 * LATENCY_S)
    wire.path.unplug()
    if data:
        wire.client.write(data)
    return wire.until_dead(wire.client)


@pytest.mark.parametrize(("settings", "user_timeout", "times"), IDLE_ROWS)
def test_idle(settings: Settings, user_timeout: float, times: tuple[float, ...]) -> None:
    wire = connect(keepalive(settings, user_timeout))
    assert_measured(cut_and_wait(wire), times)
    assert wire.client.machine.error == errno.ETIMEDOUT
    assert wire.client.machine.gave_up is Timer.KEEPALIVE
    # As in 10 of 10 captures.
    assert "[R.]" in list(wire.network.trace.lines("client"))[-1]


@pytest.mark.parametrize(
    ("user_timeout", "times"),
    [
        (0.0, (938.66,)),
        (0.5, (0.916, 0.923, 0.924)),
        (1.5, (1.917, 1.923, 1.948)),
        (3.0, (3.417, 3.422, 3.424)),
        (10.0, (10.446, 10.488, 10.489)),
    ],
)
@pytest.mark.parametrize("settings", [(1, 1, 1), (1, 2, 2)])
def test_unacknowledged(settings: Settings, user_timeout: float, times: tuple[float, ...]) -> None:
    """Keepalive is not consulted, whatever it is set to."""
    wire = connect(keepalive(settings, user_timeout))
    assert_measured(cut_and_wait(wire, b"request"), times)
    assert wire.client.machine.error == errno.ETIMEDOUT
    assert wire.client.machine.gave_up is Timer.RETRANSMISSION
    # No RST at the abort.
    assert "[P.]" in list(wire.network.trace.lines("client"))[-1]


@pytest.mark.parametrize(
    ("retries", "measured"),
    [(1, 1.66), (2, 3.33), (3, 6.82), (4, 6.82), (5, 13.43), (15, 938.66)],
)
def test_tcp_retries2(retries: int, measured: float) -> None:
    wire = connect(client_stack=replace(Linux(), tcp_retries2=retries))
    assert_measured(cut_and_wait(wire, b"request"), (measured,))


def test_the_first_retransmissions_are_at_the_measured_times() -> None:
    """A tail loss probe, and then the timeout, which alone starts the user timeout's clock."""
    wire = connect(Options(user_timeout=1.5))
    begun = wire.now + 0.5
    cut_and_wait(wire, b"request")
    sent = [s.at - begun for s in wire.network.trace.at("client") if s.segment.payload]
    assert sent == pytest.approx([0, 0.208, 0.417, 0.840, 1.668], abs=0.012)


def open_to_nobody(options: Options, stack: Linux | None = None) -> tuple[float, int, list[float]]:
    """Seconds until connect() fails, its errno, and the times of its SYNs."""
    network = Network()
    client, server = network.add_host("client", stack), network.add_host("server")
    network.path(client, server).unplug()
    end = client.connect((client.address, 1), (server.address, PORT), options)
    while end.machine.state is not State.CLOSED:
        network.advance(network.next_due)
    return network.now, end.machine.error, [seen.at for seen in network.trace.at("client")]


@pytest.mark.parametrize(("count", "measured"), [(1, 3.06), (2, 7.13), (3, 19.54), (4, 35.67)])
def test_tcp_syncnt(count: int, measured: float) -> None:
    after, error, _ = open_to_nobody(Options(syn_count=count))
    assert_measured(after, (measured,))
    assert error == errno.ETIMEDOUT
    assert_measured(open_to_nobody(Options(), Linux(tcp_syn_retries=count))[0], (measured,))


@pytest.mark.parametrize(
    ("user_timeout", "measured"), [(0.5, 1.02), (1.5, 1.52), (3.0, 3.03), (10.0, 10.07)]
)
def test_the_user_timeout_ends_connect(user_timeout: float, measured: float) -> None:
    assert_measured(open_to_nobody(Options(user_timeout=user_timeout))[0], (measured,))


def test_the_first_syns_come_a_second_apart() -> None:
    *_, syns = open_to_nobody(Options())
    assert syns[:9] == [0, 1, 2, 3, 4, 5, 7, 11, 19]


def close_the_window(wire: Wire) -> None:
    """The server's application reads nothing, and its buffer is full."""
    while wire.client.machine.outgoing.window:
        wire.client.write(bytes(65536))
        wire.run(0.001)
    wire.client.write(b"more")


@pytest.mark.parametrize(("user_timeout", "measured"), [(0.5, 0.76), (1.5, 1.76), (5.0, 5.27)])
def test_the_user_timeout_ends_a_zero_window_of_a_live_peer(
    user_timeout: float, measured: float
) -> None:
    wire = connect(Options(user_timeout=user_timeout))
    close_the_window(wire)
    begun = wire.now
    assert wire.client.machine.timer is Timer.PERSIST
    wire.until_dead(wire.client)
    assert_measured(wire.now - begun, (measured,))
    assert wire.client.machine.gave_up is Timer.PERSIST
    # Each probe twice as late as the one before, and none at the end.
    probes = [s for s in wire.network.trace.at("client") if s.at > begun]
    assert len(probes) <= 2 * 6


def test_keepalive_never_ends_a_zero_window_of_a_live_peer() -> None:
    wire = connect(keepalive((1, 1, 3)))
    close_the_window(wire)
    wire.run(86_400)
    assert wire.client.machine.state is State.ESTABLISHED
    wire.server.read(100_000)
    wire.run(1)
    assert wire.client.machine.timer is Timer.KEEPALIVE


@pytest.mark.parametrize("phase", ["data", "answered probe"])
@pytest.mark.parametrize(
    ("settings", "after"),
    [
        ((1, 3, 1), {"data": 4.07, "answered probe": 6.11}),
        ((1, 2, 2), {"data": 5.06, "answered probe": 6.05}),
        ((3, 1, 1), {"data": 4.07, "answered probe": 4.06}),
    ],
)
def test_an_answered_probe_makes_the_idle_time_the_longer_of_both(
    settings: Settings, after: dict[str, float], phase: str
) -> None:
    wire = connect(keepalive(settings))
    wire.server.write(b"last")
    wire.run(0.1)
    if phase == "answered probe":
        wire.run(settings[0] + 0.1)
    heard_at = wire.network.trace.at("client")[-1].at
    if phase == "data":
        heard_at = wire.network.trace.at("client")[-2].at  # the last is our ACK of it
    wire.path.unplug()
    wire.until_dead(wire.client)
    assert_measured(wire.now - heard_at, (after[phase],))


def test_icmp_gives_the_error_its_name_where_data_is_unacknowledged() -> None:
    wire = connect(keepalive((1, 1, 1), user_timeout=1.5))
    wire.path.unplug(unreachable=True)
    wire.client.write(b"request")
    assert_measured(wire.until_dead(wire.client), (1.92,))
    assert wire.client.machine.error == errno.EHOSTUNREACH


def test_icmp_is_ignored_on_an_idle_connection() -> None:
    wire = connect(keepalive((1, 1, 2)))
    wire.path.unplug(unreachable=True)
    assert_measured(wire.until_dead(wire.client), (3.00,))
    assert wire.client.machine.error == errno.ETIMEDOUT


def test_icmp_ends_connect_at_once() -> None:
    network = Network()
    client, server = network.add_host("client"), network.add_host("server")
    network.path(client, server).unplug(unreachable=True)
    end = client.connect((client.address, 1), (server.address, PORT), Options())
    network.advance(0.1)
    assert end.machine.error == errno.EHOSTUNREACH


def test_an_orphan_is_forgotten_after_its_retries() -> None:
    """close() into silence: FINs at the measured times, and the end at 107 s."""
    wire = connect()
    wire.run(1)
    wire.path.unplug()
    begun = wire.now
    wire.client.close()
    assert_measured(wire.until_dead(wire.client), (107.4,))
    fins = [seen.at - begun for seen in wire.network.trace.at("client")][3:]
    measured = [0, 0.2, 0.4, 0.8, 1.7, 3.3, 6.8, 13.4, 26.7, 53.6]
    assert fins == pytest.approx(measured, rel=0.05)
