"""trio's own calls on a virtual network, and the errors that they give."""

from __future__ import annotations

import errno
import socket as stdlib
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from pytest_tcpresilience import Keepalive, UsageError
from pytest_tcpresilience.tcp.stacks import AIX, stack_named
from pytest_tcpresilience.virtual.run import VirtualTcp
from tests.virtual.worlds import PORT, connected, serving

Program = Callable[[], Awaitable[Any]]


def run(virtual_tcp: VirtualTcp, program: Program, **serving_args: Any) -> Any:
    async def main() -> Any:
        async with serving(virtual_tcp, **serving_args):
            return await program()

    return virtual_tcp.run(main)


def raises(code: int, match: str | None = None) -> Any:
    """An OSError with that errno, whatever its class."""

    def is_it(error: OSError) -> bool:
        return error.errno == code

    return pytest.raises(OSError, match=match, check=is_it)


def test_the_contract_of_streams_holds(virtual_tcp: VirtualTcp) -> None:
    """trio's own test suite for streams that can be closed on one side."""

    async def make() -> tuple[trio.SocketStream, trio.SocketStream]:
        with virtual_tcp.host("server"):
            listener = (await trio.open_tcp_listeners(0))[0]
        port = listener.socket.getsockname()[1]
        async with listener, trio.open_nursery() as nursery:
            accepted: list[trio.SocketStream] = []

            async def accept() -> None:
                accepted.append(await listener.accept())

            nursery.start_soon(accept)
            one = await trio.open_tcp_stream("server", port)
        return one, accepted[0]

    async def clogged() -> tuple[trio.SocketStream, trio.SocketStream]:
        one, other = await make()
        for stream in (one, other):
            with trio.move_on_after(1):
                await stream.send_all(bytes(1_000_000))
        return one, other

    async def main() -> None:
        await trio.testing.check_half_closeable_stream(make, clogged)

    virtual_tcp.run(main)


def test_a_megabyte_arrives(virtual_tcp: VirtualTcp) -> None:
    data = bytes(range(256)) * 4096

    async def program() -> bytes:
        stream = await trio.open_tcp_stream("server", PORT)
        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            while len(got) < len(data):
                got += await stream.receive_some()
        return bytes(got)

    assert run(virtual_tcp, program) == data


def test_localhost_is_the_host_itself(virtual_tcp: VirtualTcp) -> None:
    async def program() -> None:
        with virtual_tcp.host("server"):
            assert await connected(host="localhost")
            assert await connected(host="127.0.0.1")
        with pytest.raises(OSError, match="all attempts to connect"):
            await connected(host="127.0.0.1")  # the client's own

    run(virtual_tcp, program)


def test_tasks_inherit_their_host(virtual_tcp: VirtualTcp) -> None:
    names: list[str] = []

    async def peer(stream: trio.SocketStream) -> None:
        address = stream.socket.getpeername()
        names.append((await trio.socket.getnameinfo(address, 0))[0])
        names.append((await trio.socket.getnameinfo(address, stdlib.NI_NUMERICHOST))[0])

    async def connect() -> None:
        await trio.open_tcp_stream("server", PORT)

    async def program() -> None:
        async with trio.open_nursery() as nursery:
            with virtual_tcp.host("laptop", address="192.168.1.7"):
                nursery.start_soon(connect)
            await trio.sleep(1)
            await connect()
            await trio.sleep(1)

    run(virtual_tcp, program, handler=peer)
    assert names == ["laptop", "192.168.1.7", "client", "10.0.0.1"]


# --- errors of the kernel -----------------------------------------------------------------


def test_what_connect_may_say(virtual_tcp: VirtualTcp) -> None:
    async def program() -> None:
        sock = trio.socket.socket()
        with raises(errno.ECONNREFUSED, "connecting to server:81"):
            await sock.connect(("server", 81))
        with raises(errno.EHOSTUNREACH, "no host has 10.9.9.9 in this network; it has client"):
            await trio.socket.socket().connect(("10.9.9.9", 80))
        virtual_tcp.path("client", "server").unplug()
        begun = trio.current_time()
        with raises(errno.ETIMEDOUT):
            await trio.socket.socket().connect(("server", PORT))
        assert trio.current_time() - begun == 131  # tcp_syn_retries 6, 4 linear timeouts

    run(virtual_tcp, program)


