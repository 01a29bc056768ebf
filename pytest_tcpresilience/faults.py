"""The table of faults: what each one is, in the words of users and of kernels.

Owns the catalogue from which the methods of a link, the documentation and the ids of
tests follow; a test fails when they drift apart. It knows no socket and no engine; the
name of a fault is also the type of the toxic by which the engine carries it out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pytest_tcpresilience.errors import UsageError


@dataclass(frozen=True)
class FaultRow:
    """One fault.

    :param name: the method of a link, and the toxic type.
    :param cause: what does this in the real world.
    :param kernel_sees: what the client's kernel sees, which decides who can notice.
    :param noticed_by: who can notice.
    :param new_connections: what becomes of connections that are opened later.
    :param once: it acts once and cannot be lifted; else it lasts until it is lifted.
    :param after_is_its_own: ``after`` belongs to the fault and is no schedule.
    :param needs_linux: whether it needs what only Linux has.
    :param excludes: faults in force that contradict this one.
    """

    name: str
    cause: str
    kernel_sees: str
    noticed_by: str
    new_connections: str
    once: bool = False
    after_is_its_own: bool = False
    needs_linux: bool = False
    excludes: tuple[str, ...] = ()


FAULTS: dict[str, FaultRow] = {
    row.name: row
    for row in (
        FaultRow(
            name="silent_drop",
            cause="cable pulled, host lost power, firewall DROP, route gone",
            kernel_sees="nothing, in either direction",
            noticed_by="keepalive; user timeout or retransmission limit once data is "
            "unacknowledged; heartbeat; read timeout",
            new_connections="stay unanswered",
            needs_linux=True,
            excludes=("silent_drop",),
        ),
        FaultRow(
            name="stall",
            cause="peer process frozen, SIGSTOP, deadlock, garbage collection",
            kernel_sees="ACKs, but no data",
            noticed_by="heartbeat, read timeout. Keepalive never: the peer's kernel is alive",
            new_connections="are accepted and stalled",
            excludes=("silent_drop", "stall", "time_out"),
        ),
        FaultRow(
            name="time_out",
            cause="proxy timeout",
            kernel_sees="ACKs, but no data; then FIN",
            noticed_by="read timeout or the FIN",
            new_connections="time out in the same way",
            after_is_its_own=True,
            excludes=("silent_drop", "stall", "time_out"),
        ),
        FaultRow(
            name="reset",
            cause="process crashed, load balancer RST",
            kernel_sees="RST now, also in the middle of idling",
            noticed_by="at once, if anything is watching the socket",
            new_connections="pass",
            once=True,
            excludes=("silent_drop",),
        ),
        FaultRow(
            name="hang_up",
            cause="orderly close by the server",
            kernel_sees="FIN now; the client may sit in CLOSE_WAIT",
            noticed_by="a read; a pool that checks",
            new_connections="pass",
            once=True,
            excludes=("silent_drop",),
        ),
    )
}
ONCE = frozenset(name for name, row in FAULTS.items() if row.once)


def check_compatible(name: str, in_force: Iterable[str]) -> None:
    """Refuse a fault that contradicts one in force.

    :raises UsageError: naming both.
    """
    for other in in_force:
        if other in FAULTS[name].excludes:
            raise UsageError(
                f"{name} contradicts the {other} that is in force on this link",
                expected=f"{name} on a link without {' or '.join(FAULTS[name].excludes)}",
                happened=f"{other} is in force: {FAULTS[other].kernel_sees}",
                advice=f"lift the {other} first, or use another link",
            )
