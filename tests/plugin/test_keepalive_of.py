"""``keepalive_of`` and ``assert_keepalive`` on real links and real clients of several kinds."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pytest_tcpresilience import (
    ExpectationFailed,
    HarnessError,
    Keepalive,
    KeepaliveReading,
    Link,
    LinkFactory,
    Middlebox,
    UsageError,
    UselessSettingWarning,
    assert_keepalive,
    keepalive_of,
)
from pytest_tcpresilience.evidence.readings import NOT_HERE
from pytest_tcpresilience.kernel import owners, procnet
from pytest_tcpresilience.kernel.owners import Denied, Refusal
from pytest_tcpresilience.kernel.sockdiag import SockDiag
from pytest_tcpresilience.reading import Wanted, read
from tests.servers import EchoServer

FIRM = Keepalive(idle=10, interval=5, probes=3)


@pytest.fixture
def link(tcp_link: LinkFactory, echo_server: EchoServer) -> Link:
    return tcp_link(echo_server.address)


@pytest.fixture
def client(link: Link) -> Iterator[socket.socket]:
    """A connected client that has had one answer."""
    with socket.create_connection((link.host, link.port)) as sock:
        sock.sendall(b"hello")
        assert sock.recv(16) == b"hello"
        yield sock


def out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    denied = Denied(Refusal.FORBIDDEN, "a sandbox forbids it")
    monkeypatch.setattr(owners, "borrow", lambda _: denied)


# --- reading ------------------------------------------------------------------------------


def test_a_client_in_this_process(link: Link, client: socket.socket) -> None:
    own = Keepalive(idle=7, interval=8, probes=9, user_timeout=12.345)
    own.apply(client)
    (reading,) = keepalive_of(link)
    assert reading.settings == Keepalive.of(link) == own
    assert (reading.pid, reading.process) == (os.getpid(), owners.name_of(os.getpid()))
    assert reading.connection == link.connections[0].number
    assert reading.client == client.getsockname()
    assert reading.complete
    assert reading.rto is not None
    assert 0.2 <= reading.rto < 1.5
    assert str(reading).endswith("keepalive 7/8/9, user timeout 12.345 s")
    assert client.fileno() > 0
    client.sendall(b"still there")
    assert client.recv(100) == b"still there"


def test_ipv6(tcp_link: LinkFactory, echo_server: EchoServer) -> None:
    try:
        link = tcp_link(echo_server.address, host="::1")
    except HarnessError as error:
        pytest.skip(str(error))
    with socket.create_connection((link.host, link.port)) as sock:
        FIRM.apply(sock)
        sock.sendall(b"hello")
        sock.recv(16)
        (reading,) = keepalive_of(link)
    assert reading.settings == FIRM
    assert reading.where.startswith("connection 1, [::1]:")


def test_nobody_is_connected(link: Link) -> None:
    assert keepalive_of(link) == ()
    with pytest.raises(UsageError, match="assert_keepalive: no client is connected"):
        assert_keepalive(link, within=60)
    with pytest.raises(UsageError, match=r"Keepalive\.of: no client is connected"):
        Keepalive.of(link)


def test_clients_that_differ(link: Link, client: socket.socket) -> None:
    FIRM.apply(client)
    with socket.create_connection((link.host, link.port)) as other:
        other.sendall(b"hello")
        other.recv(16)
        assert [reading.enabled for reading in keepalive_of(link)] == [True, False]
        with pytest.raises(UsageError, match="the clients of this link differ"):
            Keepalive.of(link)


def test_three_hundred_clients(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """One list of connections for each family, and one walk through the processes."""
    lists, walks = [0], [0]
    real_dump, real_find = SockDiag._dump, owners.find

    def dump(self: SockDiag, *args: object) -> object:
        lists[0] += 1
        return real_dump(self, *args)  # type: ignore[arg-type]

    def find(inodes: list[int]) -> object:
        walks[0] += 1
        return real_find(inodes)

    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection((link.host, link.port)))
            for _ in range(300)
        ]
        for each in clients:
            each.sendall(b"hello")
        for each in clients:
            assert each.recv(16) == b"hello"
        FIRM.apply(clients[77])
        monkeypatch.setattr(SockDiag, "_dump", dump)
        monkeypatch.setattr(owners, "find", find)
        readings = keepalive_of(link)
        assert (lists, walks) == ([2], [1])
        by_client = {reading.client: reading for reading in readings}
        assert len(by_client) == 300
        assert all(reading.complete for reading in readings)
        assert by_client[clients[77].getsockname()].settings == FIRM
        with pytest.raises(ExpectationFailed, match="299 of 300 connections cannot") as caught:
            assert_keepalive(link, within=60)
    assert "and 298 like it" in caught.value.happened
    assert len(caught.value.happened.splitlines()) == 2


# --- clients of other kinds ---------------------------------------------------------------


@contextlib.contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def reading_of(link: Link, child: subprocess.Popen[str]) -> KeepaliveReading:
    (reading,) = keepalive_of(link)
    if not reading.complete:
        pytest.skip(reading.partial)  # this machine's sandbox; the partial path has its tests
    assert reading.pid == child.pid
    return reading


NODE = """
const client = require('net').connect(+process.argv[1], process.argv[2], () => {
  client.setKeepAlive(true, 60000); client.write('hello');
});
client.on('data', () => console.log('ready'));
"""


def test_a_node_client(link: Link) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here")
    with running(node, "-e", NODE, str(link.port), link.host) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        reading = reading_of(link, child)
    assert reading.process == "node"
    assert (reading.enabled, reading.idle) == (True, 60)


class Postgres:
    """As much of a PostgreSQL server as a client needs to be connected."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.connected = threading.Event()
        self._socks: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._socks.append(sock)
                self._greet(sock)

    def _greet(self, sock: socket.socket) -> None:
        while head := sock.recv(8, socket.MSG_WAITALL):
            length, code = struct.unpack("!II", head)
            if code in (80877103, 80877104):  # SSLRequest, GSSENCRequest
                sock.sendall(b"N")
                continue
            sock.recv(length - 8, socket.MSG_WAITALL)
            words = [b"server_version\x0016\x00", b"client_encoding\x00UTF8\x00"]
            status = b"".join(b"S" + struct.pack("!I", 4 + len(word)) + word for word in words)
            # AuthenticationOk, ParameterStatus, ReadyForQuery.
            sock.sendall(b"R\0\0\0\x08\0\0\0\0" + status + b"Z\0\0\0\x05I")
            self.connected.set()
            return

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for sock in self._socks:
            sock.close()


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.close()


