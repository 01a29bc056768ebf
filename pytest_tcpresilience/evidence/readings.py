"""What is known of one connection's keepalive settings, wholly or in part.

Owns :class:`KeepaliveReading`, and what follows from a socket's timer alone where its
options cannot be read. How the settings are got at is :mod:`pytest_tcpresilience.reading`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pytest_tcpresilience.errors import HarnessError
from pytest_tcpresilience.kernel.sockdiag import Address, SocketState
from pytest_tcpresilience.tcp.addresses import join_address
from pytest_tcpresilience.tcp.keepalive import Keepalive

NOT_HERE = (
    "the connection is not in this network namespace: the client is in a container or behind "
    "NAT, or has just closed it"
)


@dataclass(frozen=True)
class KeepaliveReading:
    """The settings in force on one client's socket. What is not known is ``None``.

    :param client: the client's address and port, and :param server: its peer's.
    :param connection: its number within the link; 0 for a connection of no link.
    :param pid: the process that holds the socket, and :param process: its name.
    :param enabled: ``SO_KEEPALIVE``.
    :param idle: seconds, and :param interval: seconds, and :param probes: a number, as in
        :class:`.Keepalive`.
    :param user_timeout: seconds; 0 is off.
    :param partial: why not all is known; empty when it is.
    :param next_probe_in: seconds until the armed keepalive timer fires. An idle time, or an
        interval, is at least this long.
    :param rto: the connection's retransmission timeout in seconds.
    """

    client: Address
    server: Address
    connection: int = 0
    pid: int | None = None
    process: str = ""
    enabled: bool | None = None
    idle: int | None = None
    interval: int | None = None
    probes: int | None = None
    user_timeout: float | None = None
    partial: str = ""
    next_probe_in: float | None = None
    rto: float | None = None

    @property
    def complete(self) -> bool:
        """Whether all is known."""
        return not self.partial

    @property
    def settings(self) -> Keepalive:
        """All of it, for windows and expectations.

        :raises HarnessError: when the reading is partial.
        """
        if (
            self.idle is None
            or self.interval is None
            or self.probes is None
            or self.user_timeout is None
            or self.enabled is None
        ):
            raise HarnessError(
                f"the settings of {self.where} cannot be read",
                expected="a client in this process, or in a process of the same user",
                happened=f"{self.partial}\nknown: {self.known}",
                advice="give the settings yourself: Keepalive(idle=…, interval=…, probes=…)",
            )
        return Keepalive(self.idle, self.interval, self.probes, self.user_timeout, self.enabled)

    @property
    def where(self) -> str:
        """Which connection, for people."""
        number = f"connection {self.connection}, " if self.connection else ""
        return f"{number}{join_address(*self.client)} to {join_address(*self.server)}"

    @property
    def who(self) -> str:
        """Whose it is, for people."""
        return f"process {self.pid} ({self.process})" if self.pid else "an unknown process"

    @property
    def known(self) -> str:
        """The settings in a few words."""
        if self.complete:
            settings = self.settings
            text = f"{settings.idle}/{settings.interval}/{settings.probes}"
            text = f"keepalive {text}" if settings.enabled else "keepalive off"
            limit = settings.user_timeout
            return text + (f", user timeout {limit:g} s" if limit else "")
        if self.enabled:
            return f"keepalive on, next probe in {self.next_probe_in:.1f} s"
        return "nothing" if self.enabled is None else "keepalive off"

    def __str__(self) -> str:
        partial = f" (partial: {self.partial})" if self.partial else ""
        return f"{self.where}, {self.who}: {self.known}{partial}"


def by_timer(blank: KeepaliveReading, seen: SocketState) -> KeepaliveReading:
    """What a socket's armed timer says of its settings, filled into a reading.

    A keepalive timer is armed if, and only if, ``SO_KEEPALIVE`` is on and nothing is
    unacknowledged; with data in flight, or a closed window, another timer is, and tells
    nothing.
    """
    rto = seen.info.rto if seen.info else None
    if seen.timer == "keepalive":
        return replace(blank, enabled=True, next_probe_in=seen.expires, rto=rto)
    return replace(blank, enabled=False if seen.timer == "off" else None, rto=rto)
