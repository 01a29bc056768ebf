"""trio's sockets on a virtual network: what ``trio.socket.socket()`` returns in a run.

Owns the meaning of each socket call, of its errors and of its options. What TCP does about
it is :mod:`.host`'s and :mod:`.machine`'s.
"""

from __future__ import annotations

import errno
import itertools
import operator
import socket as stdlib
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import trio

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.virtual.host import ANY, LOOPBACK, Endpoint, Host, Listener, os_error
from pytest_tcpresilience.virtual.names import resolve
from pytest_tcpresilience.virtual.options import OptionTable
from pytest_tcpresilience.virtual.segment import Address
from pytest_tcpresilience.virtual.states import State
from pytest_tcpresilience.virtual.timers import Options
from pytest_tcpresilience.virtual.world import World, in_trio

if TYPE_CHECKING:
    from typing_extensions import Self

# Numbers that no descriptor of this process has.
_NUMBERS = itertools.count(1_000_000)
_CONNECTING = frozenset({State.SYN_SENT, State.SYN_RECEIVED})


class _Queue:
    """The task, one at a time, that waits until something is so."""

    def __init__(self, world: World, host: Host) -> None:
        self._world = world
        self._host = host
        self._lot = trio.lowlevel.ParkingLot()

    def wake(self) -> None:
        if self._lot:
            self._world.network.wakes += 1
            self._lot.unpark_all()

    def __bool__(self) -> bool:
        return bool(self._lot)

    async def until(self, ready: Callable[[], bool], what: str) -> None:
        """Park until it is so; a checkpoint in any case."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if ready():
            await trio.lowlevel.cancel_shielded_checkpoint()
        while not ready():
            if self._lot:
                raise trio.BusyResourceError(f"another task already waits {what}")
            with self._world.waiting(self._host, what):
                await self._lot.park()


class VirtualSocket(trio.socket.SocketType):
    """A TCP socket of a host. It does what trio documents for its own sockets."""

    def __init__(self, world: World, host: Host, endpoint: Endpoint | None = None) -> None:
        self._world = world
        self._host = host
        self._number = next(_NUMBERS)
        self._options = Options(keepalive=host.stack.keepalive_by_default)
        self._table = OptionTable(host)
        self._local: Address | None = None
        self._listener: Listener | None = None
        self._endpoint: Endpoint | None = None
        self._closed = False
        self._sent_eof = False
        self._deaf = False
        self._error_told = False
        self._readers = _Queue(world, host)
        self._writers = _Queue(world, host)
        self._connectors = _Queue(world, host)
        if endpoint is not None:
            self._options = endpoint.machine.options
            self._attach(endpoint)

    # --- plain facts ---------------------------------------------------------------------

    @property
    def family(self) -> stdlib.AddressFamily:
        return stdlib.AF_INET

    @property
    def type(self) -> stdlib.SocketKind:
        return stdlib.SOCK_STREAM

    @property
    def proto(self) -> int:
        return stdlib.IPPROTO_TCP

    @property
    def did_shutdown_SHUT_WR(self) -> bool:
        return self._sent_eof

    def fileno(self) -> int:
        """-1 once it is closed; else a number that no file of this process has."""
        return -1 if self._closed else self._number

    def get_inheritable(self) -> bool:
        return False

    def set_inheritable(self, inheritable: bool) -> None:
        if inheritable:
            self._refuse("inherited by another process")

    def detach(self) -> int:
        self._refuse("detached")

    def dup(self) -> trio.socket.SocketType:
        self._refuse("duplicated")

    def share(self, process_id: int) -> bytes:
        self._refuse("shared with another process")

    def _refuse(self, what: str) -> NoReturn:
        raise UsageError(
            f"a virtual socket cannot be {what}",
            expected="trio's socket calls on one TCP connection",
            happened="there is no descriptor behind it",
            advice="pass the trio socket itself",
        )

    def getsockname(self) -> Address:
        self._check_open()
        if self._endpoint is not None:
            return self._endpoint.local
        return self._local or (ANY, 0)

    def getpeername(self) -> Address:
        endpoint = self._connected()
        return endpoint.peer

    def __repr__(self) -> str:
        peer = f" to {self._where(self._endpoint.peer)}" if self._endpoint else ""
        return f"<VirtualSocket of {self._host.name}{peer}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- options -------------------------------------------------------------------------

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> Any:
        self._check_open()
        if (level, optname) == (stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN):
            return int(self._listener is not None)
        if (level, optname) == (stdlib.SOL_SOCKET, stdlib.SO_ERROR):
            return self._take_error()
        value = self._table.get(self._options, level, optname)
        if (level, optname) == (stdlib.SOL_SOCKET, stdlib.SO_LINGER):
            return value if buflen else value[:4]
        return struct.pack("i", value)[:buflen] if buflen else value

    def setsockopt(
        self, level: int, optname: int, value: Any = None, optlen: int | None = None
    ) -> None:
        self._check_open()
        was_on = self._options.keepalive
        self._table.set(self._options, level, optname, value)
        if self._endpoint is not None:
            keepalive_on = self._options.keepalive and not was_on
            self._world.sync()
            self._endpoint.options_changed(keepalive_on=keepalive_on)

    # --- checks --------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise os_error(errno.EBADF)
        self._world.check()

    def _connected(self) -> Endpoint:
        self._check_open()
        endpoint = self._endpoint
        if endpoint is None or endpoint.machine.state in _CONNECTING:
            raise os_error(errno.ENOTCONN)
        return endpoint

    def _take_error(self) -> int:
        """The error with which the connection ended, the first time somebody asks."""
        if self._endpoint is None or self._error_told:
            return 0
        error = self._endpoint.machine.error
        self._error_told = bool(error)
        return error

    def _where(self, address: Address) -> str:
        host = self._world.network.owner(address[0], self._host)
        return f"{host.name if host else address[0]}:{address[1]}"

    # --- news from the network -----------------------------------------------------------

    def _attach(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        endpoint.notify = self._notice

    def _notice(self) -> None:
        endpoint = self._endpoint
        assert endpoint is not None
        over = endpoint.machine.state is State.CLOSED
        if self._readers and endpoint.readable:
            self._readers.wake()
        if self._writers and (endpoint.machine.writable or over):
            self._writers.wake()
        if self._connectors and endpoint.machine.state not in _CONNECTING:
            self._connectors.wake()

    def _still_open(self, ready: Callable[[], bool]) -> Callable[[], bool]:
        return lambda: self._closed or ready()

    def _check_not_closed_meanwhile(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("another task closed this socket")

    # --- beginning -----------------------------------------------------------------------

    async def bind(self, address: Any) -> None:
        self._check_open()
        await trio.lowlevel.checkpoint()
        host, port = self._split(address)
        if self._local is not None:
            raise os_error(errno.EINVAL, "bound already")
        self._local = self._host.claim((self._resolve(host) if host else ANY, port))

    def _split(self, address: Any) -> tuple[str, int]:
        pair = isinstance(address, tuple) and len(address) == 2
        if not pair or not isinstance(address[0], str) or not isinstance(address[1], int):
            raise ValueError(f"expected a (host, port) tuple, not {address!r}")
        if not 0 <= address[1] <= 65535:
            raise OverflowError(f"port must be 0-65535, not {address[1]}")
        return address[0], address[1]

    def _resolve(self, host: str) -> str:
        return resolve(self._world, self._host, host)

    def listen(self, backlog: int = 128) -> None:
        self._check_open()
        self._world.sync()
        if self._endpoint is not None:
            raise os_error(errno.EINVAL, "it is connected")
        if self._listener is not None:
            self._listener.backlog = max(backlog, 1)
            return
        if self._local is None:
            self._local = self._host.claim((ANY, 0))
        self._listener = self._host.listen(self._local, backlog, self._options)
        self._listener.notify = self._readers.wake

    async def accept(self) -> tuple[trio.socket.SocketType, Address]:
        self._check_open()
        listener = self._listener
        if listener is None:
            raise os_error(errno.EINVAL, "it does not listen")

        def ready() -> bool:
            return self._closed or bool(listener.ready) or not self._host.up

        await self._readers.until(ready, f"for a connection to port {listener.local[1]}")
        self._check_not_closed_meanwhile()
        if not listener.ready:
            raise os_error(errno.ENETDOWN, f"{self._host.name} has crashed")
        endpoint = listener.ready.popleft()
        return VirtualSocket(self._world, self._host, endpoint), endpoint.peer

    async def connect(self, address: Any) -> None:
        self._check_open()
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._endpoint is not None:
            raise os_error(errno.EISCONN)
        host, port = self._split(address)
        self._world.sync()
        self._attach(self._dial(self._resolve(host), port))
        try:
            await self._established()
        except trio.Cancelled:
            # As trio says: a socket whose connect was cancelled is of no use any more.
            self.close()
            raise
        if error := self._take_error():
            raise os_error(error, f"connecting to {self._where((host, port))}")

    def _dial(self, ip: str, port: int) -> Endpoint:
        network, here = self._world.network, self._host
        if network.owner(ip, here) is None:
            known = ", ".join(f"{each.name} {each.address}" for each in network.hosts.values())
            raise os_error(errno.EHOSTUNREACH, f"no host has {ip} in this network; it has {known}")
        own = LOOPBACK if ip.startswith("127.") else here.address
        if self._local is None:
            local = here.claim((own, 0))
        else:
            local = (own if self._local[0] == ANY else self._local[0], self._local[1])
        return here.connect(local, (ip, port), self._options)

    async def _established(self) -> None:
        endpoint = self._endpoint
        assert endpoint is not None

        def ready() -> bool:
            return self._closed or endpoint.machine.state not in _CONNECTING

        what = f"for an answer to its SYN from {self._where(endpoint.peer)}"
        await self._connectors.until(ready, what)
        self._check_not_closed_meanwhile()

    # --- data ----------------------------------------------------------------------------

    def is_readable(self) -> bool:
        """Whether a read would return at once."""
        if self._listener is not None:
            return bool(self._listener.ready)
        return self._endpoint is not None and self._endpoint.readable

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        if flags:
            raise os_error(errno.EOPNOTSUPP, "flags of recv")
        most = operator.index(buflen)
        if most < 0:
            raise ValueError("negative buffersize in recv")
        endpoint = self._connected()
        self._world.sync()
        ready = self._still_open(lambda: self._deaf or endpoint.readable)
        await self._readers.until(ready, f"for data from {self._where(endpoint.peer)}")
        self._check_not_closed_meanwhile()
        self._world.sync()
        data = endpoint.read(most)
        # What arrived before an RST can still be read (measured on Linux).
        if not data and (error := self._take_error()):
            raise os_error(error)
        return data

    async def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0, /) -> int:
        with memoryview(buffer).cast("B") as view:
            data = await self.recv(nbytes or len(view), flags)
            view[: len(data)] = data
        return len(data)

    async def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Address]:
        return await self.recv(bufsize, flags), self.getpeername()

    async def send(self, data: Any, flags: int = 0, /) -> int:
        endpoint = self._connected()
        await self._until_writable(endpoint)
        if self._sent_eof:
            raise os_error(errno.EPIPE)
        self._world.sync()
        if endpoint.machine.state is State.CLOSED:
            raise os_error(self._take_error() or errno.EPIPE)
        return endpoint.write(bytes(data))

    async def sendto(self, *args: Any) -> int:
        return await self.send(args[0])

    async def sendmsg(
        self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None
    ) -> int:
        if ancdata or address is not None:
            raise os_error(errno.EOPNOTSUPP, "ancillary data, or an address, on TCP")
        return await self.send(b"".join(bytes(each) for each in buffers), flags)

    async def wait_writable(self) -> None:
        endpoint = self._connected()
        await self._until_writable(endpoint)

    async def _until_writable(self, endpoint: Endpoint) -> None:
        machine = endpoint.machine

        def ready() -> bool:
            return machine.writable or machine.state is State.CLOSED or self._sent_eof

        what = f"for {self._where(endpoint.peer)} to take what was sent"
        await self._writers.until(self._still_open(ready), what)
        self._check_not_closed_meanwhile()

    # --- end -----------------------------------------------------------------------------

    def shutdown(self, flag: int) -> None:
        endpoint = self._connected()
        self._world.sync()
        if endpoint.machine.state is State.CLOSED:
            raise os_error(errno.ENOTCONN)
        if flag in (stdlib.SHUT_RD, stdlib.SHUT_RDWR):
            self._deaf = True
            self._readers.wake()
        if flag in (stdlib.SHUT_WR, stdlib.SHUT_RDWR):
            self._sent_eof = True
            endpoint.shutdown()
            self._writers.wake()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        # After the run nothing is left to be told, and no time in which it could be.
        if self._world.running and in_trio():
            self._world.sync()
            if self._listener is not None:
                self._listener.close()
            if self._endpoint is not None:
                self._endpoint.close()
        for queue in (self._readers, self._writers, self._connectors):
            queue.wake()


class Sockets(trio.abc.SocketFactory):
    """For ``trio.socket.set_custom_socket_factory``."""

    def __init__(self, world: World) -> None:
        self._world = world

    def socket(
        self,
        family: int | None = None,
        type: int | None = None,
        proto: int | None = None,
    ) -> trio.socket.SocketType:
        self._world.check()
        if family not in (None, -1, stdlib.AF_INET):
            raise os_error(errno.EAFNOSUPPORT, "a virtual network has IPv4 only")
        if type not in (None, -1, stdlib.SOCK_STREAM):
            raise os_error(errno.ESOCKTNOSUPPORT, "a virtual network has TCP only")
        return VirtualSocket(self._world, self._world.here)
