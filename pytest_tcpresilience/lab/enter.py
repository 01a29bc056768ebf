"""Run a command on one of a lab's hosts: ``python -I -S enter.py KEEPER FD OWN_USER COMMAND...``

A script for a fresh interpreter, because only a process with a single thread may enter a user
namespace. It stands for the command: signals that it gets are passed on, it ends as the
command ends, and the command ends with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

libc = ctypes.CDLL(None, use_errno=True)


def enter(keeper: str, network: str, own_user: bool) -> None:
    """Open all of them first: behind the user namespace, the keeper may be out of reach."""
    wanted = [(f"/proc/{keeper}/ns/user", CLONE_NEWUSER)] if own_user else []
    wanted += [(f"/proc/{keeper}/fd/{network}", CLONE_NEWNET)]
    wanted += [(f"/proc/{keeper}/ns/pid", CLONE_NEWPID)]
    opened = [(os.open(path, os.O_RDONLY | os.O_CLOEXEC), kind) for path, kind in wanted]
    for fd, kind in opened:
        if libc.setns(fd, kind):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(fd)


def main() -> None:
    keeper, network, own_user, *command = sys.argv[1:]
    try:
        enter(keeper, network, own_user == "1")
        # Before the fork: a signal that comes in between is kept until the child can have it.
        signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        child = os.fork()  # ENOMEM where the first process of its namespace has ended
    except OSError as error:
        sys.exit(f"{command[0]} was not started, for its host is no more: {error.strerror}")
    if child == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        try:
            os.execvp(command[0], command)
        except OSError as error:
            print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
            os._exit(127)
    for number in PASSED_ON:
        signal.signal(number, lambda got, _frame: os.kill(child, got))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        # Ended by a signal, and whoever waits for this process shall see that.
        signal.signal(-code, signal.SIG_DFL) if -code not in (9, 19) else None
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
