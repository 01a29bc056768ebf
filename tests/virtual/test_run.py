"""Runs in virtual time: their speed, their sameness, and what must not happen in them."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from pytest_tcpresilience import Keepalive, UsageError
from pytest_tcpresilience.tcp.stacks import AIX, Linux
from pytest_tcpresilience.virtual import guards
from pytest_tcpresilience.virtual.run import VirtualTcp
from tests.virtual.worlds import PORT, connected, keep_alive, serving


def run(virtual: VirtualTcp, program: Any, **serving_args: Any) -> Any:
    async def main() -> Any:
        async with serving(virtual, **serving_args):
            return await program()

    return virtual.run(main)


# --- many, and long -----------------------------------------------------------------------


async def hold(stream: trio.SocketStream) -> None:
    keep_alive(stream)
    await stream.receive_some()


def test_two_hours_need_few_segments_and_few_steps() -> None:
    """What it costs is counted here; ``benchmarks/virtual_time.py`` has the milliseconds."""
    virtual = VirtualTcp()

    async def program() -> None:
        stream = await connected(Keepalive.linux_defaults())
        virtual.path("client", "server").unplug()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert trio.current_time() == pytest.approx(7875, abs=0.01)

    run(virtual, program)
    # Handshake, two bytes of talk and their ACKs; probes; RST; the server's FIN at the end.
    assert virtual.trace.sent == 7 + 9 + 1 + 1
    assert virtual.network.events_done < 40


def test_a_hundred_connections_for_a_day() -> None:
    virtual = VirtualTcp()

    async def program() -> None:
        streams = [await trio.open_tcp_stream("server", PORT) for _ in range(100)]
        await trio.sleep(86_000)
        assert len(virtual.network.endpoints) == 2 * len(streams)
        # Handshakes, and for each connection eleven probes in a day, and their answers.
        assert virtual.trace.sent == 100 * (3 + 2 * 11)

    run(virtual, program, handler=hold)


def test_one_seed_one_trace(tmp_path: Path) -> None:
    def once(seed: int) -> tuple[str, bytes]:
        virtual = VirtualTcp(seed)
        virtual.path(virtual.client, virtual.host("server"), loss=0.1, jitter=0.01)

        async def program() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(connected)

        run(virtual, program)
        virtual.save_pcap(tmp_path / "trace.pcap")
        return virtual.trace.text(), (tmp_path / "trace.pcap").read_bytes()

    assert once(1) == once(1)
    assert once(1)[1] != once(2)[1]


def test_the_seed_gives_trio_its_shuffle_back() -> None:
    scheduler: Any = trio._core._run
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    run(VirtualTcp(), connected)
    assert scheduler._ALLOW_DETERMINISTIC_SCHEDULING is before


# --- what must not happen -----------------------------------------------------------------


def test_a_wait_for_nothing_says_who_waits_for_what() -> None:
    async def listen_and_wait() -> None:
        stream = await connected()
        await stream.receive_some()

    with pytest.raises(UsageError, match="the simulation waits for nothing") as failure:
        run(VirtualTcp(), listen_and_wait)
    text = str(failure.value)
    assert "no timer of any connection is running" in text
    assert "main on client waits for data from server:7" in text
    assert "_serve_one_listener on server waits for a connection to port 7" in text
    assert "_run_handler on server waits for data from client:49152" in text


def test_tasks_that_wait_for_each_other_are_a_standstill() -> None:
    with pytest.raises(UsageError, match="the tasks of the run wait for each other"):
        VirtualTcp().run(trio.sleep_forever)


def test_keepalive_that_is_answered_for_ever_is_a_standstill_too() -> None:
    async def wait() -> None:
        await (await connected(Keepalive(1, 1, 3))).receive_some()

    with pytest.raises(UsageError, match="all that happens is keepalive being answered"):
        run(VirtualTcp(), wait)


def test_a_deadline_is_something_to_wait_for() -> None:
    async def wait() -> float:
        stream = await connected(Keepalive(1, 1, 3))
        with trio.move_on_after(5_000):
            await stream.receive_some()
        return trio.current_time()

    assert run(VirtualTcp(), wait) == pytest.approx(5_000, abs=0.01)


def test_a_real_socket_is_refused() -> None:
    async def connect() -> None:
        socket.create_connection(("127.0.0.1", 9))

    with pytest.raises(UsageError, match=r"a real socket in a virtual network: connect"):
        VirtualTcp().run(connect)

    async def bind() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))

    with pytest.raises(UsageError, match=r"a real socket in a virtual network: bind"):
        VirtualTcp().run(bind)


def test_real_sockets_work_after_the_run_and_in_other_threads() -> None:
    async def in_a_thread() -> None:
        def bind() -> None:
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))

        thread = threading.Thread(target=bind)
        thread.start()
        thread.join()

    VirtualTcp().run(in_a_thread)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))


def test_code_that_blocks_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "BLOCKED_S", 0.05)

    async def block() -> None:
        time.sleep(0.2)
        await trio.sleep(1)

    with pytest.raises(UsageError, match="blocked the thread in virtual time"):
        VirtualTcp().run(block)


def test_code_that_computes_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "BLOCKED_S", 0.05)

    async def compute() -> None:
        until = time.thread_time() + 0.1
        while time.thread_time() < until:
            pass

    VirtualTcp().run(compute)


def test_a_socket_outlives_its_run_in_vain() -> None:
    virtual = VirtualTcp()
    stream: trio.SocketStream = run(virtual, connected)
    with pytest.raises(UsageError, match="a virtual network was used outside its run"):
        stream.socket.getsockname()
    stream.socket.close()
    with pytest.raises(UsageError, match="this virtual network has had its run"):
        virtual.run(trio.sleep, 1)


def test_it_needs_trio_and_virtual_time() -> None:
    virtual = VirtualTcp()

    async def main() -> None:
        async with virtual:
            pass

    with pytest.raises(UsageError, match="a virtual network needs virtual time"):
        trio.run(main)
    with pytest.raises(UsageError, match="a virtual network needs trio"):
        main().send(None)


def test_hosts_and_paths_that_cannot_be() -> None:
    virtual = VirtualTcp()
    virtual.host("db", AIX(), address="10.0.0.99")
    for name, address, why in (
        ("db", "10.0.0.98", "that name is taken"),
        ("other", "10.0.0.99", "db has the address"),
        ("other", "::1", "is no IPv4 address"),
        ("", "", "a host needs a name"),
    ):
        with pytest.raises(UsageError, match=why):
            virtual.host(name, address=address)
    for wrong in ({"loss": 2}, {"latency": -1}, {"latency": [1, 2]}, {"jitter": -1}):
        with pytest.raises(UsageError, match="this path makes no sense"):
            virtual.path("client", "db", **wrong)
    with pytest.raises(UsageError, match="stack='plan9' is not known"):
        virtual.host("glenda", "plan9")


def test_a_host_in_use_keeps_its_stack() -> None:
    virtual = VirtualTcp()
    assert virtual.host("server", "aix").stack == AIX()
    assert virtual.host("server", Linux()).stack == Linux()

    async def program() -> None:
        with pytest.raises(UsageError, match="server has connections already"):
            virtual.host("server", AIX())

    run(virtual, program)


def test_traces_are_of_hosts_and_begin_at_a_time_of_day(tmp_path: Path) -> None:
    virtual = VirtualTcp()
    with pytest.raises(UsageError, match="no capture at 'router'"):
        virtual.trace.text("router")
    with pytest.raises(UsageError, match="is no time of day"):
        virtual.save_pcap(tmp_path / "x.pcap", start="noon")


# --- the fixture --------------------------------------------------------------------------


def test_a_plain_test_has_a_runner(virtual_tcp: VirtualTcp) -> None:
    assert run(virtual_tcp, connected)


@pytest.mark.trio
async def test_an_async_test_runs_on_it(
    virtual_tcp: VirtualTcp, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(virtual_tcp):
        stream = await connected(Keepalive(7200, 75, 9))
        virtual_tcp.path("client", "server").unplug()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    assert trio.current_time() > 7875


def test_importing_the_plugin_imports_none_of_it() -> None:
    code = (
        "import sys, pytest_tcpresilience.plugin; "
        "print([m for m in sys.modules if '.virtual' in m or m == 'trio'])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
