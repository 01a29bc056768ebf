"""A client on trio's streams."""

from __future__ import annotations

import trio

from pytest_tcpresilience import Keepalive, Link, detects_break

KEEPALIVE = Keepalive(idle=1, interval=1, probes=1)
LONG_POLL = b"GET /wait?seconds=30 HTTP/1.1\r\nHost: example\r\n\r\n"


def test_a_trio_client_notices_a_silent_drop(link: Link) -> None:
    """Keepalive is set on the stream's socket; receiving raises the kernel's verdict."""

    async def main() -> None:
        async with await trio.open_tcp_stream(link.host, link.port) as stream:
            KEEPALIVE.apply(stream.socket)
            with detects_break(
                link, within=KEEPALIVE, raises=trio.BrokenResourceError
            ) as detection:
                link.silent_drop(when_idle=0.2)
                await stream.send_all(LONG_POLL)
                await stream.receive_some()
        assert detection.mechanism == "keepalive"

    trio.run(main)