def test_a_cancelled_connect_closes_its_socket(virtual_tcp: VirtualTcp) -> None:
    async def program() -> None:
        virtual_tcp.path("client", "server").unplug()
        sock = trio.socket.socket()
        with trio.move_on_after(5):
            await sock.connect(("server", PORT))
        assert sock.fileno() == -1
        assert virtual_tcp.client.endpoints == {}

    run(virtual_tcp, program)


def test_an_error_is_told_once_and_then_it_is_the_end(virtual_tcp: VirtualTcp) -> None:
    async def program() -> None:
        stream = await connected()
        virtual_tcp.host("server").crash()
        virtual_tcp.host("server").boot()
        await stream.send_all(b"are you there?")
        with raises(errno.ECONNRESET):
            await stream.socket.recv(1)
        assert await stream.socket.recv(1) == b""
        with raises(errno.EPIPE):
            await stream.socket.send(b"x")
        assert stream.socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ERROR) == 0

    run(virtual_tcp, program)


def test_closing_with_data_unread_is_a_reset(virtual_tcp: VirtualTcp) -> None:
    async def program() -> None:
        stream = await trio.open_tcp_stream("server", PORT)
        await stream.send_all(b"hello")
        await trio.sleep(1)
        await stream.aclose()
        await trio.sleep(1)
        assert "[R.]" in list(virtual_tcp.trace.lines("client"))[-1]

    run(virtual_tcp, program)


def test_linger_zero_is_a_reset(virtual_tcp: VirtualTcp) -> None:
    async def program() -> None:
        stream = await connected()
        linger = struct.pack("ii", 1, 0)
        stream.socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, linger)
        assert stream.socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, 8) == linger
        await stream.aclose()
        assert "[R.]" in list(virtual_tcp.trace.lines("client"))[-1]

    run(virtual_tcp, program)


def test_what_a_port_may_say(virtual_tcp: VirtualTcp) -> None:
    async def program() -> None:
        with virtual_tcp.host("server"):
            with raises(errno.EADDRINUSE, "port 7 of server"):
                await trio.open_tcp_listeners(PORT)
            with raises(errno.EADDRNOTAVAIL, "server has 10.0.0.2, not 10.0.0.1"):
                await trio.open_tcp_listeners(0, host="10.0.0.1")
            sock = trio.socket.socket()
            with raises(errno.EINVAL, "it does not listen"):
                await sock.accept()
            with raises(errno.ENOTCONN):
                await sock.recv(1)
            with pytest.raises(ValueError, match="expected a"):
                await sock.bind("server")
            with pytest.raises(OverflowError):
                await sock.bind(("", 70_000))

    run(virtual_tcp, program)


def test_a_full_backlog_does_not_answer(virtual_tcp: VirtualTcp) -> None:
    async def program() -> None:
        with virtual_tcp.host("server"):
            await trio.open_tcp_listeners(81, backlog=1)
        await trio.open_tcp_stream("server", 81)
        with trio.move_on_after(100) as scope:
            await trio.open_tcp_stream("server", 81)
        assert scope.cancelled_caught

    run(virtual_tcp, program)


def test_a_crash_wakes_the_tasks_of_the_host(virtual_tcp: VirtualTcp) -> None:
    async def program() -> None:
        server = virtual_tcp.host("db")
        with server:
            listener = (await trio.open_tcp_listeners(1))[0]
        stream = await connected()
        async with trio.open_nursery() as nursery:

            async def accept() -> None:
                with raises(errno.ENETDOWN, "db has crashed"):
                    await listener.socket.accept()

            async def read() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()

            nursery.start_soon(accept)
            nursery.start_soon(read)
            await trio.sleep(1)
            server.crash()
            virtual_tcp.client.crash()
        with raises(errno.ENETDOWN, "client has crashed"):
            await trio.socket.socket().connect(("server", PORT))

    run(virtual_tcp, program)


# --- options ------------------------------------------------------------------------------


