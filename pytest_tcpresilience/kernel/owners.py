"""Whose a socket is, and a second descriptor for it.

Owns the way from a socket's inode, as sock_diag tells it, to the process that holds it,
and from there to a descriptor of this process for the same socket. It knows nothing of
TCP: what is read or set through that descriptor is the caller's affair.

What is in reach, on Linux: the sockets of this process always; those of a process of the
same user where the kernel would let us trace it (``pidfd_getfd``, Linux 5.6), which
Yama's scope 1 narrows to descendants and Docker's default seccomp profile refuses.
Whatever is out of reach is a :class:`Denied` that says why, never an exception.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

# Alike on all architectures but Alpha (asm-generic/unistd.h). os.pidfd_open is Python's.
_PIDFD_GETFD: Final = 438


class Refusal(str, Enum):
    """Why a socket is out of reach."""

    CLOSED = "closed"
    """Only the kernel holds it: no application has accepted it yet, or it has closed it."""
    OTHER_USER = "other_user"
    HIDDEN = "hidden"
    """Of this user, but no process that we may look into holds it."""
    FORBIDDEN = "forbidden"
    """The process is known, and the kernel or a sandbox refuses its descriptors."""
    UNSUPPORTED = "unsupported"
    """This kernel or sandbox has no ``pidfd_getfd``."""
    GONE = "gone"
    """Closed, or its process ended, while we were looking."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Denied:
    """:param why: for programs. :param detail: for people, without a full stop."""

    why: Refusal
    detail: str


@dataclass(frozen=True)
class Owner:
    """A process that holds a socket.

    :param pid: of the process.
    :param name: of the process, as the kernel knows it (15 characters).
    :param fd: its descriptor.
    :param inode: the socket's.
    """

    pid: int
    name: str
    fd: int
    inode: int


# --- who ----------------------------------------------------------------------------------


def find(inodes: Collection[int]) -> dict[int, Owner]:
    """The owner of each socket, as far as this process may know it. One walk for all.

    A socket that several processes hold (a forked child inherits it) counts as this
    process's, else as the nearest descendant's, else as any other's.
    """
    wanted = {inode for inode in inodes if inode > 0}
    found: dict[int, Owner] = {}
    for pid in _pids():
        if not wanted:
            break
        for fd, inode in _sockets(pid):
            if inode in wanted:
                wanted.discard(inode)
                found[inode] = Owner(pid, name_of(pid), fd, inode)
    return found


def of_process(pid: int) -> set[int]:
    """The inodes of all sockets that a process holds.

    :raises OSError: when there is no such process, or it may not be looked into.
    """
    os.listdir(f"/proc/{pid}/fd")
    return {inode for _, inode in _sockets(pid)}


def why_unknown(inode: int, uid: int) -> Denied:
    """Why :func:`find` has no owner for this socket.

    :param uid: the socket's, as sock_diag tells it.
    """
    if not inode:
        return Denied(
            Refusal.CLOSED, "the application has closed this socket, or not yet accepted it"
        )
    if os.geteuid() not in (0, uid):
        return Denied(Refusal.OTHER_USER, f"the socket belongs to another user (uid {uid})")
    return Denied(
        Refusal.HIDDEN,
        "no process that may be looked into holds the socket (it is in another PID namespace, "
        "not dumpable, or has just ended)",
    )


