"""The process that holds a lab's namespaces, and does what needs their privileges.

Run as a script by a fresh interpreter (``python -I -S keeper.py CHANNEL OWN_USER``), so it
imports the standard library alone, and little of that: it must be up in milliseconds. It
decides nothing. It makes three network namespaces, and then carries out one small order
after the other: run a program in one of them, hand a socket of one of them over, write a
sysctl. What the programs are told is :mod:`.plan`'s.

Nothing outlives it. It is process 1 of a PID namespace, so the kernel ends every process in
the lab when it ends; and it ends with its owner, whose pidfd it watches because a forked
child could hold the channel open. The namespaces go with their last process and socket.
"""

from __future__ import annotations

# No contextlib, json, signal or typing: they would double the time that it takes to start.
import _socket
import ctypes
import marshal
import os
import select
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# include/uapi/linux/sched.h, prctl.h
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
SIGKILL = 9  # the same on each of Linux's architectures

HOSTS = ("client", "router", "server")
# An order or an answer is one message; rulesets and batches are far smaller.
MESSAGE_BYTES = 65536
REAP_MS = 500

libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int, what: str) -> None:
    _checked(libc.unshare(flags), f"unshare({what})")


def set_namespace(fd: int, flags: int) -> None:
    _checked(libc.setns(fd, flags), "setns")


def die_with_parent() -> None:
    """The parent must have a single thread: the kernel means the thread that forked."""
    _checked(libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def enter_own_user_namespace() -> None:
    """Root in a user namespace of its own, and nobody outside of it."""
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER, "CLONE_NEWUSER")
    try:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/gid_map", f"0 {gid} 1")
    except OSError as error:
        raise OSError(error.errno, f"uid_map: {error.strerror}") from None


def become_lab(own_user: bool) -> bool:
    """Leave the machine's namespaces.

    :param own_user: do it in a user namespace, also where that is not needed.
    :returns: whether it is in one.
    :raises OSError: naming the step that the machine does not allow.
    """
    if not own_user:
        try:
            unshare(CLONE_NEWPID | CLONE_NEWNET, "CLONE_NEWPID | CLONE_NEWNET")
            return False
        except PermissionError:
            pass
    enter_own_user_namespace()
    unshare(CLONE_NEWPID | CLONE_NEWNET, "CLONE_NEWPID | CLONE_NEWNET in a user namespace")
    return True


def _kill(outer_pid: int) -> None:
    """End a process of this PID namespace, by its number outside; others are let alone."""
    with open(f"/proc/{outer_pid}/status") as file:
        numbers = next(line for line in file if line.startswith("NSpid:")).split()[1:]
    if len(numbers) > 1 and numbers[-1] != "1":
        os.kill(int(numbers[-1]), SIGKILL)


