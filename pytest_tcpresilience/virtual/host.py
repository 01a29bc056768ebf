"""A host: an address, ports, listeners, and the connections of one TCP stack.

Owns which connection a segment belongs to, what becomes of one that belongs to none (RFC
9293, section 3.10.7.1), and what a crash leaves behind. What is done about a segment is
the :class:`.Machine`'s.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.stacks import Stack
from pytest_tcpresilience.virtual.machine import Machine
from pytest_tcpresilience.virtual.segment import ACK, RST, SYN, WRAP, Address, Segment, reset_for
from pytest_tcpresilience.virtual.states import State
from pytest_tcpresilience.virtual.timers import Options, own_count

if TYPE_CHECKING:
    from pytest_tcpresilience.virtual.network import Network

# IANA's dynamic ports, RFC 6335.
FIRST_PORT, LAST_PORT = 49152, 65535
ANY, LOOPBACK = "0.0.0.0", "127.0.0.1"


# The host that the current task runs on; tasks inherit it from the one that starts them.
HERE: ContextVar[Host | None] = ContextVar("pytest_tcpresilience_host", default=None)


def os_error(code: int, why: str = "") -> OSError:
    """The error that a kernel would give, of the class that Python makes of it."""
    return OSError(code, f"{os.strerror(code)}: {why}" if why else os.strerror(code))


class Endpoint:
    """A connection as its host keeps it: the machine, and who wants to hear of it.

    :param notify: called after anything has happened to the machine.
    :param held_from: the number of the first byte that the application does not get to see,
        because of a stall; ``None`` for no such thing.
    """

    def __init__(self, host: Host, machine: Machine) -> None:
        self.host = host
        self.machine = machine
        self.notify: Callable[[], None] | None = None
        self.held_from: int | None = None
        # Called before ``notify``, by links that follow the connection.
        self.observers: list[Callable[[Endpoint], None]] = []
        self.parent: Listener | None = None
        # The deadline for which the network has an entry.
        self.scheduled = float("inf")

    @property
    def local(self) -> Address:
        return self.machine.local

    @property
    def peer(self) -> Address:
        return self.machine.peer

    @property
    def readable(self) -> bool:
        """Whether a read would return at once. A stall holds back data and FIN, no RST."""
        machine = self.machine
        if self.held_from is None:
            return machine.has_news
        return self.visible > 0 or (machine.state is State.CLOSED and bool(machine.error))

    @property
    def visible(self) -> int:
        """Bytes that the application may read."""
        available = self.machine.incoming.available
        if self.held_from is None:
            return available
        return max(min(available, self.held_from - self.machine.incoming.position), 0)

    @property
    def keepalive(self) -> Keepalive:
        """The settings in force, as :meth:`Keepalive.from_socket` would read them."""
        options, stack = self.machine.options, self.host.stack
        return Keepalive(
            idle=round(stack.idle) if options.idle is None else options.idle,
            interval=max(round(stack.interval), 1)
            if options.interval is None
            else options.interval,
            probes=own_count(stack) if options.probes is None else options.probes,
            user_timeout=options.user_timeout,
            enabled=options.keepalive,
        )

    # --- what the application asks for; each call ends with the segments on their way ----

    def write(self, data: bytes) -> int:
        taken = self.machine.write(data, self.host.network.now)
        self.host.network.settle(self)
        return taken

    def read(self, most: int) -> bytes:
        data = self.machine.read(min(most, self.visible), self.host.network.now)
        self.host.network.settle(self)
        return data

    def shutdown(self) -> None:
        self.machine.shutdown(self.host.network.now)
        self.host.network.settle(self)

    def close(self) -> None:
        self.machine.close(self.host.network.now)
        self.host.network.settle(self)

    def abort(self, error: int = 0) -> None:
        self.machine.abort(self.host.network.now, error)
        self.host.network.settle(self)

    def options_changed(self, *, keepalive_on: bool = False) -> None:
        self.machine.options_changed(self.host.network.now, keepalive_on=keepalive_on)
        self.host.network.settle(self)


class Listener:
    """A port that takes connections."""

    def __init__(self, host: Host, local: Address, backlog: int, options: Options) -> None:
        self.host = host
        self.local = local
        self.backlog = max(backlog, 1)
        self.options = options
        self.ready: deque[Endpoint] = deque()
        self.opening = 0
        self.notify: Callable[[], None] | None = None

    @property
    def full(self) -> bool:
        return len(self.ready) + self.opening >= self.backlog

    def close(self) -> None:
        """No new connections; those that nobody has accepted are reset."""
        self.host.listeners.pop(self.local, None)
        while self.ready:
            self.ready.popleft().abort()


class Host:
    """A machine in the network.

    :param name: by which it can be looked up.
    :param address: its IPv4 address.
    :param stack: its TCP stack, with the system's settings.
    """

    def __init__(self, network: Network, name: str, address: str, stack: Stack) -> None:
        self.network = network
        self.name = name
        self.address = address
        self.stack = stack
        self.up = True
        self.listeners: dict[Address, Listener] = {}
        self.endpoints: dict[tuple[Address, Address], Endpoint] = {}
        self._next_port = FIRST_PORT
        self._entered: list[Token[Host | None]] = []

    def __enter__(self) -> Host:
        """Code in the block, and tasks that it starts, run on this host."""
        self._entered.append(HERE.set(self))
        return self

    def __exit__(self, *exc: object) -> None:
        HERE.reset(self._entered.pop())

    # --- ports ---------------------------------------------------------------------------

    def _in_use(self, address: Address) -> bool:
        ports = {local[1] for local, _ in self.endpoints}
        return address[1] in ports or any(each[1] == address[1] for each in self.listeners)

    def claim(self, address: Address) -> Address:
        """A local address for a socket; port 0 is any free one.

        :raises OSError: EADDRNOTAVAIL or EADDRINUSE.
        """
        self._check_up()
        ip, port = address
        if ip not in (ANY, LOOPBACK, self.address):
            raise os_error(errno.EADDRNOTAVAIL, f"{self.name} has {self.address}, not {ip}")
        if port:
            taken = [each for each in self.listeners if each[1] == port]
            if any(ip in (each[0], ANY) or each[0] == ANY for each in taken):
                raise os_error(errno.EADDRINUSE, f"port {port} of {self.name}")
            return address
        for _ in range(FIRST_PORT, LAST_PORT + 1):
            port = self._next_port
            self._next_port = port + 1 if port < LAST_PORT else FIRST_PORT
            if not self._in_use((ip, port)):
                return ip, port
        raise os_error(errno.EADDRNOTAVAIL, f"{self.name} has no free port left")

    def _check_up(self) -> None:
        if not self.up:
            raise os_error(errno.ENETDOWN, f"{self.name} has crashed")

    # --- connections ---------------------------------------------------------------------

    def listen(self, local: Address, backlog: int, options: Options) -> Listener:
        self._check_up()
        listener = Listener(self, local, backlog, options)
        self.listeners[local] = listener
        return listener

    def connect(self, local: Address, peer: Address, options: Options) -> Endpoint:
        """A connection whose SYN is on its way.

        :raises OSError: when the addresses are in use.
        """
        self._check_up()
        if (local, peer) in self.endpoints:
            raise os_error(errno.EADDRNOTAVAIL, f"{local[1]} of {self.name} is connected already")
        endpoint = self._add(local, peer, options)
        endpoint.machine.open(self.network.now)
        self.network.settle(endpoint)
        return endpoint

    def _add(self, local: Address, peer: Address, options: Options) -> Endpoint:
        first = self.network.random.randrange(WRAP)
        endpoint = Endpoint(self, Machine(self.stack, options, local, peer, first))
        self.endpoints[local, peer] = endpoint
        return endpoint

    def receive(self, segment: Segment) -> None:
        """A segment has arrived."""
        if not self.up:
            return
        endpoint = self.endpoints.get((segment.destination, segment.source))
        if endpoint is not None and self._is_reborn(endpoint, segment):
            self.forget(endpoint)
            endpoint = None
        if endpoint is None:
            self._receive_unknown(segment)
            return
        before = endpoint.machine.state
        endpoint.machine.receive(segment, self.network.now)
        if before is State.SYN_RECEIVED and endpoint.parent is not None:
            self._opened(endpoint, endpoint.parent)
        self.network.settle(endpoint)

    def _is_reborn(self, endpoint: Endpoint, segment: Segment) -> bool:
        """A SYN for a connection in TIME_WAIT begins a new one (RFC 1122, section 4.2.2.13)."""
        is_syn = segment.flags & (SYN | ACK | RST) == SYN
        return is_syn and endpoint.machine.state is State.TIME_WAIT

    def _receive_unknown(self, segment: Segment) -> None:
        ip, port = segment.destination
        listener = self.listeners.get((ip, port)) or self.listeners.get((ANY, port))
        if listener is not None and segment.flags & (SYN | ACK | RST) == SYN:
            if not listener.full:
                self._accept(listener, segment)
            return  # a full backlog does not answer; the client tries again
        answer = reset_for(segment)
        if answer is not None:
            self.network.send(self, answer)

    def _accept(self, listener: Listener, syn: Segment) -> None:
        endpoint = self._add(syn.destination, syn.source, replace(listener.options))
        endpoint.parent = listener
        listener.opening += 1
        endpoint.machine.open_passive(syn, self.network.now)
        self.network.settle(endpoint)

    def _opened(self, endpoint: Endpoint, listener: Listener) -> None:
        """A handshake has ended, well or not."""
        if endpoint.machine.state is State.SYN_RECEIVED:
            return
        listener.opening -= 1
        endpoint.parent = None
        if endpoint.machine.state is State.CLOSED:
            return
        if self.listeners.get(listener.local) is not listener:
            endpoint.machine.abort(self.network.now)
            return
        listener.ready.append(endpoint)
        if listener.notify is not None:
            listener.notify()

    def tick(self, endpoint: Endpoint) -> None:
        """A deadline of one of its connections has come."""
        if self.up and self.endpoints.get((endpoint.local, endpoint.peer)) is endpoint:
            endpoint.machine.tick(self.network.now)
            if endpoint.parent is not None:
                self._opened(endpoint, endpoint.parent)
            self.network.settle(endpoint)

    def forget(self, endpoint: Endpoint) -> None:
        """A connection that is over."""
        self.endpoints.pop((endpoint.local, endpoint.peer), None)

    # --- crashes -------------------------------------------------------------------------

    def crash(self) -> None:
        """Power off: nothing is sent, nothing is answered, and all connections are gone.

        Whoever waits on one of its sockets gets ENETDOWN, so that its tasks end too.
        """
        self.up = False
        endpoints, listeners = list(self.endpoints.values()), list(self.listeners.values())
        self.endpoints.clear()
        self.listeners.clear()
        for endpoint in endpoints:
            endpoint.machine.vanish(errno.ENETDOWN)
            if endpoint.notify is not None:
                endpoint.notify()
        for listener in listeners:
            if listener.notify is not None:
                listener.notify()

    def boot(self) -> None:
        """Power on. It remembers nothing, and answers segments of old connections with RST."""
        self.up = True

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.address} {self.stack}>"
