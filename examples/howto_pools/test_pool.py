"""A pool of connections, one of which dies. What does the pool hand out next?"""

import select
import socket

import pytest

from pytest_tcpresilience import recovers


class Pool:
    """Connections of a protocol of lines. `check` looks at one before it is handed out."""

    def __init__(self, link, check):
        self.address, self.check, self.idle = (link.host, link.port), check, []

    def checkout(self):
        while self.idle:
            sock = self.idle.pop(0)
            if self.check(sock):
                return sock
            sock.close()
        return socket.create_connection(self.address, timeout=0.5)

    def ask(self, line):
        sock = self.checkout()
        try:
            answer = exchange(sock, line)
        except OSError:
            sock.close()
            raise
        self.idle.append(sock)
        return answer

    def close(self):
        for sock in self.idle:
            sock.close()


def exchange(sock, line):
    sock.sendall(line + b"\n")
    answer = sock.recv(64)
    if not answer:
        raise ConnectionError("closed by the server")
    return answer


def never(sock):
    return True


def looks(sock):
    """A connection that nobody uses has nothing to read, unless it was closed."""
    return not select.select([sock], [], [], 0)[0]


def pings(sock):
    """Costs a round trip, and is the only one of the three that finds silence."""
    try:
        return exchange(sock, b"ping") == b"ping\n"
    except OSError:
        return False


@pytest.fixture
def link(tcp_link, recording_server):
    return tcp_link(recording_server.address)


@pytest.fixture
def pool_of_three(link):
    """Makes a pool with three idle connections; they are `link.connections`, in this order."""
    pools = []

    def make(check):
        pool = Pool(link, check)
        pools.append(pool)
        pool.idle = [socket.create_connection(pool.address, timeout=0.5) for _ in range(3)]
        link.wait_for_connection(3)
        return pool

    yield make
    for pool in pools:
        pool.close()


@pytest.mark.parametrize("check", [looks, pings])
@pytest.mark.parametrize("fault", ["hang_up", "reset"])
def test_a_closed_connection_is_not_handed_out(link, recording_server, pool_of_three, fault, check):
    pool = pool_of_three(check)
    with recovers(link, within=1.0, server=recording_server, once=b"pay 17"):
        getattr(link, fault)()  # all three
        assert pool.ask(b"pay 17") == b"pay 17\n"


def test_without_a_check_a_request_is_lost(link, pool_of_three):
    pool = pool_of_three(never)
    link.connections[0].reset()
    with pytest.raises(ConnectionResetError):
        pool.ask(b"pay 17")


def test_looking_does_not_find_silence(link, pool_of_three):
    pool = pool_of_three(looks)
    link.connections[0].silent_drop()
    with pytest.raises(TimeoutError):
        pool.ask(b"pay 17")


def test_a_ping_finds_the_one_that_is_silent(link, recording_server, pool_of_three):
    pool = pool_of_three(pings)
    first, second, third = link.connections
    first.silent_drop()

    assert pool.ask(b"pay 17") == b"pay 17\n"
    assert recording_server.count(b"pay 17") == 1

    assert link.connection(first.number).faults[0].name == "silent_drop"
    assert link.connection(second.number).bytes_to_server > 0  # it was the next
    assert link.connection(third.number).faults == ()
