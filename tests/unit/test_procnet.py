"""``/proc/net/tcp`` tells what sock_diag tells."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

import pytest

from pytest_tcpresilience.kernel import procnet
from pytest_tcpresilience.kernel.capabilities import Pair, loopback_pair
from pytest_tcpresilience.kernel.sockdiag import SockDiag, SocketState

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")


@pytest.fixture
def pair(loopback: str) -> Iterator[Pair]:
    with loopback_pair(loopback) as made:
        yield made


def test_the_table_agrees_with_sock_diag(pair: Pair) -> None:
    pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 100)
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    pair.accepted.send(b"seven77")
    port = pair.accepted.getsockname()[1]
    # On another address the same port may be another test's.
    ours = pair.client.getsockname()[:2]
    with SockDiag() as diag:
        (same,) = [each for each in diag.connections(remote_port=port) if each.local == ours]
    (found,) = [each for each in procnet.connections(remote_port=port) if each.local == ours]
    assert (found.local, found.remote) == (same.local, same.remote)
    # The table is read later, and tells hundredths of a second.
    assert 0 < found.seen.expires <= same.seen.expires + 0.02
    for name in ("state", "timer", "unanswered", "unacknowledged", "unread", "uid", "inode"):
        assert getattr(found.seen, name) == getattr(same.seen, name)
    back = [each for each in procnet.connections(local_port=port) if each.remote == ours]
    assert [each.local for each in back] == [same.remote]


def test_neither_listeners_nor_what_has_ended_is_listed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        found = procnet.connections(local_port=port)
        assert [each for each in found if each.local[0] == host] == []


ROW = (
    "  12: 0100007F:1F90 0200007F:C350 01 00000016:0000000B 01:00000096 00000003  1000        0 "
    "4242 2 0000000000000000 20 4 30 10 -1\n"
)


@pytest.mark.skipif(sys.byteorder != "little", reason="addresses have this machine's byte order")
def test_how_a_row_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    found = procnet.parse(socket.AF_INET, ROW)
    assert (found.local, found.remote) == (("127.0.0.1", 8080), ("127.0.0.2", 50000))
    assert found.seen == SocketState("established", "retransmit", 1.5, 3, 22, 11, 1000, 4242)


def test_a_system_without_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procnet, "TABLES", dict.fromkeys(procnet.TABLES, "/proc/net/nothing"))
    with pytest.raises(FileNotFoundError):
        procnet.connections()


def test_who_listens_on_a_port_is_told_from_who_is_connected_to_it() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        port = listener.getsockname()[1]
        assert procnet.listening(port) == {os.fstat(listener.fileno()).st_ino}