LIBPQ = (
    "user=me dbname=it sslmode=disable gssencmode=disable keepalives=1 keepalives_idle=31 "
    "keepalives_interval=12 keepalives_count=4 tcp_user_timeout=45000"
)
LIBPQ_SETTINGS = Keepalive(idle=31, interval=12, probes=4, user_timeout=45.0)


def test_a_socket_that_libpq_owns_in_this_process(
    tcp_link: LinkFactory, postgres: Postgres
) -> None:
    psycopg = pytest.importorskip("psycopg")
    link = tcp_link(postgres.address)
    with psycopg.connect(f"host={link.host} port={link.port} {LIBPQ}", autocommit=True):
        assert Keepalive.of(link) == LIBPQ_SETTINGS
        assert_keepalive(link, within=120, writes_within=60)


def test_psql(tcp_link: LinkFactory, postgres: Postgres) -> None:
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("no psql here")
    link = tcp_link(postgres.address)
    with running(psql, "-X", f"host={link.host} port={link.port} {LIBPQ}") as child:
        assert postgres.connected.wait(30)
        assert reading_of(link, child).settings == LIBPQ_SETTINGS


def test_curl(tcp_link: LinkFactory) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl here")
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = tcp_link(server.getsockname())
        url = f"http://{link.address}/"
        with running(curl, "-sS", "--noproxy", "*", "--keepalive-time", "33", url) as child:
            accepted, _ = server.accept()
            with accepted:
                assert accepted.recv(100)  # it has asked, and waits for an answer
                assert reading_of(link, child).idle == 33


# --- what little there is -----------------------------------------------------------------


