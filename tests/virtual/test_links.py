"""Faults and expectations on virtual links: the words of real ones, in no time at all."""

from __future__ import annotations

import errno
import inspect
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import product
from typing import Any

import pytest
import trio

from pytest_tcpresilience import (
    ExpectationFailed,
    Keepalive,
    Link,
    UsageError,
    closes_within,
    detects_break,
    recovers,
    stays_quiet,
    survives,
)
from pytest_tcpresilience.evidence.kinds import KINDS
from pytest_tcpresilience.faults import FAULTS
from pytest_tcpresilience.tcp.middleboxes import Middlebox
from pytest_tcpresilience.virtual.link import VirtualLink
from pytest_tcpresilience.virtual.run import VirtualTcp
from pytest_tcpresilience.virtual.strikes import STRIKES
from tests.virtual.worlds import PORT, connected, keep_alive, serving

FAST = Keepalive(idle=1, interval=1, probes=3)
Program = Callable[[VirtualLink], Awaitable[Any]]


def on_a_link(virtual_tcp: VirtualTcp, program: Program, **serving_args: Any) -> Any:
    """Run the program with a link to an echo server."""
    virtual_tcp.host("server")
    link = virtual_tcp(f"server:{PORT}")

    async def main() -> Any:
        async with serving(virtual_tcp, **serving_args):
            return await program(link)

    return virtual_tcp.run(main)


# --- one catalogue ------------------------------------------------------------------------


def test_every_fault_of_the_catalogue_is_there() -> None:
    assert FAULTS.keys() <= STRIKES.keys()


@pytest.mark.parametrize("name", sorted({row.method for row in FAULTS.values()}))
def test_a_fault_takes_the_arguments_that_it_takes_on_a_real_link(name: str) -> None:
    real = inspect.signature(getattr(Link, name)).parameters
    virtual = inspect.signature(getattr(VirtualLink, name)).parameters
    ours = {each.name: each.default for each in virtual.values()}
    assert {each.name: each.default for each in real.values()}.items() <= ours.items()


def test_the_two_kinds_of_links_are_told_apart() -> None:
    with pytest.raises(UsageError, match=r"what tcp_link\(upstream\), or virtual_tcp\(upstream\)"):
        detects_break("server:7", within=1.0)  # type: ignore[arg-type]


# --- detects_break ------------------------------------------------------------------------

ROWS = [
    # fault, what the client does then, mechanism, error
    ("silent_drop", "wait", "keepalive", errno.ETIMEDOUT),
    ("evict", "wait", "reset", errno.ECONNRESET),
    ("evict:drop", "wait", "keepalive", errno.ETIMEDOUT),
    ("evict:reset_both", "wait", "reset", errno.ECONNRESET),
    ("reset", "wait", "reset", errno.ECONNRESET),
    ("hang_up", "wait", "fin", None),
    ("evict:fin", "wait", "fin", None),
    ("time_out:2", "wait", "fin", None),
    ("silent_drop", "write", "user_timeout", errno.ETIMEDOUT),
]


def strike(link: VirtualLink, fault: str) -> None:
    method, _, word = fault.partition(":")
    arguments: tuple[Any, ...] = (float(word),) if word.isdigit() else (word,) if word else ()
    getattr(link, method)(*arguments)


async def use(stream: trio.SocketStream, how: str) -> None:
    if how == "write":
        await stream.send_all(b"request")
    if await stream.receive_some() == b"":
        raise EOFError


@pytest.mark.parametrize(
    ("fault", "how", "by", "code"), ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS]
)
def test_a_fault_is_noticed(
    virtual_tcp: VirtualTcp, fault: str, how: str, by: str, code: int | None
) -> None:
    settings = Keepalive(1, 1, 3, user_timeout=1.5) if how == "write" else FAST

    async def program(link: VirtualLink) -> None:
        stream = await connected(settings)
        with detects_break(link, within=settings) as detection:
            strike(link, fault)
            await use(stream, how)
        assert detection.mechanism == by
        error = detection.exception
        assert code is None or (error is not None and error.__cause__.errno == code)  # type: ignore[union-attr]
        assert detection.window.latest >= detection.after > -0.001

    on_a_link(virtual_tcp, program)


