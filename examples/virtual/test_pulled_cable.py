"""A cable is pulled. When does the server, an AIX, find out that its client is gone?"""

import pytest
import trio

from pytest_tcpresilience import Keepalive


def test_a_server_finds_out_that_its_client_is_gone(virtual_tcp):
    server = virtual_tcp.host("server", "aix")
    cable = virtual_tcp.path("client", server)

    async def handler(stream):
        Keepalive(idle=120, interval=75, probes=8).apply(stream.socket)
        await stream.send_all(b"hello")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()  # nothing will ever come

    async def main():
        async with trio.open_nursery() as nursery:
            with server:  # what starts here runs on that host
                await nursery.start(trio.serve_tcp, handler, 5432)
            stream = await trio.open_tcp_stream("server", 5432)
            assert await stream.receive_some() == b"hello"
            await trio.sleep(1)  # let its acknowledgement arrive: keepalive waits for that
            cable.unplug()
            await trio.sleep(1000)
            nursery.cancel_scope.cancel()

    virtual_tcp.run(main)
    capture = list(virtual_tcp.trace.lines("server"))
    print("\n".join(capture))
    # AIX sends one probe more than it is told to, and then RST, 795 s after the last segment.
    assert [line.split()[0][:3] for line in capture[-10:]] == [
        *("120", "195", "270", "345", "420", "495", "570", "645", "720"),
        "795",
    ]
