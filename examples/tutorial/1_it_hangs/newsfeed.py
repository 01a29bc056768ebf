"""A client of a news feed: it subscribes, and waits for what comes."""

import socket


class Subscriber:
    def __init__(self, host, port):
        self.sock = socket.create_connection((host, port), timeout=5)
        self.sock.settimeout(None)  # news may take its time
        self.lines = self.sock.makefile("rb")
        self.sock.sendall(b"subscribe news\n")
        self.lines.readline()  # the server says that it has understood

    def next_message(self):
        return self.lines.readline()

    def close(self):
        self.lines.close()
        self.sock.close()