def test_without_sock_diag(
    link: Link, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    FIRM.apply(client)

    def refuse(self: SockDiag) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(SockDiag, "__init__", refuse)
        (reading,) = keepalive_of(link)
        assert reading.settings == FIRM
        assert reading.rto is None
        patch.setattr(procnet, "TABLES", dict.fromkeys(procnet.TABLES, "/proc/net/nothing"))
        (reading,) = keepalive_of(link)
    assert reading.partial.startswith("this system has neither sock_diag nor /proc/net/tcp")
    assert reading.enabled is None


def test_a_connection_that_is_not_here(link: Link) -> None:
    (reading,) = read([Wanted(5, ("192.0.2.1", 1), ("192.0.2.2", 2))])
    assert reading == KeepaliveReading(
        ("192.0.2.1", 1), ("192.0.2.2", 2), connection=5, partial=NOT_HERE
    )
    assert str(reading) == (
        "connection 5, 192.0.2.1:1 to 192.0.2.2:2, an unknown process: nothing "
        f"(partial: {NOT_HERE})"
    )
    with pytest.raises(HarnessError, match=r"the settings of connection 5, .* cannot be read"):
        _ = reading.settings


def test_a_timer_alone(link: Link, client: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    out_of_reach(monkeypatch)
    (reading,) = keepalive_of(link)
    assert (reading.enabled, reading.partial) == (False, "a sandbox forbids it")
    assert reading.pid == os.getpid()
    Keepalive(idle=100, interval=5, probes=3).apply(client)
    (reading,) = keepalive_of(link)
    assert reading.enabled is True
    assert reading.next_probe_in is not None
    assert 90 < reading.next_probe_in < 113
    with pytest.raises(HarnessError, match="cannot be read") as caught:
        _ = reading.settings
    assert "known: keepalive on, next probe in" in caught.value.happened


def test_unacknowledged_data_hides_the_keepalive_timer(
    link: Link, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_reach(monkeypatch)
    with link.silent_drop():
        client.sendall(b"into the void")
        (reading,) = keepalive_of(link)
        assert reading.enabled is None
        with pytest.raises(HarnessError, match="the client's connection cannot be judged"):
            assert_keepalive(link, within=60)


# --- judging ------------------------------------------------------------------------------


def test_settings_that_keep_the_promise(link: Link, client: socket.socket) -> None:
    Keepalive(idle=10, interval=5, probes=3, user_timeout=25.0).apply(client)
    nlb = Middlebox(idle_timeout=350, then="reset", name="aws-nlb")
    (judgement,) = assert_keepalive(link, within=30, writes_within=30, behind=nlb)
    assert judgement.verdict == "holds"
    assert judgement.findings == ()


def test_settings_that_do_not(link: Link, client: socket.socket) -> None:
    Keepalive.linux_defaults().apply(client)
    nlb = Middlebox(idle_timeout=350, then="reset", name="aws-nlb")
    with pytest.raises(ExpectationFailed, match="the client's connection cannot keep") as caught:
        assert_keepalive(link, within=60, writes_within=30, behind=nlb)
    error = caught.value
    assert error.expected == (
        "an idle death noticed within 60.0 s, a death with unacknowledged data within 30.0 s, "
        "an idle connection kept alive behind aws-nlb (forgets after 350 s, then reset)"
    )
    lines = error.happened.splitlines()
    assert lines[0].startswith("connection 1, 127.0.0.1:")
    assert lines[0].endswith("keepalive 7200/75/9")
    assert "the system's defaults an idle death is noticed after 2 h 11 min 15 s" in lines[1]
    assert re.search(r"repeated for 1\d min.* \(tcp_retries2 = 15\), and keepalive does", lines[2])
    assert "a probe each 2 h" in lines[3]
    assert "aws-nlb forgets it after 5 min 50 s" in lines[3]
    assert error.advice == (
        "set TCP_KEEPIDLE=6, TCP_KEEPINTVL=6, TCP_KEEPCNT=3; "
        "set TCP_USER_TIMEOUT=24000 (milliseconds)"
    )


def test_the_advice_is_good(link: Link, client: socket.socket) -> None:
    Keepalive(idle=6, interval=6, probes=3, user_timeout=24.0).apply(client)
    nlb = Middlebox(idle_timeout=350, then="reset", name="aws-nlb")
    (judgement,) = assert_keepalive(link, within=60, writes_within=30, behind=nlb)
    assert judgement.findings == ()


def test_a_partial_reading_can_prove_a_failure(
    link: Link, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_reach(monkeypatch)
    Keepalive(idle=100, interval=5, probes=3).apply(client)
    with pytest.raises(ExpectationFailed, match="cannot keep the promise") as caught:
        assert_keepalive(link, within=60)
    assert "the next keepalive probe is due in" in caught.value.happened
    assert "so an idle death is noticed after 1 min" in caught.value.happened
    assert "partial: a sandbox forbids it" in caught.value.happened


def test_and_is_never_taken_for_a_success(
    link: Link, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_reach(monkeypatch)
    FIRM.apply(client)
    with pytest.raises(HarnessError, match="cannot be judged") as caught:
        assert_keepalive(link, within=60, writes_within=60, behind=Middlebox(350))
    assert "not known: whether an idle death is noticed within 60.0 s" in caught.value.happened
    assert "not known: whether a death with unacknowledged data" in caught.value.happened
    assert "not known: whether an idle connection is kept alive" in caught.value.happened


def test_a_useless_setting_is_named(link: Link, client: socket.socket) -> None:
    Keepalive(idle=60, interval=60, probes=9, user_timeout=5.0).apply(client)
    with pytest.warns(UselessSettingWarning, match=r"shorter than TCP_KEEPIDLE \(60 s\)") as seen:
        assert_keepalive(link, writes_within=30)
    assert [warning.filename for warning in seen] == [__file__]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "nothing is promised"),
        ({"within": 0}, "within=0 is no time"),
        ({"within": True}, "within=True is no time"),
        ({"writes_within": float("inf")}, "writes_within=inf is no time"),
        ({"within": "60"}, "within='60' is no time"),
        ({"behind": 350}, "behind=350 is no middlebox"),
    ],
)
def test_arguments_that_make_no_sense(
    link: Link, client: socket.socket, arguments: dict[str, object], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        assert_keepalive(link, **arguments)  # type: ignore[arg-type]


def test_what_is_no_link() -> None:
    with pytest.raises(UsageError, match="needs a link"):
        keepalive_of("127.0.0.1:80")  # type: ignore[arg-type]
