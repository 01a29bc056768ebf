"""The witness of a virtual link: it follows the clients' sockets.

Owns what is logged of them, in the words of the witness of real links, which asks the kernel.
This one is told of every change.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from pytest_tcpresilience.virtual.alarm import Timer
from pytest_tcpresilience.virtual.flows import Flow
from pytest_tcpresilience.virtual.host import Endpoint
from pytest_tcpresilience.virtual.machine import Machine
from pytest_tcpresilience.virtual.network import Network
from pytest_tcpresilience.virtual.states import State

# States and timers by the names that the witness of real links gives them, which are
# those of ss(8).
STATE_NAMES = {
    State.SYN_SENT: "syn-sent",
    State.SYN_RECEIVED: "syn-recv",
    State.ESTABLISHED: "established",
    State.FIN_WAIT_1: "fin-wait-1",
    State.FIN_WAIT_2: "fin-wait-2",
    State.CLOSE_WAIT: "close-wait",
    State.CLOSING: "closing",
    State.LAST_ACK: "last-ack",
    State.TIME_WAIT: "time-wait",
    State.CLOSED: "close",
}
TIMER_NAMES = {
    Timer.OFF: "off",
    Timer.CONNECT: "retransmit",
    Timer.RETRANSMISSION: "retransmit",
    Timer.PERSIST: "persist",
    Timer.KEEPALIVE: "keepalive",
    Timer.FIN_WAIT_2: "time-wait",
    Timer.TIME_WAIT: "time-wait",
}


@dataclass(frozen=True)
class Look:
    """A client's socket at one moment; the fields of the witness's events."""

    state: str
    timer: str
    expires: float
    unanswered: int
    unacknowledged: int

    @classmethod
    def at(cls, endpoint: Endpoint, now: float) -> Look:
        machine = endpoint.machine
        return cls(
            state=STATE_NAMES[machine.state],
            timer=TIMER_NAMES[machine.timer],
            expires=0.0 if machine.timer is Timer.OFF else machine.deadline - now,
            unanswered=machine.unanswered,
            unacknowledged=machine.outgoing.unacknowledged,
        )

    def is_news(self, before: Look | None) -> str:
        """The kind of event that tells of the change, "" for none."""
        if before is None or (before.timer, before.state) != (self.timer, self.state):
            return "client_socket"
        return "client_unanswered" if self.unanswered > before.unanswered else ""


class Witness:
    """Follows the clients of one link.

    :param log: writes an event.
    """

    def __init__(self, network: Network, log: Callable[..., None]) -> None:
        self._network = network
        self._log = log
        self._looks: dict[int, Look] = {}
        # When each socket's timer runs out that was armed at the last look.
        self._due: dict[int, float] = {}

    def expect_end(self, flow: Flow, client: Endpoint) -> None:
        """Tell when the client's connection is over."""
        client.observers.append(lambda end: self._ended(flow, end))

    def follow(self, flow: Flow, client: Endpoint) -> None:
        """Tell of each change, from now on."""
        if flow.number not in self._looks:
            self._look(flow, client)
            client.observers.insert(0, lambda end: self._look(flow, end))

    def _ended(self, flow: Flow, client: Endpoint) -> None:
        if client.machine.state is State.CLOSED and not flow.closed:
            flow.closed = True
            self._log(
                "closed",
                connection=flow.number,
                bytes_to_server=flow.bytes_to_server,
                bytes_to_client=flow.bytes_to_client,
                **_ending(client.machine),
            )

    def _look(self, flow: Flow, client: Endpoint) -> None:
        at = self._network.now
        before, now = self._looks.get(flow.number), Look.at(client, at)
        if before is not None and before.state == "close":
            return
        self._looks[flow.number] = now
        overdue = at - self._due.get(flow.number, at)
        self._due[flow.number] = at + now.expires
        if client.machine.abandoned and not flow.abandoned:
            flow.abandoned = True
            self._log("client_closed", connection=flow.number, **vars(now))
        if now.state == "close" and before is not None:
            fields = {key: value for key, value in vars(before).items() if key != "expires"}
            self._log("client_gone", connection=flow.number, **fields, overdue=overdue)
        elif kind := now.is_news(before):
            self._log(kind, connection=flow.number, **vars(now))


def _ending(machine: Machine) -> dict[str, str]:
    """How a client's connection ended, in the words of the event."""
    code = errno.errorcode.get(machine.error, "")
    if machine.gave_up:
        return {"how": "timeout", "by": "upstream", "errno": code}
    by = "client" if machine.abandoned and not machine.error else "upstream"
    return {"how": "reset" if machine.error else "fin", "by": by, "errno": code}