def test_two_hours_are_judged_to_the_second(virtual_tcp: VirtualTcp) -> None:
    defaults = Keepalive.linux_defaults()

    async def program(link: VirtualLink) -> float:
        stream = await connected(defaults)
        with detects_break(link, within=defaults) as detection:
            link.silent_drop()
            await stream.receive_some()
        assert [e.kind for e in detection.timeline].count("client_unanswered") == 9
        return detection.after

    assert on_a_link(virtual_tcp, program) == pytest.approx(7875, abs=0.01)


def test_a_client_without_keepalive_is_rescued_and_told_why(virtual_tcp: VirtualTcp) -> None:
    async def program(link: VirtualLink) -> None:
        stream = await connected()
        with detects_break(link, within=5.0):
            link.silent_drop()
            await stream.receive_some()

    with pytest.raises(ExpectationFailed, match="SO_KEEPALIVE is off") as failure:
        on_a_link(virtual_tcp, program)
    assert "still waiting 5.50 s after the fault" in str(failure.value)
    assert "rescue: RST" in str(failure.value)


def test_a_client_that_swallows_everything_is_interrupted(virtual_tcp: VirtualTcp) -> None:
    async def program(link: VirtualLink) -> None:
        stream = await connected(FAST)
        with detects_break(link, within=FAST):
            link.silent_drop()
            while True:
                try:
                    await use(stream, "wait")
                except (trio.BrokenResourceError, EOFError):
                    await trio.sleep(1)

    with pytest.raises(ExpectationFailed, match="the block was interrupted"):
        on_a_link(virtual_tcp, program)


def test_a_stall_is_not_noticed_by_keepalive(virtual_tcp: VirtualTcp) -> None:
    async def program(link: VirtualLink) -> None:
        stream = await connected(FAST)
        with detects_break(link, within=60.0):
            link.stall()
            await use(stream, "write")

    with pytest.raises(ExpectationFailed, match="a stalled peer looks alive"):
        on_a_link(virtual_tcp, program)


def test_connecting_can_be_refused_or_ignored(virtual_tcp: VirtualTcp) -> None:
    async def program(link: VirtualLink) -> None:
        with link.refuse_connections(), detects_break(link, within=1.0) as detection:
            await trio.open_tcp_stream(link.host, link.port)
        assert detection.mechanism == "refused"
        with link.ignore_connections(), detects_break(link, within=31.0) as detection:
            with trio.fail_after(30):
                await trio.open_tcp_stream(link.host, link.port)
        assert detection.mechanism == "own_timeout"
        assert await connected()

    on_a_link(virtual_tcp, program)


def test_what_is_logged_is_what_a_real_link_would_log(virtual_tcp: VirtualTcp) -> None:
    """Each event reads well, and has the fields that the catalogue of kinds names."""

    async def program(link: VirtualLink) -> None:
        faults = ("silent_drop", "evict", "hang_up", "time_out:2", "stall")
        for fault, settings in product(faults, (FAST, None)):
            stream = await connected(settings)
            with trio.move_on_after(5):
                strike(link, fault)
                with suppress(EOFError, trio.BrokenResourceError):
                    await use(stream, "wait")
            await stream.aclose()
            for handle in link.faults:
                if handle.active:
                    handle.lift()
        kinds = {event.kind for event in link.events}
        assert {"opened", "connected", "fault_hit", "client_gone", "closed"} <= kinds
        for event in link.events:
            assert event.describe()
            kind = KINDS[event.kind]
            assert set(kind.fields) <= event.fields.keys()
            assert event.fields.keys() <= {*kind.fields, *kind.sometimes}
            assert json.dumps(dict(event.fields), allow_nan=False)
        ways = {(e["how"], e["by"]) for e in link.events if e.kind == "closed"}
        assert ways == {("timeout", "upstream"), ("reset", "upstream"), ("fin", "client")}

    on_a_link(virtual_tcp, program)


# --- the others ---------------------------------------------------------------------------


def test_an_outage_is_survived_with_nothing_lost(virtual_tcp: VirtualTcp) -> None:
    async def program(link: VirtualLink) -> None:
        stream = await connected(FAST)
        with survives(link, within=10.0) as survival:
            drop = link.silent_drop()
            await stream.send_all(b"patience")
            await trio.sleep(2)
            drop.lift()
            assert await stream.receive_some() == b"patience"
        assert survival.time < 2

    on_a_link(virtual_tcp, program)


def test_what_a_stall_held_up_arrives_when_it_is_lifted(virtual_tcp: VirtualTcp) -> None:
    async def program(link: VirtualLink) -> None:
        stream = await connected()
        with link.stall():
            await stream.send_all(b"patience")
            with trio.move_on_after(3600) as scope:
                await stream.receive_some()
            assert scope.cancelled_caught
        assert await stream.receive_some() == b"patience"

    on_a_link(virtual_tcp, program)


