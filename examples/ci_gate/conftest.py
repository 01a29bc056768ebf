"""A real server, and the client connected to it through a link."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest
from feed import Feed

from pytest_tcpresilience import Link, LinkFactory


class Server(ThreadingTCPServer):
    """Says hello to whoever subscribes, and then has no news until it ends."""

    daemon_threads = True

    def __init__(self) -> None:
        self.ending = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        self.wfile.write(b"hello\n")
        self.server.ending.wait()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.ending.set()
        server.shutdown()


@pytest.fixture
def link(tcp_link: LinkFactory, server: Server) -> Link:
    return tcp_link(server.server_address, client="feed")


@pytest.fixture
def feed(link: Link) -> Iterator[Feed]:
    with Feed(link.host, link.port) as feed:
        assert feed.next() == b"hello"
        yield feed
