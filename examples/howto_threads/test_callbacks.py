"""Clients that notice in a thread of their own, or in a callback."""

import asyncio
import socket
import threading

import pytest

from pytest_tcpresilience import Keepalive, detects_break, recovers

KEEPALIVE = Keepalive(idle=1, interval=1, probes=1)


class Listener:
    """A client whose thread reads, and tells of the end by a callback."""

    def __init__(self, link, on_disconnect):
        self.address, self.on_disconnect = (link.host, link.port), on_disconnect
        self.sock = socket.create_connection(self.address)
        KEEPALIVE.apply(self.sock)
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        try:
            while self.sock.recv(4096):
                pass
            self.on_disconnect(ConnectionError("closed by the server"))
        except OSError as error:
            self.on_disconnect(error)

    def close(self):
        self.thread.join()
        self.sock.close()


@pytest.fixture
def link(tcp_link, recording_server):
    return tcp_link(recording_server.address)


def test_a_thread_notices_and_calls_back(link):
    client = Listener(link, on_disconnect=print)
    with detects_break(link, within=KEEPALIVE) as detection:
        client.on_disconnect = detection.mark  # takes whatever the client passes
        link.silent_drop()
        detection.wait()  # until it is called
    client.close()
    assert detection.mechanism == "keepalive"
    assert detection.exception is None  # nothing was raised here


def test_a_protocol_of_asyncio_notices(link):
    class Client(asyncio.Protocol):
        def __init__(self):
            self.lost = asyncio.Event()

        def connection_lost(self, error):
            self.lost.set()

    async def main():
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_connection(Client, link.host, link.port)
        KEEPALIVE.apply(transport.get_extra_info("socket"))
        with detects_break(link, within=KEEPALIVE) as detection:
            link.silent_drop()
            await client.lost.wait()  # detection.wait() would block the loop
            detection.mark()
        assert detection.mechanism == "keepalive"

    asyncio.run(main())


def test_a_thread_reconnects_behind_the_back_of_the_test(link):
    """The block only waits; `recovery.mark` is the client's callback for success."""

    def connect_again(_error):
        with socket.create_connection((link.host, link.port)) as sock:
            sock.sendall(b"hello again\n")
            sock.recv(64)
            recovery.mark()

    client = Listener(link, on_disconnect=print)
    with recovers(link, within=1.0) as recovery:
        client.on_disconnect = connect_again
        link.reset()
        recovery.wait()
    client.close()
    assert recovery.attempts == 1
