"""One host of the lab: sockets, code and commands on it, its sysctls, its captures."""

from __future__ import annotations

import contextlib
import fcntl
import socket as stdlib_socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_tcpresilience.errors import HarnessError, UsageError
from pytest_tcpresilience.lab.capture import Capture
from pytest_tcpresilience.lab.inside import inside
from pytest_tcpresilience.lab.plan import ADDRESSES, CABLES

if TYPE_CHECKING:
    from pytest_tcpresilience.lab.lab import Lab

T = TypeVar("T")

ENTER = Path(__file__).with_name("enter.py")
CONNECT_S = 10.0
# include/uapi/linux/sockios.h, if.h
_SIOCGIFFLAGS = 0x8913
_IFF_RUNNING = 0x40
# A worker's affair, which waits while the kernel makes or ends other namespaces.
_CARRIER_S = 10.0
_POLL_S = 0.0005
_SYSCTL = "a name such as net.ipv4.tcp_retries2"


class Host:
    """A host of a :class:`Lab`: ``lab.client``, ``lab.router`` or ``lab.server``.

    Sockets that it makes are ordinary ones of this process, whose segments cross the lab.
    """

    def __init__(self, lab: Lab, name: str) -> None:
        self._lab = lab
        self.name = name

    @property
    def address(self) -> str:
        """Its IPv4 address. The router has two, and this is no way to ask for one."""
        return ADDRESSES[self.name]

    # --- sockets -------------------------------------------------------------------------

    def socket(
        self,
        family: int = stdlib_socket.AF_INET,
        type: int = stdlib_socket.SOCK_STREAM,
        proto: int = 0,
    ) -> stdlib_socket.socket:
        """A new socket on this host, not connected.

        :raises OSError: as the kernel does.
        """
        return stdlib_socket.socket(fileno=self._make(family, type, proto))

    def _make(self, family: int, type: int, proto: int) -> int:
        return self._lab.channel.socket(self.name, family, type, proto)

    def listen(self, port: int = 0, *, backlog: int = 128) -> stdlib_socket.socket:
        """A listening TCP socket on this host's address.

        :param port: 0 for any that is free.
        """
        listener = self.socket()
        try:
            listener.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
            listener.bind((self.address, port))
            listener.listen(backlog)
        except BaseException:
            listener.close()
            raise
        return listener

    def connect(
        self, address: tuple[str, int], *, timeout: float = CONNECT_S
    ) -> stdlib_socket.socket:
        """A TCP connection from this host; the socket then blocks without limit.

        :param timeout: seconds, for the connecting alone.
        :raises OSError: as ``connect`` does.
        """
        sock = self.socket()
        try:
            sock.settimeout(timeout)
            sock.connect(address)
            sock.settimeout(None)
        except BaseException:
            sock.close()
            raise
        return sock

    # --- code ----------------------------------------------------------------------------

    def inside(self) -> AbstractContextManager[None]:
        """In this block, sockets that this thread or task makes are this host's.

        For code under test that makes its own through Python: sync, asyncio or trio. Threads
        that it starts are not inside unless they take the context along, as
        ``asyncio.to_thread`` does. Libraries that make their sockets in C need :meth:`popen`.
        """
        return inside(self._make)

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """``function(*args, **kwargs)``, with its sockets made on this host."""
        with self.inside():
            return function(*args, **kwargs)

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command on this host.

        Whatever it leaves behind ends with the lab. It sees a PID namespace of the lab's.

        :param options: of :class:`subprocess.Popen`.
        """
        if isinstance(command, (str, bytes)) or options.get("shell"):
            raise UsageError(
                "popen on a lab's host takes a list",
                expected='for example ["python3", "client.py"], or ["sh", "-c", "..."]',
                happened=f"got {command!r}",
                advice="split the command into its words",
            )
        hello = self._lab.channel.hello
        entered = [sys.executable, "-I", "-S", str(ENTER), str(hello["pid"])]
        entered += [str(hello["namespaces"][self.name]), str(int(hello["own_user"])), *command]
        process: subprocess.Popen[Any] = subprocess.Popen(entered, **options)
        self._lab.processes.append(process)
        return process

    def run(
        self, command: Sequence[str], *, timeout: float | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this host to its end, with its output as text.

        :param timeout: seconds.
        :raises subprocess.CalledProcessError: when it fails; ``check=False`` lets it.
        :raises subprocess.TimeoutExpired: when it takes too long; it is ended.
        """
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with self.popen(command, stdin=subprocess.DEVNULL, **options) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                raise
        if check and process.returncode:
            raise subprocess.CalledProcessError(process.returncode, list(command), out, err)
        return subprocess.CompletedProcess(list(command), process.returncode, out, err)

    # --- what it is set to, and what it sees ---------------------------------------------

    def sysctl(self, name: str, value: int | str | None = None) -> str:
        """Read a sysctl of this host, or write it: ``sysctl("net.ipv4.tcp_retries2", 3)``.

        :returns: what is in force then.
        :raises UsageError: for one that this kernel does not have for a namespace, or a
            value that it refuses.
        """
        if not name.startswith("net.") or "/" in name:
            raise UsageError(
                f"{name!r} is no sysctl of a host",
                expected=_SYSCTL,
                happened=f"got {name!r}",
                advice="only those below net. belong to a network namespace",
            )
        path = name.replace(".", "/")
        try:
            found = self._lab.channel.sysctls(
                self.name, {path: None if value is None else str(value)}
            )
        except OSError as error:
            raise UsageError(
                f"the {self.name} cannot have {name} = {value}"
                if value is not None
                else f"the {self.name} has no {name}",
                expected=_SYSCTL,
                happened=f"{error.strerror}",
                advice="see Documentation/networking/ip-sysctl.rst of the kernel",
            ) from error
        return found[path]

    @property
    def has_carrier(self) -> bool:
        """Whether its system believes that its cable is in.

        It notices up to 1 s after a cable was pulled or plugged in, as the kernel looks no
        more often. Segments pass all the same.
        """
        return self._is_running("eth0")

    def _is_running(self, interface: str) -> bool:
        with self.socket(type=stdlib_socket.SOCK_DGRAM) as sock:
            request = struct.pack("16sh14x", interface.encode(), 0)
            answer = fcntl.ioctl(sock.fileno(), _SIOCGIFFLAGS, request)
        return bool(struct.unpack_from("h", answer, 16)[0] & _IFF_RUNNING)

    def wait_until_running(self, interface: str = "eth0") -> None:
        """Until an interface that has been set up carries segments.

        The side that was set up first has no carrier then, and drops what it should send
        until a worker of the kernel has taken notice of the other one.

        :raises HarnessError: when that does not happen.
        """
        deadline = time.monotonic() + _CARRIER_S
        while not self._is_running(interface):
            if time.monotonic() > deadline:
                raise HarnessError(
                    f"the {self.name}'s {interface} does not come up",
                    expected="a carrier",
                    happened=f"none in {_CARRIER_S:g} s",
                    advice="is the machine on its knees?",
                )
            time.sleep(_POLL_S)

    def capture(self, interface: str = "eth0") -> Capture:
        """Begin to capture every segment on this host's cable."""
        # Protocol 0: nothing comes in before the capture has bound it to its interface.
        sock = self.socket(stdlib_socket.AF_PACKET, stdlib_socket.SOCK_DGRAM, 0)
        capture = Capture(sock, interface, self._lab.names)
        self._lab.captures.append(capture)
        return capture


class Router(Host):
    """The router between the two, with the firewall."""

    @property
    def address(self) -> str:
        raise UsageError(
            "the router has no address of its own",
            expected="lab.client.address or lab.server.address",
            happened="it has one on each cable, and answers nobody",
            advice="connect the client to the server",
        )

    def capture(self, toward: str = "client") -> Capture:
        """Begin to capture every segment on one of its cables.

        :param toward: whose cable, ``"client"`` or ``"server"``.
        :raises UsageError: for another name.
        """
        return super().capture(CABLES[self._lab.end_host(toward)])

    def reboot(self, down: float = 0.3) -> None:
        """Off and on again: no carrier on either cable for a time, and every flow forgotten.

        :param down: seconds.
        """
        self._lab.reboot_router(down)
