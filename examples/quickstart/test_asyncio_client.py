"""A client on asyncio's streams."""

from __future__ import annotations

import asyncio

from pytest_tcpresilience import Keepalive, Link, detects_break

KEEPALIVE = Keepalive(idle=1, interval=1, probes=1)
LONG_POLL = b"GET /wait?seconds=30 HTTP/1.1\r\nHost: example\r\n\r\n"


def test_an_asyncio_client_notices_a_silent_drop(link: Link) -> None:
    """Keepalive is set on the transport's socket; reading raises the kernel's verdict."""

    async def main() -> None:
        reader, writer = await asyncio.open_connection(link.host, link.port)
        KEEPALIVE.apply(writer.get_extra_info("socket"))
        with detects_break(link, within=KEEPALIVE, raises=TimeoutError) as detection:
            link.silent_drop(when_idle=0.2)
            writer.write(LONG_POLL)
            await reader.readline()
        assert detection.mechanism == "keepalive"

    asyncio.run(main())
