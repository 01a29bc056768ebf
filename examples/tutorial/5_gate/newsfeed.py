"""A client of a news feed: it subscribes, waits for what comes, and connects again."""

import socket

KEEPALIVE = {
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 1,  # seconds of silence before the first probe
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 1,  # seconds between probes
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 1,  # so many unanswered, and the server is gone
}


class Subscriber:
    def __init__(self, host, port):
        self.address = (host, port)
        self.connect()

    def connect(self):
        self.sock = socket.create_connection(self.address, timeout=5)
        self.sock.settimeout(None)  # news may take its time
        for (level, option), value in KEEPALIVE.items():
            self.sock.setsockopt(level, option, value)
        self.lines = self.sock.makefile("rb")
        self.sock.sendall(b"subscribe news\n")
        self.lines.readline()  # the server says that it has understood

    def receive(self):
        """The next message of this connection."""
        message = self.lines.readline()
        if not message:
            raise ConnectionError("closed by the server")
        return message

    def next_message(self):
        """The next message, over a new connection if this one has died."""
        try:
            return self.receive()
        except OSError:
            self.close()
            self.connect()
            return self.receive()

    def close(self):
        self.lines.close()
        self.sock.close()
