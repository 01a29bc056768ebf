"""One connection through a virtual link, with the faults that can happen to it alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_tcpresilience.fault_methods import ConnectionFaults
from pytest_tcpresilience.virtual.fault import VirtualFault
from pytest_tcpresilience.virtual.flows import Flow

if TYPE_CHECKING:
    from pytest_tcpresilience.virtual.link import VirtualLink


class VirtualConnection(ConnectionFaults[VirtualFault]):
    """A connection that a client has open. Its faults leave its neighbours alone.

    :param number: counts up from 1 within the link.
    :param client: the client's address and port.
    :param opened_at: seconds since the run began.
    :param last_byte_at: likewise, of the last byte in either direction.
    """

    def __init__(self, link: VirtualLink, flow: Flow) -> None:
        self._link = link
        self.number = flow.number
        self.client = flow.client
        self.opened_at = flow.opened_at
        self.last_byte_at = flow.last_byte_at
        self.bytes_to_server = flow.bytes_to_server
        self.bytes_to_client = flow.bytes_to_client

    def _start(self, name: str, **arguments: Any) -> VirtualFault:
        return self._link.start(name, connection=self.number, **arguments)

    def __repr__(self) -> str:
        return f"<VirtualConnection {self.number} of {self._link.name}>"
