"""Middleboxes on a path: what each does to a flow that it has forgotten."""

from __future__ import annotations

import errno

import pytest

from pytest_tcpresilience.tcp.middleboxes import Middlebox
from pytest_tcpresilience.virtual.states import State
from pytest_tcpresilience.virtual.timers import Options
from tests.virtual.wire import Wire, connect


def behind(then: str, *, proxy: bool = False, client: Options | None = None) -> Wire:
    box = Middlebox(60, then, "box", proxy=proxy)
    wire = connect(client, boxes=[box], latency=0.001)
    wire.run(1)
    return wire


def ends(wire: Wire) -> tuple[State, int, State, int]:
    client, server = wire.client.machine, wire.server.machine
    return client.state, client.error, server.state, server.error


ESTABLISHED, CLOSED = State.ESTABLISHED, State.CLOSED


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        ("reset", (CLOSED, errno.ECONNRESET, ESTABLISHED, 0)),
        ("drop", (ESTABLISHED, 0, ESTABLISHED, 0)),
        ("reset_both", (CLOSED, errno.ECONNRESET, CLOSED, errno.ECONNRESET)),
        ("fin", (State.CLOSE_WAIT, 0, State.CLOSE_WAIT, 0)),
    ],
)
def test_the_next_write_of_a_forgotten_flow(
    then: str, expected: tuple[State, int, State, int]
) -> None:
    wire = behind(then)
    wire.run(100)
    wire.client.write(b"after the break")
    wire.run(5)
    assert ends(wire) == expected
    assert wire.server.read(100) == b""


@pytest.mark.parametrize("then", ["reset_both", "fin"])
def test_some_boxes_tell_at_the_moment_itself(then: str) -> None:
    wire = behind(then)
    wire.run(58.9)
    assert ends(wire)[::2] == (ESTABLISHED, ESTABLISHED)
    wire.run(1)
    assert ESTABLISHED not in ends(wire)


def test_only_what_comes_in_is_dropped_until_something_goes_out() -> None:
    wire = behind("drop_inbound")
    wire.run(100)
    wire.server.write(b"news")
    wire.run(1)
    assert wire.client.read(100) == b""
    wire.client.write(b"question")
    wire.run(10)
    assert wire.server.read(100) == b"question"
    assert wire.client.read(100) == b"news"


def test_new_connections_pass() -> None:
    wire = behind("reset")
    wire.run(100)
    address = wire.client_host.claim((wire.client_host.address, 0))
    again = wire.client_host.connect(address, wire.client.peer, Options())
    wire.run(1)
    assert again.machine.state is ESTABLISHED


def test_a_box_that_speaks_is_read_to_the_end() -> None:
    """Both FINs of a proxy are acknowledged, and both ends can close in peace."""
    wire = behind("fin")
    wire.run(100)
    wire.client.close()
    wire.server.close()
    wire.run(300)
    assert ends(wire) == (CLOSED, 0, CLOSED, 0)


def test_probes_keep_a_flow_alive_but_not_with_a_proxy() -> None:
    options = Options(True, 30, 10, 3)
    alive = behind("reset", client=options)
    alive.run(3600)
    assert ends(alive) == (ESTABLISHED, 0, ESTABLISHED, 0)
    proxied = behind("reset", proxy=True, client=Options(True, 30, 10, 3))
    proxied.run(3600)
    assert ends(proxied)[:2] == (CLOSED, errno.ECONNRESET)


def test_a_box_that_is_asked_just_in_time_remembers() -> None:
    wire = behind("drop")
    for _ in range(5):
        wire.run(58)
        wire.client.write(b"x")
    wire.run(1)
    assert wire.server.read(100) == b"xxxxx"
