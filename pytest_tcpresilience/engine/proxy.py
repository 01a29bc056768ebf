"""A listener, its connections and its toxics.

Owns when a fault acts and on which connections. How it takes hold of them is
:mod:`.strikes`'; what it does to one is :mod:`.connection`'s, and to bytes
:mod:`.toxics`'.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from pytest_tcpresilience.engine import endpoints, probes, strikes, toxics
from pytest_tcpresilience.engine.arming import Arming
from pytest_tcpresilience.engine.connection import Connection
from pytest_tcpresilience.engine.errors import (
    ApiError,
    proxy_not_found,
    toxic_exists,
    toxic_not_found,
)
from pytest_tcpresilience.engine.events import EventLog
from pytest_tcpresilience.engine.farewell import Behind
from pytest_tcpresilience.engine.metrics import Traffic
from pytest_tcpresilience.engine.reception import Reception
from pytest_tcpresilience.engine.strikes import Active
from pytest_tcpresilience.engine.vigil import Vigil
from pytest_tcpresilience.kernel import capabilities
from pytest_tcpresilience.tcp.addresses import join_address

# Closed connections that are still listed; a proxy may serve for days.
REMEMBERED = 1000


class Proxy:
    """One link, as the engine sees it.

    :param listen: where clients connect; without a host, and by default, on loopback.
    :param seed: of all that is random here.
    :param vigil: tells of resets that nobody would read.
    """

    def __init__(self, name: str, listen: str, upstream: str, seed: str, vigil: Vigil) -> None:
        self.name = name
        self.aim(listen, upstream)
        self.enabled = False
        # The proxy of another server that this one leads to, if it must not outlive this one.
        self.behind: Behind | None = None
        self.toxics: dict[str, Active] = {}
        self.connections: dict[int, Connection] = {}
        self.history: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self.events = EventLog()
        self.arming = Arming(self)
        self.seed = seed
        self.vigil = vigil
        self._reception = Reception(self)
        self._door = self._reception.door
        self._nursery: trio.Nursery | None = None
        self._opened = trio.Event()
        # Held while a fault takes or loses hold, so that two control calls cannot
        # interleave. Both are bounded by the settling time.
        self._striking = trio.Lock()
        self._rescued = False
        # Held while the listener opens, so that two control calls open one.
        self._opening = trio.Lock()
        self._ended = False
        self._was_disabled = False

    def aim(self, listen: str, upstream: str) -> None:
        """New addresses, for a proxy that is disabled. What it counts starts from 0."""
        # What was asked for stays comparable once ``listen`` carries the real port.
        self.asked = listen
        self.listen = listen or "127.0.0.1:0"
        self.upstream = upstream
        self.traffic = Traffic()

    def is_at(self, listen: str, upstream: str) -> bool:
        """Whether the addresses are the ones that it has, or was given."""
        return upstream == self.upstream and listen in (self.listen, self.asked)

    # --- life ----------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry the proxy until it is cancelled by :meth:`end`."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            if self._ended:  # deleted before it had begun
                nursery.cancel_scope.cancel()
            nursery.start_soon(probes.watch, self)
            task_status.started()
            await trio.sleep_forever()

    def start_soon(self, function: Callable[[], Awaitable[None]]) -> None:
        """A task that ends with the proxy."""
        assert self._nursery is not None
        self._nursery.start_soon(function)

    async def enable(self) -> None:
        """Open the listener. ``listen`` then carries the real port.

        :raises ApiError: when the address cannot be resolved or bound.
        """
        async with self._opening:
            if not self.enabled:
                await self._open()

    async def _open(self) -> None:
        listener = None if self._door.kept else await self._listen()
        await self.arming.arm_pending()
        if self._ended:
            if listener is not None:
                listener.close()
            raise proxy_not_found()
        self.enabled = True
        self._rescued = False
        if listener is not None:
            self._door.open(listener)
        else:
            self._door.open_again()
        if self._was_disabled:
            self.events.add("enabled")

    async def _listen(self) -> socket.socket:
        """A socket that listens at ``listen``, which then carries the real port."""
        sock = await endpoints.listen(self.listen)
        if self._ended:  # deleted in the meantime
            sock.close()
            raise proxy_not_found()
        host, port = endpoints.address_of(sock.getsockname())
        self.listen = join_address(host, port)
        return sock

    def disable(self) -> None:
        """Close the listener and all connections, and give the port up."""
        self._door.close()
        self._disabled()

    async def keep_port(self) -> None:
        """As :meth:`disable`, but the port stays the proxy's, and refuses.

        :raises ApiError: as :meth:`enable`.
        """
        async with self._opening:
            if self.enabled:
                self._door.keep()
            elif not self._door.kept:
                self._door.keep(await self._listen())
            self._disabled()

    def _disabled(self) -> None:
        if self.enabled:
            self.events.add("disabled")
        self.enabled = False
        self._was_disabled = True
        # For those that have been accepted and have not joined yet.
        self._reception.epoch += 1
        for connection in list(self.connections.values()):
            connection.end()

    def end(self) -> None:
        self._ended = True
        self.disable()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def admit_waiting(self) -> None:
        """Take the clients that have connected and were not accepted yet."""
        self._reception.admit_waiting()

    async def dial(self) -> socket.socket:
        """A connected socket to the upstream. OSError as :func:`.endpoints.dial`."""
        return await endpoints.dial(self.upstream)

    # --- connections ---------------------------------------------------------------------

    def joined(self, connection: Connection) -> None:
        """A connection begins: it meets whatever acts on new connections."""
        self.connections[connection.number] = connection
        self.arming.joined(connection)
        self.events.add(
            "opened",
            at=connection.opened_at,
            connection=connection.number,
            client=list(connection.client_address),
        )
        for active in list(self.toxics.values()):
            if active.struck_at is not None and not self._rescued:
                if active.toxic.kind.below:
                    strikes.meet(active, connection)
                else:
                    self._arm_timer(active.toxic, connection)
        self._opened.set()
        self._opened = trio.Event()
        if connection.epoch != self._reception.epoch:  # disabled between accept and here
            connection.end()

    def left(self, connection: Connection) -> None:
        del self.connections[connection.number]
        self.history.append(connection.document())

    async def has_connections(self) -> None:
        """Wait until there is one."""
        while not self.connections:
            await self._opened.wait()

    def targets(self, toxic: toxics.Toxic) -> list[Connection]:
        """The open connections that a toxic acts on."""
        return [
            each
            for each in self.connections.values()
            if not each.closed and toxic.aims_at(each.number)
        ]

    def opened(self) -> trio.Event:
        """Set when the next connection opens."""
        return self._opened

    # --- toxics --------------------------------------------------------------------------

    def stream_toxics(self, stream: toxics.Stream) -> list[toxics.Toxic]:
        return [
            active.toxic
            for active in self.toxics.values()
            if active.toxic.stream == stream and not active.toxic.kind.below
        ]

    async def add_toxic(self, body: Mapping[str, Any]) -> Active:
        """Create a toxic; a link toxic without a schedule acts before this returns.

        :raises ApiError: for a bad body, a name in use, or a machine that lacks what
            the toxic needs (501).
        """
        toxic = toxics.create(body)
        if toxic.name in self.toxics:
            raise toxic_exists()
        lacking = capabilities.probe().lacks(toxic.needs)
        if lacking:
            raise ApiError(f"{toxic.type} cannot be produced on this machine: {lacking}", 501)
        self._check_target(toxic)
        now = time.monotonic()
        active = self.toxics[toxic.name] = Active(toxic, armed_at=now)
        target = {"connection": toxic.connection} if toxic.connection else {}
        # After how long without traffic it acts, in seconds: the cause of what it then does.
        times = {
            name: toxic.attributes[name] / 1000
            for name in ("when_idle", "idle_timeout")
            if toxic.attributes.get(name)
        }
        self.events.add("toxic_added", at=now, toxic=toxic.name, type=toxic.type, **target, **times)
        if not toxic.kind.below:
            active.struck_at = now
            self.reshape()
            for connection in list(self.connections.values()):
                self._arm_timer(toxic, connection)
        elif self.enabled or self._rescued:
            await self.arming.arm(active)
        else:
            active.armed_at = None
        return active

    def _check_target(self, toxic: toxics.Toxic) -> None:
        """:raises ApiError: for a connection that is not open."""
        number = toxic.connection
        if not number or self.targets(toxic):
            return
        for closed in self.history:
            if closed["connection"] == number and closed["closed"]:
                ending = closed["closed"]
                how = f"it was closed by the {ending['by']} ({ending['how']})"
                break
        else:
            opened = self._reception.count
            how = f"{opened} have been opened" if number > opened else "it has ended"
        raise ApiError(f"connection {number} is not open: {how}", 400)

    def update_toxic(self, name: str, body: Mapping[str, Any]) -> Active:
        """New attributes for a stream toxic.

        :raises ApiError: 404, or 400 for a link toxic, which cannot change once armed.
        """
        active = self._active(name)
        if active.toxic.kind.below:
            raise ApiError("a toxic below the byte stream cannot be updated: remove it", 400)
        active.toxic = toxics.update(active.toxic, body)
        for connection in list(self.connections.values()):
            connection.timers.disarm(name)
            self._arm_timer(active.toxic, connection)
        self.reshape()
        return active

    async def remove_toxic(self, name: str) -> None:
        """Undo a toxic, as far as it can be undone.

        :raises ApiError: 404.
        """
        active = self._active(name)
        toxic = active.toxic
        active.scope.cancel()
        async with self._striking:
            self.toxics.pop(name, None)
            self._door.let_go(name)
            for connection in list(self.connections.values()):
                strikes.let_go(toxic, connection)
        self.reshape()
        target = {"connection": toxic.connection} if toxic.connection else {}
        self.events.add("toxic_removed", toxic=name, type=toxic.type, **target)

    def _active(self, name: str) -> Active:
        try:
            return self.toxics[name]
        except KeyError:
            raise toxic_not_found() from None

    def reshape(self) -> None:
        """Have the pumps look again at what shapes and counts their bytes."""
        for connection in list(self.connections.values()):
            connection.carriage.look_again()

    def _arm_timer(self, toxic: toxics.Toxic, connection: Connection) -> None:
        delay_s = toxic.attributes.get("timeout", 0) / 1000
        if not connection.lucky(toxic):
            return
        if toxic.type == "timeout" and delay_s:
            connection.timers.after(toxic.name, delay_s, lambda: connection.hang_up("timeout"))
        elif toxic.type == "reset_peer":
            connection.timers.after(toxic.name, delay_s, lambda: connection.reset("reset_peer"))

    # --- faults below the byte stream ----------------------------------------------------

    async def strike(self, active: Active) -> None:
        """Take hold of the link and of all its connections."""
        async with self._striking:
            if self.toxics.get(active.toxic.name) is not active:
                return  # removed while this waited for its turn
            active.struck_at = time.monotonic()
            # First the listener, so that no connection slips in behind a cut.
            if not active.toxic.connection:  # one connection's fault is not the listener's
                self._strike_listener(active.toxic)
            connections = [each for each in self.targets(active.toxic) if not each.cutter.evicted]
            if active.toxic.kind.listener:
                strikes.record_at_listener(active, self.events)
                connections = []
            await strikes.STRIKES[active.toxic.type](active, connections)
            self.events.add(
                "fault_active",
                toxic=active.toxic.name,
                type=active.toxic.type,
                connections=len(connections) and active.hits,
            )

    def _strike_listener(self, toxic: toxics.Toxic) -> None:
        if toxic.type in ("silent_drop", "ignore_connections"):
            self._door.silence(toxic.name)
        elif toxic.type == "refuse_connections":
            self._door.refuse(toxic.name)

    # --- rescue --------------------------------------------------------------------------

    def rescue(self, *, refuse: bool) -> None:
        """Wake whoever hangs: RST on all connections; with ``refuse``, no new ones."""
        self._rescued = True
        self.events.add("rescue_refuse" if refuse else "rescue_reset")
        if refuse:
            self.enabled = False
            self._door.close()
        else:
            self._door.heal()
        for connection in list(self.connections.values()):
            connection.reset("rescue")

    # --- what the API shows --------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """As Toxiproxy writes it, its stray ``Logger`` included."""
        return {
            "name": self.name,
            "listen": self.listen,
            "upstream": self.upstream,
            "enabled": self.enabled,
            "Logger": {},
            "toxics": [active.document() for active in self.toxics.values()],
        }
