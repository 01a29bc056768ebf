"""A small HTTP server with keep-alive and a long poll, as a process of its own.

It prints its port as its first line, and ends when its standard input does: so it cannot
outlive the tests, however they end.
"""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from urllib.parse import parse_qs, urlsplit

# Every long poll waits on this and not in time.sleep(), so that the server ends at once.
stopping = threading.Event()


class Server(ThreadingHTTPServer):
    """Counts the TCP connections that it has accepted."""

    accepted = 0

    def get_request(self) -> tuple[socket, tuple[str, int]]:
        request = super().get_request()
        self.accepted += 1
        return request

    def handle_error(
        self, request: socket | tuple[bytes, socket], client_address: tuple[str, int]
    ) -> None:
        # The tests break connections on purpose; only other errors are worth a traceback.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # 1.0, the default, closes after each answer
    server: Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/hello":
            self.answer("hello")
        elif url.path == "/wait":
            stopping.wait(float(parse_qs(url.query)["seconds"][0]))
            self.answer("waited")
        elif url.path == "/connections":
            self.answer(str(self.server.accepted))
        else:
            self.send_error(404)

    def answer(self, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_ignored: object) -> None:
        """Quiet: the tests' own output is what their reader is after."""


def main() -> None:
    with Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_port, flush=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        sys.stdin.read()
        stopping.set()
        server.shutdown()


if __name__ == "__main__":
    main()
