"""Whose a socket is: in this process, in a child, in another user's, behind a sandbox."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_tcpresilience.kernel import owners
from pytest_tcpresilience.kernel.capabilities import Pair, loopback_pair
from pytest_tcpresilience.kernel.owners import Denied, Owner, Refusal

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")

ANOTHER_UID = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def pair() -> Iterator[Pair]:
    with loopback_pair("127.0.0.1") as made:
        yield made


def inode_of(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


# A child that holds the socket it is given, until its standard input ends.
HOLDER = "import sys; print('ready', flush=True); sys.stdin.read()"


@pytest.fixture
def holder(pair: Pair) -> Iterator[subprocess.Popen[str]]:
    """A child process that alone holds ``pair.client``; this process has closed it."""
    pair.client.setblocking(True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[pair.client.fileno()],
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child


def borrowed(owner: Owner) -> socket.socket:
    sock = owners.borrow(owner)
    if isinstance(sock, Denied):
        # Only where this machine's sandbox says so can these tests say nothing.
        assert sock.why in (Refusal.FORBIDDEN, Refusal.UNSUPPORTED)
        pytest.skip(sock.detail)
    return sock


# --- who ----------------------------------------------------------------------------------


def test_a_socket_of_this_process(pair: Pair) -> None:
    inode = inode_of(pair.client)
    assert owners.find([inode]) == {
        inode: Owner(os.getpid(), owners.name_of(os.getpid()), pair.client.fileno(), inode)
    }


def test_a_socket_of_a_child(pair: Pair, holder: subprocess.Popen[str]) -> None:
    inode, fd = inode_of(pair.client), pair.client.fileno()
    assert owners.find([inode])[inode].pid == os.getpid()  # both have it: ours comes first
    pair.client.close()
    owner = owners.find([inode])[inode]
    assert (owner.pid, owner.fd) == (holder.pid, fd)
    assert owner.name.startswith("python")
    assert inode in owners.of_process(holder.pid)


def test_all_at_once(pair: Pair) -> None:
    inodes = [inode_of(sock) for sock in (pair.client, pair.accepted, pair.listener)]
    assert owners.find([*inodes, 0]).keys() == set(inodes)


def test_a_socket_that_nobody_has(pair: Pair) -> None:
    inode = inode_of(pair.client)
    pair.client.close()
    assert owners.find([inode]) == {}
    assert owners.why_unknown(inode, os.geteuid()).why is Refusal.HIDDEN
    assert owners.why_unknown(0, os.geteuid()).why is Refusal.CLOSED


def test_a_process_that_does_not_exist() -> None:
    beyond = int(Path("/proc/sys/kernel/pid_max").read_text())
    with pytest.raises(FileNotFoundError):
        owners.of_process(beyond)
    assert owners.name_of(beyond) == "?"


def test_another_users_socket_is_named_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    denied = owners.why_unknown(1, 1001)
    assert denied == Denied(Refusal.OTHER_USER, "the socket belongs to another user (uid 1001)")
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # who sees all processes
    assert owners.why_unknown(1, 1001).why is Refusal.HIDDEN


# --- a second descriptor ------------------------------------------------------------------


def check_shared(pair: Pair, sock: socket.socket) -> None:
    """What is set there is set here, and closing it leaves the connection alone."""
    with sock:
        assert sock.family is socket.AF_INET
        assert sock.type == socket.SOCK_STREAM
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 7)
        assert not sock.get_inheritable()
    pair.accepted.sendall(b"still there")


def test_borrow_our_own(pair: Pair) -> None:
    sock = owners.borrow_inode(inode_of(pair.client), os.geteuid())
    assert isinstance(sock, socket.socket)
    check_shared(pair, sock)
    assert pair.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 7
    assert pair.client.recv(100) == b"still there"


def test_borrow_a_childs(pair: Pair, holder: subprocess.Popen[str]) -> None:
    inode = inode_of(pair.client)
    pair.client.close()
    check_shared(pair, borrowed(owners.find([inode])[inode]))
    with borrowed(owners.find([inode])[inode]) as again:
        assert again.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 7
        assert again.recv(100) == b"still there"


def test_a_default_timeout_does_not_make_the_owner_non_blocking(pair: Pair) -> None:
    pair.client.setblocking(True)
    try:
        socket.setdefaulttimeout(5.0)
        sock = owners.borrow_inode(inode_of(pair.client), os.geteuid())
        assert isinstance(sock, socket.socket)
        sock.close()
        assert os.get_blocking(pair.client.fileno())
    finally:
        socket.setdefaulttimeout(None)


def test_a_descriptor_that_was_given_to_another_file(pair: Pair) -> None:
    stale = Owner(os.getpid(), "me", pair.listener.fileno(), inode_of(pair.client))
    before = len(os.listdir("/proc/self/fd"))
    denied = owners.borrow(stale)
    assert isinstance(denied, Denied)
    assert denied.why is Refusal.GONE
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_descriptor_that_was_closed(pair: Pair) -> None:
    owner = owners.find([inode_of(pair.client)])[inode_of(pair.client)]
    pair.client.close()
    denied = owners.borrow(owner)
    assert isinstance(denied, Denied)
    assert denied.why is Refusal.GONE
    assert "ended or closed the socket" in denied.detail


def test_a_process_that_ended(pair: Pair, holder: subprocess.Popen[str]) -> None:
    inode = inode_of(pair.client)
    pair.client.close()
    owner = owners.find([inode])[inode]
    borrowed(owner).close()
    holder.communicate("")
    denied = owners.borrow(owner)
    assert isinstance(denied, Denied)
    assert denied.why is Refusal.GONE


def test_a_system_without_pidfds(
    pair: Pair, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = inode_of(pair.client)
    pair.client.close()
    monkeypatch.delattr(os, "pidfd_open")
    denied = owners.borrow_inode(inode, os.geteuid())
    assert denied == Denied(Refusal.UNSUPPORTED, "this kernel or sandbox has no pidfd_getfd")


# --- from another process: a user of its own, a sandbox -----------------------------------

# Looks at a socket of its parent, after it has become what its second argument says. The
# system call is refused by a seccomp filter of four instructions, as Docker does it.
LOOKER = """
import ctypes, json, os, struct, sys
from pytest_tcpresilience.kernel import owners
inode, uid, then = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
libc = ctypes.CDLL(None, use_errno=True)
if then == "setuid":
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
elif then:
    code = 0x00050000 | int(then)  # SECCOMP_RET_ERRNO
    rows = [(0x20, 0, 0, 0), (0x15, 0, 1, 438), (0x06, 0, 0, code), (0x06, 0, 0, 0x7FFF0000)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *row) for row in rows))
    head = struct.pack("@HP", len(rows), ctypes.addressof(program))
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, head, 0, 0) == 0  # PR_SET_SECCOMP, filter
got = owners.borrow_inode(inode, uid)
print(json.dumps({"why": got.why, "detail": got.detail} if isinstance(got, owners.Denied) else {}))
"""


def look_from_a_child(inode: int, then: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", LOOKER, str(inode), str(os.geteuid()), then],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_child_looks_at_its_parent(pair: Pair) -> None:
    answer = look_from_a_child(inode_of(pair.client), "")
    assert answer.get("why") in (None, "forbidden")  # the latter under Yama


@as_root
def test_somebody_else_looks_at_roots_socket(pair: Pair) -> None:
    answer = look_from_a_child(inode_of(pair.client), "setuid")
    assert answer == {
        "why": "other_user",
        "detail": "the socket belongs to another user (uid 0)",
    }


@pytest.mark.parametrize(
    ("code", "why", "says"),
    [
        (errno.ENOSYS, "unsupported", "no pidfd_getfd"),
        (errno.EPERM, "forbidden", "seccomp profile such as Docker's default"),
    ],
)
def test_a_sandbox_without_pidfd_getfd(pair: Pair, code: int, why: str, says: str) -> None:
    answer = look_from_a_child(inode_of(pair.client), str(code))
    assert answer["why"] == why
    assert says in answer["detail"]


@as_root
def test_root_borrows_from_anybody(pair: Pair) -> None:
    inode = inode_of(pair.client)
    script = "import os, sys; os.setuid(65534); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[pair.client.fileno()],
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        pair.client.close()
        owner = owners.find([inode])[inode]
        assert owner.pid == child.pid
        check_shared(pair, borrowed(owner))
        child.communicate("")


def test_when_a_process_began_tells_it_from_a_later_one_of_its_number() -> None:
    mine, parents = owners.started_at(os.getpid()), owners.started_at(os.getppid())
    assert mine is not None
    assert parents is not None
    assert parents <= mine == owners.started_at(os.getpid())
    assert owners.started_at(2**22 + 1) is None  # above the largest number that Linux gives
