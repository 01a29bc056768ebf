"""What a link knows of each connection that crosses it.

Owns one record for each, kept by what passes. What a fault does is :mod:`.strikes`', and
what becomes of the client's socket :mod:`.witness`'.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.virtual.boxes import Memory, Splice
from pytest_tcpresilience.virtual.host import Endpoint
from pytest_tcpresilience.virtual.network import Network
from pytest_tcpresilience.virtual.segment import Address


@dataclass
class Flow:
    """One connection, from the link's point of view.

    :param number: counts up from 1 within the link.
    :param memory: what passed so far, from which segments can be forged.
    :param abandoned: the client's application has closed it; TCP may still be at it.
    :param splice: the stand-ins, once the two ends have been taken apart.
    """

    number: int
    client: Address
    server: Address
    memory: Memory
    opened_at: float
    last_byte_at: float
    bytes_to_server: int = 0
    bytes_to_client: int = 0
    established: bool = False
    closed: bool = False
    abandoned: bool = False
    splice: Splice | None = None

    def endpoint(self, network: Network, address: Address) -> Endpoint | None:
        """The end at that address, if its host still has it."""
        peer = self.server if address == self.client else self.client
        return network.endpoint(address, peer)

    def keepalive(self, network: Network) -> Keepalive | None:
        """The settings of the client; ``None`` if its host has the connection no more."""
        client = self.endpoint(network, self.client)
        return client.keepalive if client is not None else None

    def in_flight(self, network: Network) -> tuple[int, int]:
        """Bytes that one side has written and the other's kernel has not got, to the server
        and to the client."""
        ends = self.ends(network)
        if len(ends) < 2:
            return 0, 0
        client, server = (end.machine for end in ends)
        to_server = client.outgoing.end - server.incoming.nxt
        to_client = server.outgoing.end - client.incoming.nxt
        return max(to_server, 0), max(to_client, 0)

    def ends(self, network: Network) -> list[Endpoint]:
        found = (self.endpoint(network, each) for each in (self.client, self.server))
        return [each for each in found if each is not None]