def test_a_client_recovers_on_a_new_connection(virtual_tcp: VirtualTcp) -> None:
    async def program(link: VirtualLink) -> None:
        await connected(FAST)
        with recovers(link, within=10.0) as recovery:
            link.reset()
            await trio.sleep(3)
            await connected(FAST)
        assert recovery.attempts == 1
        assert recovery.time == pytest.approx(3.002, abs=0.01)

    on_a_link(virtual_tcp, program)


def test_a_healthy_idle_link_stays_quiet_for_days(virtual_tcp: VirtualTcp) -> None:
    async def program(link: VirtualLink) -> None:
        await connected(Keepalive.linux_defaults())
        with stays_quiet(link, windows=30, within=Keepalive.linux_defaults()) as quiet:
            await quiet.sleep()
        assert trio.current_time() > 30 * 7875

    on_a_link(virtual_tcp, program)


def test_teardown_on_a_dead_link_is_bounded(virtual_tcp: VirtualTcp) -> None:
    async def program(link: VirtualLink) -> None:
        stream = await connected(FAST)
        link.silent_drop()
        with closes_within(link, 1.0) as closing:
            await stream.aclose()
        assert closing.time < 0.1

    on_a_link(virtual_tcp, program)


# --- the fault's handle -------------------------------------------------------------------


def test_a_fault_waits_until_nothing_is_said(virtual_tcp: VirtualTcp) -> None:
    """Probes and their answers carry no byte, and do not count."""

    async def program(link: VirtualLink) -> float:
        await connected(FAST)
        fault = link.silent_drop(when_idle=100)
        assert (fault.active, fault.hit_at) == (True, None)
        begun = trio.current_time()
        return await fault.until_hit() - begun

    assert on_a_link(virtual_tcp, program) == pytest.approx(100, abs=0.01)


def test_a_fault_may_come_later(virtual_tcp: VirtualTcp) -> None:
    async def program(link: VirtualLink) -> float:
        stream = await connected(FAST)
        fault = link.reset(after=7)
        with pytest.raises(UsageError, match="would block the thread"):
            fault.wait_until_hit()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert fault.wait_until_hit() == fault.hit_at
        with pytest.raises(UsageError, match="the reset cannot be lifted"):
            fault.lift()
        return trio.current_time()

    assert on_a_link(virtual_tcp, program) == pytest.approx(7, abs=0.01)


def test_waiting_for_a_fault_has_a_limit(virtual_tcp: VirtualTcp) -> None:
    async def program(link: VirtualLink) -> None:
        with link.silent_drop(when_idle=5) as fault:
            await fault.until_hit(timeout=60)

    with pytest.raises(UsageError, match="it had not hit after 60 s of virtual time"):
        on_a_link(virtual_tcp, program)


def test_one_side_alone_can_be_told(virtual_tcp: VirtualTcp) -> None:
    heard: list[str] = []

    async def handler(stream: trio.SocketStream) -> None:
        await stream.send_all(await stream.receive_some())
        try:
            heard.append(repr(await stream.receive_some()))
        except trio.BrokenResourceError as error:
            heard.append(repr(error.__cause__))

    async def program(link: VirtualLink) -> None:
        stream = await connected()
        link.reset(side="client")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await trio.sleep(86_400)
        assert heard == []

    on_a_link(virtual_tcp, program, handler=handler)


@pytest.mark.parametrize(("direction", "executed"), [("to_server", False), ("to_client", True)])
def test_one_way_can_be_lost(virtual_tcp: VirtualTcp, direction: str, executed: bool) -> None:
    got: list[bytes] = []

    async def handler(stream: trio.SocketStream) -> None:
        async for data in stream:
            got.append(bytes(data))
            await stream.send_all(data)

    async def program(link: VirtualLink) -> None:
        stream = await connected()
        with link.silent_drop(direction=direction):
            await stream.send_all(b"request")
            with trio.move_on_after(60):
                await stream.receive_some()
            assert (b"request" in got) is executed
        assert await stream.receive_some() == b"request"

    on_a_link(virtual_tcp, program, handler=handler)


