"""httpx on trio, through a firewall that forgets: unmodified code, in virtual time.

The pool keeps a connection that the firewall has forgotten. The next request is sent on it,
and httpx gets an RST that the server never sent. Keepalive below the firewall's timeout
prevents it.
"""

import socket

import httpx
import pytest
import trio

from pytest_tcpresilience import Keepalive, Middlebox

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


async def serve_http(stream):
    waiting = b""
    async for data in stream:
        waiting += data
        while b"\r\n\r\n" in waiting:
            _, _, waiting = waiting.partition(b"\r\n\r\n")
            await stream.send_all(ANSWER)


def client(keepalive=None):
    # httpx counts its own keepalive_expiry on the real clock, which hardly moves here.
    transport = httpx.AsyncHTTPTransport(
        socket_options=keepalive.socket_options() if keepalive else [],
        limits=httpx.Limits(keepalive_expiry=None),
    )
    return httpx.AsyncClient(transport=transport, trust_env=False)


@pytest.fixture
def world(virtual_tcp):
    server = virtual_tcp.host("api.example")
    virtual_tcp.path("client", server, boxes=[Middlebox.AWS_NLB])  # 350 s, then RST

    def run(program):
        async def main():
            async with trio.open_nursery() as nursery:
                with server:
                    await nursery.start(trio.serve_tcp, serve_http, 80)
                result = await program()
                nursery.cancel_scope.cancel()
            return result

        return virtual_tcp.run(main)

    return run


async def two_requests(http, pause):
    async with http:
        assert (await http.get("http://api.example/")).text == "hi"
        await trio.sleep(pause)
        return (await http.get("http://api.example/")).text


def test_a_short_pause_is_no_problem(world):
    assert world(lambda: two_requests(client(), 300)) == "hi"


def test_a_long_pause_breaks_the_pooled_connection(world):
    async def program():
        with pytest.raises(httpx.ReadError) as failure:
            await two_requests(client(), 600)
        causes = [failure.value]
        while causes[-1].__cause__ or causes[-1].__context__:
            causes.append(causes[-1].__cause__ or causes[-1].__context__)
        assert any(isinstance(each, ConnectionResetError) for each in causes)

    world(program)


def test_keepalive_below_the_timeout_is_the_cure(world, virtual_tcp):
    cure = Keepalive(idle=300, interval=30, probes=3)
    assert world(lambda: two_requests(client(cure), 6 * 3600)) == "hi"
    probes = [seen for seen in virtual_tcp.trace.at("client") if seen.at > 1]
    assert len(probes) >= 2 * 6 * 3600 // 301


def test_a_timeout_of_httpx_runs_on_virtual_time(world, virtual_tcp):
    async def program():
        virtual_tcp("api.example:80").stall()
        async with client() as http:
            with pytest.raises(httpx.ReadTimeout):
                await http.get("http://api.example/", timeout=httpx.Timeout(30))
        assert trio.current_time() == pytest.approx(30, abs=0.1)

    world(program)


def test_nothing_of_it_is_real(world):
    async def program():
        with pytest.raises(httpx.ConnectError):
            async with client() as http:
                await http.get("http://127.0.0.1:80/")
        assert socket.socket is not None

    world(program)
