"""Deletes proxies on another server whose maker can no longer do it.

Owns one bounded HTTP request for each. A link on a real Toxiproxy has a proxy there as well
as here; when a test run is killed, this engine is the only one left that knows of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import trio

from pytest_tcpresilience.engine.errors import bad_body
from pytest_tcpresilience.tcp.addresses import join_address

LIMIT_S = 2.0


@dataclass(frozen=True)
class Behind:
    """A proxy of another server, behind one of this engine's."""

    host: str
    port: int
    proxy: str

    @classmethod
    def from_json(cls, document: Any) -> Behind | None:
        """:raises ApiError: 400 for anything but the three fields, or nothing."""
        if document is None:
            return None
        if (
            isinstance(document, dict)
            and isinstance(document.get("host"), str)
            and isinstance(document.get("proxy"), str)
            and isinstance(document.get("port"), int)
            and 0 < document["port"] < 65536
        ):
            return cls(document["host"], document["port"], document["proxy"])
        raise bad_body("json: behind must have host, port and proxy")


async def delete_all(left: Iterable[Behind]) -> None:
    """Ask for their deletion, side by side; who does not answer is left alone."""
    async with trio.open_nursery() as nursery:
        for each in left:
            nursery.start_soon(_delete, each)


async def _delete(behind: Behind) -> None:
    request = (
        f"DELETE /proxies/{quote(behind.proxy, safe='')} HTTP/1.1\r\n"
        f"Host: {join_address(behind.host, behind.port)}\r\n"
        "User-Agent: tcpresilience\r\nConnection: close\r\n\r\n"
    )
    with trio.move_on_after(LIMIT_S) as scope:
        scope.shield = True
        try:
            async with await trio.open_tcp_stream(behind.host, behind.port) as stream:
                await stream.send_all(request.encode())
                while await stream.receive_some():
                    pass
        except (OSError, trio.BrokenResourceError):
            return