def test_who_does_not_read_closes_the_window(virtual_tcp: VirtualTcp) -> None:
    """A user timeout takes it for a dead peer."""

    async def program(link: VirtualLink) -> None:
        stream = await connected(Keepalive(60, 60, 9, user_timeout=5))
        with detects_break(link, within=10.0) as detection:
            link.stop_reading()
            await stream.send_all(bytes(1_000_000))
        assert detection.mechanism == "user_timeout"

    on_a_link(virtual_tcp, program)


def test_a_lost_close_leaves_the_server_half_open(virtual_tcp: VirtualTcp) -> None:
    ended: list[float] = []

    async def handler(stream: trio.SocketStream) -> None:
        keep_alive(stream)
        await stream.send_all(await stream.receive_some())
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        ended.append(trio.current_time())

    async def program(link: VirtualLink) -> None:
        link.lose_close()
        await (await connected()).aclose()
        await trio.sleep(7000)
        assert ended == []
        await trio.sleep(1000)
        assert ended == [pytest.approx(7875, abs=0.01)]

    on_a_link(virtual_tcp, program, handler=handler)


def test_a_middlebox_before_the_link_forgets(virtual_tcp: VirtualTcp) -> None:
    async def program(link: VirtualLink) -> None:
        stream = await connected(Keepalive(400, 75, 9))
        with detects_break(link, within=800.0) as detection:
            fault = link.put_behind(Middlebox.AWS_NLB)
            await stream.receive_some()
        assert detection.mechanism == "reset"
        assert fault.hits

    on_a_link(virtual_tcp, program)


def test_one_connection_of_many_can_be_broken(virtual_tcp: VirtualTcp) -> None:
    async def program(link: VirtualLink) -> None:
        first, second = await connected(FAST), await connected(FAST)
        assert [each.number for each in link.connections] == [1, 2]
        with detects_break(link, within=FAST) as detection:
            fault = link.connections[0].silent_drop()
            await first.receive_some()
        assert [hit["connection"] for hit in fault.hits] == [1]
        assert detection.mechanism == "keepalive"
        await second.send_all(b"still here")
        assert await second.receive_some() == b"still here"
        assert await connected()  # a new one passes, too

    on_a_link(virtual_tcp, program)


def test_a_fault_counts_bytes(virtual_tcp: VirtualTcp) -> None:
    async def program(link: VirtualLink) -> None:
        stream = await connected()
        fault = link.stall(after_bytes=12)  # six there, and six back
        await stream.send_all(b"sixby.")
        assert await stream.receive_some() == b"sixby."
        await trio.sleep(1)
        assert fault.hit_at is not None
        await stream.send_all(b"more")
        with trio.move_on_after(60) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught
        assert (link.connections[0].bytes_to_server, link.connections[0].bytes_to_client) == (
            15,
            11,
        )

    on_a_link(virtual_tcp, program)


# --- bad input ----------------------------------------------------------------------------


def test_two_faults_that_contradict_each_other_are_refused(virtual_tcp: VirtualTcp) -> None:
    async def program(link: VirtualLink) -> None:
        with pytest.raises(UsageError, match="after_bytes=0 is no number of bytes"):
            link.reset(after_bytes=0)
        link.silent_drop()
        with pytest.raises(UsageError, match="stall contradicts the silent_drop"):
            link.stall()
        with pytest.raises(UsageError, match="when_idle= and after= together"):
            link.reset(when_idle=1, after=1)
        with pytest.raises(UsageError, match="then='explode' is none of the choices"):
            link.evict("explode")
        with pytest.raises(UsageError, match="needs a Middlebox"):
            link.put_behind("nat")  # type: ignore[arg-type]

    on_a_link(virtual_tcp, program)


def test_a_link_leads_to_a_host_of_the_network(virtual_tcp: VirtualTcp) -> None:
    with pytest.raises(UsageError, match="no host is called 'db'"):
        virtual_tcp("db:5432")
    with pytest.raises(UsageError, match="malformed upstream"):
        virtual_tcp("db")
    virtual_tcp.host("db")
    link = virtual_tcp("redis://db/0")
    assert (link.host, link.port, link.url) == ("db", 6379, "redis://db/0")
    assert (virtual_tcp(("10.0.0.2", 1)).url, link.address) == ("tcp://db:1", "db:6379")


def test_a_fault_after_the_run_is_refused(virtual_tcp: VirtualTcp) -> None:
    links: list[VirtualLink] = []

    async def program(link: VirtualLink) -> None:
        links.append(link)

    on_a_link(virtual_tcp, program)
    with pytest.raises(UsageError, match="silent_drop: the run is over"):
        links[0].silent_drop()
