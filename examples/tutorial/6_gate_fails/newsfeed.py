"""A client of a news feed: it subscribes, waits for what comes, and connects again."""

import socket


class Subscriber:
    def __init__(self, host, port):
        self.address = (host, port)
        self.connect()

    def connect(self):
        self.sock = socket.create_connection(self.address, timeout=5)
        self.sock.settimeout(None)  # news may take its time
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
