"""What five clients do when their server stops answering: five faults, side by side.

It makes the report that README shows::

    pytest examples/behaviour_report --resilience-report=behaviour.html

All cells run at the same time, each on a link of its own, so that they take as long as the
longest wait. Some clients do not notice: here that is known, and fails nothing. Telling it is
what the report is for.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from urllib3 import HTTPConnectionPool

from pytest_tcpresilience import ExpectationFailed, Keepalive, Link, detects_break

KEEPALIVE = Keepalive(idle=1, interval=1, probes=2)
HELLO = b"GET /hello HTTP/1.1\r\nHost: example\r\n\r\n"
# Long polls, by their paths, and whether the server has begun with them.
POLLS: dict[str, threading.Event] = {}

Strike = Callable[..., object]
Within = float | Keepalive
Cell = Callable[[Link, Strike, Within], None]

# A fault, and what clients are held to: seconds, or the kernel's arithmetic for their settings.
FAULTS: tuple[tuple[Strike, Within], ...] = (
    (Link.silent_drop, KEEPALIVE),
    (partial(Link.evict, then="reset"), 2.0),
    (Link.stall, 2.0),
    (Link.hang_up, 1.0),
    (Link.reset, 1.0),
)


def over_a_socket(keepalive: Keepalive | None, timeout: float | None = None) -> Cell:
    """A client that asks, and then waits for what the server sends by itself."""

    def client(link: Link, strike: Strike, within: Within) -> None:
        with socket.create_connection((link.host, link.port), timeout) as connection:
            if keepalive is not None:
                keepalive.apply(connection)
            connection.sendall(HELLO)
            while not connection.recv(4096).endswith(b"hello"):
                pass
            with detects_break(link, within=within):
                strike(link)
                if not connection.recv(4096):
                    raise EOFError("the server has closed the connection")

    return client


def with_asyncio(link: Link, strike: Strike, within: Within) -> None:
    async def client() -> None:
        reader, writer = await asyncio.open_connection(link.host, link.port)
        KEEPALIVE.apply(writer.get_extra_info("socket"))
        writer.write(HELLO)
        await reader.readuntil(b"hello")
        try:
            with detects_break(link, within=within):
                strike(link)
                if not await reader.read(4096):
                    raise EOFError("the server has closed the connection")
        finally:
            writer.transport.abort()

    asyncio.run(client())


def with_urllib3(link: Link, strike: Strike, within: Within) -> None:
    """A long poll: the server has the request when the fault hits, and says nothing yet."""
    begun = POLLS[f"/{link.port}"] = threading.Event()
    options = KEEPALIVE.socket_options()
    with HTTPConnectionPool(
        link.host, link.port, socket_options=options, retries=False, timeout=None
    ) as pool:
        pool.request("GET", "/hello")
        with detects_break(link, within=within):
            threading.Thread(target=lambda: begun.wait(5) and strike(link)).start()
            pool.request("GET", f"/{link.port}")


CLIENTS: dict[str, Cell] = {
    "socket, as it comes": over_a_socket(None),
    "socket, keepalive": over_a_socket(KEEPALIVE),
    "socket, read timeout": over_a_socket(None, timeout=1.0),
    "asyncio, keepalive": with_asyncio,
    "urllib3, keepalive": with_urllib3,
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stopping = threading.Event()

    def do_GET(self) -> None:
        if self.path in POLLS:
            POLLS[self.path].set()
            self.stopping.wait(30)
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_ignored: object) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    # Each broken connection would otherwise be a traceback: they are broken on purpose.
    def handle_error(self, request: object, client_address: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield "127.0.0.1", server.server_port
        Handler.stopping.set()
        server.shutdown()
        thread.join()


def test_behaviour(tcp_link: Callable[..., Link], server: tuple[str, int]) -> None:
    def run(cell: Cell, link: Link, strike: Strike, within: Within) -> None:
        with suppress(ExpectationFailed):  # the report has it
            cell(link, strike, within)

    with ThreadPoolExecutor(len(CLIENTS) * len(FAULTS)) as pool:
        cells = [
            pool.submit(run, cell, tcp_link(server, client=name), strike, within)
            for name, cell in CLIENTS.items()
            for strike, within in FAULTS
        ]
        for each in cells:
            each.result()