def name_of(pid: int) -> str:
    """A process's name as the kernel knows it; ``"?"`` when it has ended."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return "?"


def _pids() -> Iterator[int]:
    """This process, its descendants by generation, then all others."""
    me = os.getpid()
    yield me
    try:
        others = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {me}
    except OSError:
        return
    children: dict[int, list[int]] = {}
    for pid in sorted(others):
        children.setdefault(_parent(pid), []).append(pid)
    generation = [me]
    while generation:
        generation = [child for pid in generation for child in children.get(pid, ())]
        others.difference_update(generation)
        yield from generation
    yield from sorted(others)


def _parent(pid: int) -> int:
    return _stat(pid, 1) or 0


def started_at(pid: int) -> int | None:
    """When a process began, in the kernel's ticks since boot; ``None`` when there is none.

    With it a process is told from a later one that has its number.
    """
    return _stat(pid, 19)


def _stat(pid: int, field: int) -> int | None:
    """A field of ``/proc/pid/stat`` (proc(5)), counted from 0 behind the name."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name before it is in parentheses and may contain some, and blanks.
            return int(file.read().rpartition(b")")[2].split()[field])
    except (OSError, ValueError, IndexError):
        return None


def _sockets(pid: int) -> Iterator[tuple[int, int]]:
    """Descriptor and inode of each socket of a process, as far as it can be seen."""
    directory = f"/proc/{pid}/fd"
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        # A descriptor may be closed between the listing and the look.
        with contextlib.suppress(OSError, ValueError):
            target = os.readlink(f"{directory}/{name}")
            if target.startswith("socket:["):
                yield int(name), int(target[8:-1])


# --- a second descriptor ------------------------------------------------------------------


def borrow(owner: Owner) -> socket.socket | Denied:
    """The owner's socket through a descriptor of our own.

    Options that are set on it are set on the owner's socket. To close it does not
    disturb the owner: the connection lives as long as anybody has a descriptor. It must
    be closed soon, though, for the same reason.
    """
    try:
        fd = os.dup(owner.fd) if owner.pid == os.getpid() else _from_process(owner)
    except OSError as error:
        return _denied(owner, error)
    # The number may have been given to another file since the owner was found.
    if os.fstat(fd).st_ino != owner.inode:
        os.close(fd)
        return Denied(Refusal.GONE, "the socket was closed while it was looked at")
    return _as_socket(fd)


def borrow_inode(inode: int, uid: int) -> socket.socket | Denied:
    """:func:`find` and :func:`borrow` for one socket.

    :param inode: the socket's, and :param uid: its user, as sock_diag tells them.
    """
    owner = find([inode]).get(inode)
    return why_unknown(inode, uid) if owner is None else borrow(owner)


def _as_socket(fd: int) -> socket.socket:
    # socket.setdefaulttimeout makes every new socket object non-blocking, and that mode
    # is shared with the owner.
    blocking = os.get_blocking(fd)
    try:
        sock = socket.socket(fileno=fd)
    except BaseException:
        os.close(fd)
        raise
    if os.get_blocking(fd) != blocking:
        os.set_blocking(fd, blocking)
    return sock


def _from_process(owner: Owner) -> int:
    pidfd_open: Callable[[int], int] | None = getattr(os, "pidfd_open", None)
    if pidfd_open is None:
        raise OSError(errno.ENOSYS, f"{sys.platform} has no pidfd_open")
    pidfd = pidfd_open(owner.pid)
    try:
        return pidfd_getfd(pidfd, owner.fd)
    finally:
        os.close(pidfd)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """The system call, which Python does not have.

    :raises OSError: as the kernel does.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    number = int(libc.syscall(_PIDFD_GETFD, pidfd, fd, 0))
    if number < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return number  # close-on-exec, by the kernel


def _denied(owner: Owner, error: OSError) -> Denied:
    who = f"process {owner.pid} ({owner.name})"
    if error.errno in (errno.ESRCH, errno.EBADF):
        return Denied(Refusal.GONE, f"{who} ended or closed the socket while it was looked at")
    if error.errno == errno.ENOSYS:
        return Denied(Refusal.UNSUPPORTED, "this kernel or sandbox has no pidfd_getfd")
    return Denied(
        Refusal.FORBIDDEN,
        f"the kernel refuses the descriptors of {who} ({error.strerror}): it is another user's, "
        "or Yama or a seccomp profile such as Docker's default forbids pidfd_getfd",
    )
