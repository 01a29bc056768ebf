"""The same scenarios on real links and in virtual time: mechanism, errno and moment agree.

A scenario is a fault, what the client does then, and the client's settings. Its row is run on
trio twice: behind a real link to a real echo server, and on the virtual Linux stack. A real
kernel is late; the virtual one is not. So the virtual time must be at most 20 ms above the
real one, and the real one within the kernel's lateness of the virtual one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from pytest_tcpresilience import Keepalive, LinkFactory, UsageError, detects_break
from pytest_tcpresilience.evidence import causes
from pytest_tcpresilience.kernel import capabilities
from pytest_tcpresilience.tcp.windows import EARLY_S, SCHEDULING_S, WHEEL_FLOOR_S, WHEEL_SHARE
from pytest_tcpresilience.virtual.run import VirtualTcp
from tests.servers import EchoServer
from tests.virtual.worlds import PORT, connected, serving

FAST = Keepalive(1, 1, 2)
# A real link lets the client's acknowledgement come before it cuts; virtual ones are not late.
DELAYED_ACK_S = 0.050
# Twelve clients and their watchers in one process share an interpreter.
THREADS_S = 0.5


@dataclass(frozen=True)
class Scenario:
    """:param within: the limit of the wait, in seconds. :param data: written after the fault.
    :param code: the errno that the application gets; ``None`` for an end of stream."""

    name: str
    strike: Callable[[Any], object]
    mechanism: str
    code: int | None
    settings: Keepalive = FAST
    data: bytes = b""
    within: float = 5.0


SCENARIOS = (
    Scenario("silent_drop-idle", lambda link: link.silent_drop(), "keepalive", errno.ETIMEDOUT),
    Scenario(
        "silent_drop-idle-user_timeout",
        lambda link: link.silent_drop(),
        "keepalive",
        errno.ETIMEDOUT,
        Keepalive(1, 1, 9, user_timeout=2.0),
    ),
    Scenario(
        "silent_drop-write-user_timeout",
        lambda link: link.silent_drop(),
        "user_timeout",
        errno.ETIMEDOUT,
        Keepalive(1, 1, 2, user_timeout=1.0),
        data=b"request",
    ),
    Scenario("evict-reset-idle", lambda link: link.evict("reset"), "reset", errno.ECONNRESET),
    Scenario(
        "evict-reset-write",
        lambda link: link.evict("reset"),
        "reset",
        errno.ECONNRESET,
        data=b"request",
    ),
    Scenario("evict-drop-idle", lambda link: link.evict("drop"), "keepalive", errno.ETIMEDOUT),
    Scenario("evict-reset_both", lambda link: link.evict("reset_both"), "reset", errno.ECONNRESET),
    Scenario("evict-fin", lambda link: link.evict("fin"), "fin", None),
    Scenario("reset", lambda link: link.reset(), "reset", errno.ECONNRESET),
    Scenario("hang_up", lambda link: link.hang_up(), "fin", None),
    Scenario("time_out", lambda link: link.time_out(1.0), "fin", None),
    Scenario("refuse", lambda link: link.refuse_connections(), "refused", errno.ECONNREFUSED),
)


@dataclass(frozen=True)
class Noticed:
    """:param after: seconds from the last byte before the fault, or from the fault if later
    ones do not count: a kernel's clock does not begin with the cut."""

    mechanism: str
    code: int | None
    after: float


async def play(link: Any, scenario: Scenario) -> Noticed:
    """One row, on either kind of link; the code is the same."""
    refused = scenario.mechanism == "refused"
    stream = None if refused else await connected(scenario.settings, host=link.host, port=link.port)
    with detects_break(link, within=scenario.within) as detection:
        scenario.strike(link)
        if stream is None:
            await trio.open_tcp_stream(link.host, link.port)
        else:
            if scenario.data:
                await stream.send_all(scenario.data)
            if await stream.receive_some() == b"":
                raise EOFError
    if stream is not None:
        await trio.aclose_forcefully(stream)
    assert detection.exception is not None
    code = causes.facts(detection.exception).code
    hit = next(event for event in detection.timeline if event.kind == "fault_hit")
    return Noticed(str(detection.mechanism), code, detection.after + hit["idle_for"])


def in_virtual_time(scenario: Scenario) -> Noticed:
    virtual = VirtualTcp()
    virtual.host("server")
    link = virtual(f"server:{PORT}")

    async def main() -> Noticed:
        async with serving(virtual):
            return await play(link, scenario)

    return virtual.run(main)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_in_virtual_time(scenario: Scenario) -> None:
    noticed = in_virtual_time(scenario)
    assert (noticed.mechanism, noticed.code) == (scenario.mechanism, scenario.code)


def test_on_real_links(tcp_link: LinkFactory, echo_server: EchoServer) -> None:
    """All rows side by side: none of them takes more than three seconds."""
    if capabilities.probe().missing:
        pytest.skip(f"this machine cannot do {', '.join(capabilities.probe().missing)}")
    links = {each.name: tcp_link(echo_server.address) for each in SCENARIOS}
    noticed: dict[str, Noticed] = {}

    def one(scenario: Scenario) -> None:
        noticed[scenario.name] = trio.run(play, links[scenario.name], scenario)

    async def all_at_once() -> None:
        async with trio.open_nursery() as nursery:
            for scenario in SCENARIOS:
                nursery.start_soon(trio.to_thread.run_sync, one, scenario)

    trio.run(all_at_once)
    assert len(noticed) == len(SCENARIOS)
    for scenario in SCENARIOS:
        real, virtual = noticed[scenario.name], in_virtual_time(scenario)
        assert (real.mechanism, real.code) == (virtual.mechanism, virtual.code), scenario.name
        late = WHEEL_SHARE * virtual.after + WHEEL_FLOOR_S + SCHEDULING_S + THREADS_S
        assert -EARLY_S - DELAYED_ACK_S <= real.after - virtual.after <= late, scenario.name


def test_the_two_kinds_of_links_are_told_apart() -> None:
    with pytest.raises(UsageError, match=r"what tcp_link\(upstream\), or virtual_tcp\(upstream\)"):
        detects_break("server:7", within=1.0)  # type: ignore[arg-type]