def test_options_are_read_back(virtual_tcp: VirtualTcp) -> None:
    async def program() -> None:
        sock = trio.socket.socket()
        assert Keepalive.from_socket(sock) == Keepalive.linux_defaults(enabled=False)
        wanted = Keepalive(5, 6, 7, user_timeout=8.5)
        wanted.apply(sock)
        assert Keepalive.from_socket(sock) == wanted
        sock.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, 1)
        assert sock.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY) == 1
        assert sock.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, 4) == b"\1\0\0\0"
        with raises(errno.EINVAL, "TCP_KEEPIDLE 0"):
            sock.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_KEEPIDLE, 0)

    run(virtual_tcp, program)


@pytest.mark.parametrize(
    ("stack", "option", "name"),
    [
        ("aix", stdlib.TCP_USER_TIMEOUT, "AIX on box has no TCP_USER_TIMEOUT"),
        ("openbsd", stdlib.TCP_KEEPIDLE, "OpenBSD on box has no TCP_KEEPIDLE"),
        ("freebsd", stdlib.TCP_SYNCNT, "FreeBSD on box has no TCP_SYNCNT"),
        ("linux", stdlib.TCP_CORK, "Linux on box has no option 3 of level 6"),
    ],
)
def test_an_option_that_the_stack_does_not_have(
    virtual_tcp: VirtualTcp, stack: str, option: int, name: str
) -> None:
    async def program() -> None:
        with virtual_tcp.host("box", stack):
            sock = trio.socket.socket()
        with raises(errno.ENOPROTOOPT, name):
            sock.setsockopt(stdlib.IPPROTO_TCP, option, 1)

    run(virtual_tcp, program)


def test_a_stack_that_keeps_alive_by_itself(virtual_tcp: VirtualTcp) -> None:
    async def program() -> None:
        with virtual_tcp.host("box", "freebsd"):
            assert trio.socket.socket().getsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE) == 1

    assert stack_named("freebsd").keepalive_by_default
    run(virtual_tcp, program)


def test_the_count_of_aix_is_read_as_it_was_set(virtual_tcp: VirtualTcp) -> None:
    async def program() -> None:
        with virtual_tcp.host("box", AIX()):
            sock = trio.socket.socket()
        assert sock.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_KEEPCNT) == AIX().tcp_keepcnt

    run(virtual_tcp, program)


# --- what a virtual socket cannot be ------------------------------------------------------


@pytest.mark.parametrize("call", ["dup", "detach", "share", "set_inheritable"])
def test_there_is_no_descriptor(virtual_tcp: VirtualTcp, call: str) -> None:
    async def program() -> None:
        arguments = {"share": (1,), "set_inheritable": (True,)}.get(call, ())
        with pytest.raises(UsageError, match="a virtual socket cannot be"):
            getattr(trio.socket.socket(), call)(*arguments)

    run(virtual_tcp, program)


def test_only_tcp_and_ipv4(virtual_tcp: VirtualTcp) -> None:
    async def program() -> None:
        with raises(errno.EAFNOSUPPORT, "IPv4 only"):
            trio.socket.socket(stdlib.AF_INET6)
        with raises(errno.ESOCKTNOSUPPORT, "TCP only"):
            trio.socket.socket(type=stdlib.SOCK_DGRAM)
        with pytest.raises(stdlib.gaierror, match="IPv4 only"):
            await trio.socket.getaddrinfo("server", 1, family=stdlib.AF_INET6)
        with raises(errno.EOPNOTSUPP, "flags of recv"):
            await (await connected()).socket.recv(1, stdlib.MSG_PEEK)

    run(virtual_tcp, program)


def test_an_unknown_host(virtual_tcp: VirtualTcp) -> None:
    """For the resolver it is what any resolver says; the message is for the test's author."""

    async def program() -> None:
        with pytest.raises(stdlib.gaierror) as failure:
            await trio.open_tcp_stream("databse", 5432)
        assert failure.value.errno == stdlib.EAI_NONAME
        assert "no host is called 'databse' in this virtual network" in str(failure.value)
        assert "one of client, server, an IPv4 address" in str(failure.value)

    run(virtual_tcp, program)
