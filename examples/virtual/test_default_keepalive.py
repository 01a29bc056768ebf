"""The default keepalive, judged in virtual time: two hours in some milliseconds."""

import trio

from pytest_tcpresilience import Keepalive, detects_break

DEFAULT = Keepalive.linux_defaults()  # 7200/75/9


async def echo(stream):
    async for data in stream:
        await stream.send_all(data)


def test_the_default_keepalive_finds_a_dead_server(virtual_tcp):
    server = virtual_tcp.host("server", "linux")
    link = virtual_tcp("server:5432")

    async def main():
        async with trio.open_nursery() as nursery:
            with server:
                await nursery.start(trio.serve_tcp, echo, 5432)
            client = await trio.open_tcp_stream(link.host, link.port)
            DEFAULT.apply(client.socket)
            await client.send_all(b"hello")
            assert await client.receive_some() == b"hello"
            with detects_break(link, within=DEFAULT) as detection:
                link.silent_drop()
                await client.receive_some()
            assert detection.mechanism == "keepalive"
            assert 7874 < detection.after < 7876
            nursery.cancel_scope.cancel()

    virtual_tcp.run(main)