class Keeper:
    """Carries out orders. A method named ``do_x`` is the order ``x``."""

    def __init__(self, in_user_namespace: bool) -> None:
        self.in_user_namespace = in_user_namespace
        self.namespaces: dict[str, int] = {}
        # Of the namespace in which /proc is mounted, which is its owner's.
        self.outer_pid = int(os.readlink("/proc/self"))
        for host in HOSTS:
            self._new_namespace(host)

    def _new_namespace(self, host: str) -> None:
        unshare(CLONE_NEWNET, "CLONE_NEWNET")
        old = self.namespaces.pop(host, None)
        self.namespaces[host] = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if old is not None:
            os.close(old)

    def _enter(self, host: str) -> None:
        set_namespace(self.namespaces[host], CLONE_NEWNET)

    def do_hello(self) -> dict[str, Any]:
        return {
            "pid": self.outer_pid,
            "own_user": self.in_user_namespace,
            "namespaces": self.namespaces,
            "inodes": {host: os.fstat(fd).st_ino for host, fd in self.namespaces.items()},
        }

    def do_renew(self, host: str) -> dict[str, Any]:
        """An empty namespace in place of a host's, and an end of whatever ran there."""
        old = os.fstat(self.namespaces[host]).st_ino
        self._new_namespace(host)
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.stat(f"/proc/{name}/ns/net").st_ino == old:
                    _kill(int(name))
            except OSError:
                continue  # it has ended meanwhile, or is none of the lab's
        return self.do_hello()

    def do_socket(self, host: str, family: int, kind: int, protocol: int) -> int:
        self._enter(host)
        return _socket.socket(family, kind, protocol).detach()

    def do_sysctls(self, host: str, values: dict[str, str | None]) -> dict[str, str]:
        """Write those with a value, and say what is in force."""
        self._enter(host)
        found = {}
        for name, value in values.items():
            path = f"/proc/sys/{name}"
            if value is not None:
                _write(path, value)
            with open(path) as file:
                found[name] = file.read().strip()
        return found

    def do_netlink(self, host: str, protocol: int, request: str) -> str:
        self._enter(host)
        channel = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, protocol)
        try:
            channel.settimeout(2.0)
            channel.send(bytes.fromhex(request))
            return channel.recv(MESSAGE_BYTES).hex()
        finally:
            channel.close()

    def do_run(self, programs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run all of them at the same time, and wait for all."""
        started = [self._start(**each) for each in programs]
        return [self._finish(pid, output) for pid, output in started]

    def _start(self, host: str, argv: list[str], text: str) -> tuple[int, int]:
        self._enter(host)
        given, output = os.memfd_create("given"), os.memfd_create("output")
        os.write(given, text.encode())
        os.lseek(given, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, given, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, output, number) for number in (1, 2)]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
        pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
        os.close(given)
        return pid, output

    def _finish(self, pid: int, output: int) -> dict[str, Any]:
        _, status = os.waitpid(pid, 0)
        os.lseek(output, 0, os.SEEK_SET)
        text = os.read(output, MESSAGE_BYTES // 4).decode(errors="replace")
        os.close(output)
        return {"status": os.waitstatus_to_exitcode(status), "text": text}


def _answer(keeper: Keeper, channel: _socket.socket, order: bytes) -> None:
    fd = None
    try:
        name, arguments = marshal.loads(order)
        answer: Any = getattr(keeper, f"do_{name}")(**arguments)
        if name == "socket":
            fd, answer = answer, None
        reply = {"answer": answer}
    except OSError as error:
        reply = {"errno": error.errno, "error": str(error.strerror or error)}
    ancillary = []
    if fd is not None:
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))]
    channel.sendmsg([marshal.dumps(reply)], ancillary)
    if fd is not None:
        os.close(fd)


def _reap() -> None:
    """Process 1 is the parent of whoever has lost its own."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def serve(channel: _socket.socket, owner: int, in_user_namespace: bool) -> None:
    """Until the owner closes the channel, or ends."""
    keeper = Keeper(in_user_namespace)
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    poll.register(owner, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll(REAP_MS)}
        if owner in ready:
            return
        if ready:
            order = channel.recv(MESSAGE_BYTES)
            if not order:
                return
            _answer(keeper, channel, order)
        _reap()


def _refuse(channel: _socket.socket, error: OSError) -> None:
    channel.recv(MESSAGE_BYTES)
    channel.send(marshal.dumps({"errno": error.errno, "error": str(error.strerror)}))


def main() -> None:
    channel = _socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(channel.fileno(), False)
    owner = os.pidfd_open(os.getppid())
    try:
        in_user_namespace = become_lab(own_user=sys.argv[2] == "1")
    except OSError as error:
        _refuse(channel, error)
        return
    child = os.fork()
    if child == 0:
        die_with_parent()
        try:
            serve(channel, owner, in_user_namespace)
        except OSError as error:
            _refuse(channel, error)
        os._exit(0)
    channel.close()
    os.waitpid(child, 0)


if __name__ == "__main__":
    main()
