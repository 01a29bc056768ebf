"""Lists of connections, what the kernel counts for each, and netlink's framing."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pytest_tcpresilience.kernel import netlink, sockdiag
from pytest_tcpresilience.kernel.capabilities import Pair, loopback_pair
from pytest_tcpresilience.kernel.sockdiag import Listed, SockDiag
from pytest_tcpresilience.kernel.tcpinfo import TcpInfo


@pytest.fixture
def pair(loopback: str) -> Iterator[Pair]:
    with loopback_pair(loopback) as made:
        yield made


def address(sock: socket.socket) -> tuple[str, int]:
    host, port = sock.getsockname()[:2]
    return host, port


def listed(local_port: int = 0, remote_port: int = 0, host: str = "") -> list[Listed]:
    """:param host: of the client; on another address the same port may be another test's."""
    with SockDiag() as diag:
        found = diag.connections(local_port=local_port, remote_port=remote_port)
    return [each for each in found if not host or host in (each.local[0], each.remote[0])]


# --- lists --------------------------------------------------------------------------------


def test_both_ends_of_a_connection_are_listed_and_the_listener_is_not(pair: Pair) -> None:
    client, server = address(pair.client), address(pair.accepted)
    ends = {(each.local, each.remote) for each in listed()}
    assert {(client, server), (server, client)} <= ends
    assert all(each.seen.state in sockdiag.CONNECTED for each in listed())
    to_server = listed(remote_port=server[1], host=client[0])
    assert [(each.local, each.remote) for each in to_server] == [(client, server)]
    from_server = listed(local_port=server[1], host=client[0])
    assert [(each.local, each.remote) for each in from_server] == [(server, client)]
    assert listed(local_port=server[1], remote_port=server[1], host=client[0]) == []


def test_what_is_listed_is_what_a_lookup_finds(pair: Pair) -> None:
    (found,) = listed(remote_port=address(pair.accepted)[1], host=address(pair.client)[0])
    with SockDiag() as diag:
        looked_up = diag.lookup(address(pair.client), address(pair.accepted))
    assert looked_up is not None
    # What a timer or an acknowledgement changes between the two looks is not compared.
    assert found.seen.inode == looked_up.inode != 0
    assert (found.seen.state, found.seen.uid) == (looked_up.state, looked_up.uid)


def test_an_ipv4_connection_of_an_ipv6_socket_is_written_as_ipv4() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no dual-stack sockets here")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = address(listener)[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = listener.accept()
            with accepted:
                (found,) = listed(local_port=port, host="127.0.0.1")
                assert (found.local, found.remote) == (("127.0.0.1", port), address(client))
                with SockDiag() as diag:
                    looked_up = diag.lookup(found.local, found.remote)
                assert looked_up is not None
                assert found.seen.inode == looked_up.inode != 0


def test_more_than_fits_into_one_piece() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=500))
        clients = [
            stack.enter_context(socket.create_connection(address(listener))) for _ in range(300)
        ]
        found = listed(remote_port=address(listener)[1], host="127.0.0.1")
        assert {each.local for each in found} == {address(client) for client in clients}
        assert len(found) == 300


def test_a_list_that_the_kernel_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockdiag, "_SOCK_DIAG_BY_FAMILY", 999)
    with pytest.raises(OSError, match="Invalid argument") as caught:
        listed()
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EPERM])
def test_a_kernel_without_ipv6(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = SockDiag._dump

    def without(self: SockDiag, family: int, ports: tuple[int, int], info: bool) -> list[Listed]:
        if family == socket.AF_INET6:
            raise OSError(code, "no")
        return real(self, family, ports, info)

    monkeypatch.setattr(SockDiag, "_dump", without)
    with loopback_pair("127.0.0.1") as pair:
        if code == errno.ENOENT:
            assert listed(remote_port=address(pair.accepted)[1])
        else:
            with pytest.raises(OSError, match="no"):
                listed()


def test_a_lookup_after_a_list_that_was_given_up(pair: Pair) -> None:
    """The rest of its answer is still in the queue."""
    with SockDiag() as diag:
        request = sockdiag._request(socket.AF_INET, 0xFFFFFFFF, 0, (0, 0), bytes(32))
        diag._sock.send(
            netlink.frame(
                sockdiag._SOCK_DIAG_BY_FAMILY, netlink.REQUEST | netlink.DUMP, 77, request
            )
        )
        assert diag.lookup(address(pair.client), address(pair.accepted)) is not None


# --- tcp_info -----------------------------------------------------------------------------


def test_what_the_kernel_counts(pair: Pair) -> None:
    pair.client.send(b"ping")
    assert pair.accepted.recv(100) == b"ping"
    with SockDiag() as diag:
        seen = diag.lookup(address(pair.client), address(pair.accepted), info=True)
    assert seen is not None
    assert seen.info is not None
    own = pair.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    same = TcpInfo.parse(own)
    assert (seen.info.segments_out, seen.info.segments_in) == (
        same.segments_out,
        same.segments_in,
    )
    assert seen.info.segments_out >= 3  # SYN, ACK, data
    assert 0.2 <= seen.info.rto < 1.1
    assert 0 < seen.info.rtt < 0.1
    assert 0 <= seen.info.last_data_sent < 10
    assert (seen.info.probes, seen.info.total_retransmissions) == (0, 0)


def test_how_tcp_info_is_laid_out() -> None:
    """Each word holds its own offset."""
    data = bytes([1, 2, 33, 44, 5, 6, 7, 8]) + struct.pack("=24I", *range(8, 104, 4))
    info = TcpInfo.parse(data + struct.pack("=12I", *range(104, 152, 4)))
    assert info == TcpInfo(
        retransmissions=33,
        probes=44,
        rto=8 / 1e6,
        rtt=68 / 1e6,
        unacknowledged=24,
        last_data_sent=0.044,
        last_data_received=0.052,
        last_ack_received=0.056,
        total_retransmissions=100,
        segments_out=136,
        segments_in=140,
    )
    assert TcpInfo.parse(data).segments_in == 0  # Linux before 4.2
    with pytest.raises(struct.error):
        TcpInfo.parse(data[:50])


# --- framing ------------------------------------------------------------------------------


def test_several_messages_in_one_datagram() -> None:
    one = netlink.frame(20, 0, 1, b"12345")
    two = netlink.frame(21, 0, 2, b"")
    assert list(netlink.messages(one + bytes(3) + two)) == [(20, 1, b"12345"), (21, 2, b"")]
    # A length of 0, which no kernel sends, does not go on for ever.
    assert list(netlink.messages(bytes(netlink.HEADER.size))) == [(0, 0, b"")]


def test_attributes() -> None:
    data = b"head" + struct.pack("=HH5s3x", 9, 1, b"first") + struct.pack("=HHI", 8, 2, 7)
    assert netlink.attribute(data, 4, 1) == b"first"
    assert netlink.attribute(data, 4, 2) == struct.pack("=I", 7)
    assert netlink.attribute(data, 4, 3) is None
    assert netlink.attribute(bytes(4), 0, 1) is None


def test_errors() -> None:
    error = netlink.error_of(struct.pack("=i", -errno.EPERM))
    assert error is not None
    assert error.errno == errno.EPERM
    assert netlink.error_of(struct.pack("=i", 0)) is None
    assert netlink.error_of(b"") is None
