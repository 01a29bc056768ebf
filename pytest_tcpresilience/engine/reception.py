"""The clients of a proxy: from its listener to connections that are being carried.

Owns the numbers of connections, and what becomes of a client for whom the machine has no
descriptor. What a connection meets when it begins is the proxy's.
"""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from typing import TYPE_CHECKING

import trio

from pytest_tcpresilience.engine import descriptors, endpoints
from pytest_tcpresilience.engine.connection import Connection
from pytest_tcpresilience.engine.door import Door
from pytest_tcpresilience.engine.legs import client_leg

if TYPE_CHECKING:
    from pytest_tcpresilience.engine.proxy import Proxy


class Reception:
    """:ivar count: how many connections have been opened.

    :ivar epoch: how often the proxy has been disabled, so that those who were accepted
        before and have not joined yet can be told.
    """

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.door = Door(self._serve, self._drain)
        self.count = 0
        self.epoch = 0

    def _serve(self, listener: socket.socket) -> None:
        self._proxy.start_soon(partial(self._accept, listener))

    async def _accept(self, listener: socket.socket) -> None:
        full = False
        with contextlib.suppress(trio.ClosedResourceError):
            while self.door.listener is listener:  # else it was closed as a client came
                await trio.lowlevel.wait_readable(listener)
                try:
                    self._admit(listener)
                    full = False
                except (BlockingIOError, ConnectionAbortedError):
                    continue
                except OSError as error:
                    if error.errno in descriptors.FULL:
                        if not full:  # said once, not twenty times a second
                            self._proxy.events.add("accept_failed", error=error.strerror)
                        full = True
                        await trio.sleep(descriptors.PAUSE_S)

    def admit_waiting(self) -> None:
        """Take the clients that have connected and were not accepted yet."""
        if self.door.listener is not None:
            self._drain(self.door.listener)

    def _drain(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._admit(listener)

    def _admit(self, listener: socket.socket) -> None:
        """Take the next client that waits. BlockingIOError when there is none."""
        sock, name = listener.accept()
        leg = client_leg(sock, str(name[0]))
        self.count += 1
        connection = Connection(
            self._proxy,
            self.count,
            leg,
            client_address=endpoints.address_of(name),
            local_address=endpoints.address_of(sock.getsockname()),
            epoch=self.epoch,
        )
        self._proxy.start_soon(partial(connection.guard, connection.run))
