"""The owner's end of a keeper: orders out, answers and sockets back.

Owns the keeper's process and the one conversation with it. What the orders mean is
:mod:`.keeper`'s.
"""

from __future__ import annotations

import marshal
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_tcpresilience.errors import FaultUnavailable, HarnessError, UsageError

KEEPER = Path(__file__).with_name("keeper.py")
# An order takes milliseconds. This is for a machine on its knees.
ANSWER_S = 20.0
# From the closing of the channel to the keeper's end.
END_S = 5.0
_MESSAGE_BYTES = 65536
# Where distributions put what an unprivileged user's PATH may lack.
_ALSO = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")


def program(name: str, package: str) -> str:
    """Where a program is.

    :raises FaultUnavailable: when it is not installed.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), *_ALSO])
    found = shutil.which(name, path=path)
    if found is None:
        raise unavailable(f"no program `{name}` on this machine", f"install {package}")
    return found


def unavailable(reason: str, advice: str) -> FaultUnavailable:
    return FaultUnavailable(
        f"no lab here: {reason}",
        expected="Linux, the programs ip and nft, and root or unprivileged user namespaces",
        happened=reason,
        advice=advice,
    )


def _advice(step: str) -> str:
    """What an administrator can do about the step that failed."""
    if "user namespace" in step or "CLONE_NEWUSER" in step or "uid_map" in step:
        return (
            "run as root, or allow user namespaces: user.max_user_namespaces, "
            "kernel.unprivileged_userns_clone (Debian), "
            "kernel.apparmor_restrict_unprivileged_userns (Ubuntu); Docker's seccomp profile "
            "forbids them"
        )
    return "a container needs CAP_SYS_ADMIN and a writable /proc/sys for this"


class Channel:
    """A keeper that runs. Orders from several threads wait for each other.

    :param own_user: put the lab into a user namespace also where root could do without.
    :raises FaultUnavailable: where the machine does not allow namespaces.
    """

    def __init__(self, own_user: bool = False) -> None:
        if sys.platform != "linux":
            raise unavailable(f"this is {sys.platform}", "run it on Linux")
        self._lock = threading.Lock()
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.settimeout(ANSWER_S)
        with theirs:
            # A session of its own: Ctrl-C is the owner's affair.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", KEEPER, str(theirs.fileno()), str(int(own_user))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        try:
            self.hello = self._hello()
        except BaseException:
            self.close()
            raise

    def _hello(self) -> dict[str, Any]:
        try:
            hello: dict[str, Any] = self.order("hello")
        except OSError as error:
            step = str(error.strerror)
            raise unavailable(step, _advice(step)) from error
        return hello

    @property
    def process_id(self) -> int:
        return self._process.pid

    def order(self, name: str, **arguments: Any) -> Any:
        """The answer to an order.

        :raises OSError: as the kernel refused it.
        :raises HarnessError: when the keeper is gone.
        """
        return self._exchange(name, arguments)[0]

    def socket(self, host: str, family: int, kind: int, protocol: int) -> int:
        """The descriptor of a new socket in a host's namespace, the caller's from now on."""
        numbers = {"family": int(family), "kind": int(kind), "protocol": int(protocol)}
        arguments = {"host": host, **numbers}  # no enums: marshal takes plain values only
        _, descriptors = self._exchange("socket", arguments)
        return int(descriptors[0])

    def run(self, *programs: tuple[str, list[str], str]) -> list[str]:
        """Run programs at the same time: ``(host, argv, standard input)`` each.

        :returns: what they printed.
        :raises HarnessError: when one of them fails.
        """
        orders = [{"host": host, "argv": argv, "text": text} for host, argv, text in programs]
        done = self.order("run", programs=orders)
        for (host, argv, text), result in zip(programs, done, strict=True):
            if result["status"]:
                raise HarnessError(
                    f"the lab could not set its {host} up",
                    expected=f"{' '.join(argv)} to accept:\n{text.strip()}",
                    happened=f"status {result['status']}: {result['text'].strip()}",
                    advice="is the kernel built with veth, nf_tables and nf_conntrack?",
                )
        return [result["text"] for result in done]

    def sysctls(self, host: str, values: Mapping[str, str | None]) -> dict[str, str]:
        """Write those with a value; what is in force afterwards. Names as paths."""
        found: dict[str, str] = self.order("sysctls", host=host, values=dict(values))
        return found

    def _exchange(self, name: str, arguments: dict[str, Any]) -> tuple[Any, list[int]]:
        with self._lock:
            if self._sock.fileno() < 0:
                raise UsageError(
                    "the lab has ended",
                    expected="a lab of the running test",
                    happened="it ended with the test, or the block, that made it",
                    advice="make a lab in each test; it takes some 30 ms",
                )
            try:
                # Both ends are the same interpreter, and json would take 7 ms to import.
                self._sock.send(marshal.dumps([name, arguments]))
                answer, descriptors, _, _ = socket.recv_fds(self._sock, _MESSAGE_BYTES, 1)
            except OSError as error:
                raise self._lost(str(error)) from error
        if not answer:
            raise self._lost("it ended")
        reply = marshal.loads(answer)
        if "error" in reply:
            raise OSError(reply["errno"], reply["error"])
        return reply["answer"], descriptors

    def _lost(self, how: str) -> HarnessError:
        return HarnessError(
            "the lab's keeper does not answer",
            expected=f"process {self._process.pid} to carry out orders",
            happened=how,
            advice="it lives as long as its lab; who has ended it?",
        )

    def close(self) -> None:
        """End the keeper, and with it every process in the lab. Twice is once."""
        with self._lock:
            self._sock.close()
        # Popen.wait(timeout) sleeps between looks, for longer than the end takes.
        ended = os.pidfd_open(self._process.pid) if self._process.poll() is None else -1
        if ended >= 0:
            if not select.select([ended], [], [], END_S)[0]:
                self._process.kill()
            os.close(ended)
        self._process.wait()
