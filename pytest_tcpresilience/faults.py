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

    :param name: the toxic type, and the method of a link if ``call`` names no other.
    :param cause: what does this in the real world.
    :param kernel_sees: what the client's kernel sees, which decides who can notice.
    :param noticed_by: who can notice.
    :param new_connections: what becomes of connections that are opened later.
    :param once: it acts once and cannot be lifted; else it lasts until it is lifted.
    :param after_is_its_own: ``after`` belongs to the fault and is no schedule.
    :param needs_linux: whether it needs what only Linux has.
    :param excludes: faults in force that contradict this one.
    :param listener: it acts on those who connect, and has hit as soon as it is in force.
    :param call: how a test asks for it, where the name alone does not say it.
    :param takes: arguments of the method beside the schedule.
    :param per_flow: it waits for what each connection does, and takes hold of it then. Each
        hit is news by itself, and connections that are opened later are waited for too.
    :param must_hit: that it never hit fails the test, as for a scheduled fault.
    :param standing: it is a property of the link, in force from the call on, and takes no
        schedule.
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
    listener: bool = False
    call: str = ""
    takes: tuple[str, ...] = ()
    per_flow: bool = False
    must_hit: bool = False
    standing: bool = False

    @property
    def method(self) -> str:
        return self.call.partition("(")[0] or self.name


# Under these no segment passes, so nothing that another fault tells could arrive.
SILENT = ("silent_drop", "evict_drop", "evict_drop_inbound")

FAULTS: dict[str, FaultRow] = {
    row.name: row
    for row in (
        FaultRow(
            name="silent_drop",
            takes=("direction",),
            cause="cable pulled, host lost power, firewall DROP, route gone; with a `direction=`: "
            "asymmetric routing, a filter on one way only",
            kernel_sees='nothing, in either direction. `direction="to_server"`: its own segments '
            'vanish, the server\'s arrive. `"to_client"`: the server gets and executes its '
            "requests, and the answers vanish",
            noticed_by="keepalive; user timeout or retransmission limit once data is "
            "unacknowledged; heartbeat; read timeout",
            new_connections="stay unanswered",
            needs_linux=True,
            excludes=(*SILENT, "refuse_connections", "ignore_connections"),
        ),
        FaultRow(
            name="evict_reset",
            call='evict(then="reset")',
            takes=("then",),
            cause="firewall or NAT forgot the flow and answers its next packet with RST (AWS NAT "
            "gateway and NLB)",
            kernel_sees="nothing until its next segment, then RST",
            noticed_by="the first probe or the first write",
            new_connections="pass",
            once=True,
            needs_linux=True,
            excludes=SILENT,
        ),
        FaultRow(
            name="evict_drop",
            call='evict(then="drop")',
            takes=("then",),
            cause="firewall forgot the flow and drops its packets (Azure LB by default, Cisco "
            "ASA, Docker Swarm)",
            kernel_sees="nothing, in either direction",
            noticed_by="as for `silent_drop`; a reconnect works at once",
            new_connections="pass",
            needs_linux=True,
            excludes=SILENT,
        ),
        FaultRow(
            name="evict_drop_inbound",
            call='evict(then="drop_inbound")',
            takes=("then",),
            cause="firewall forgot the flow and drops what comes in, and lets out what goes out "
            "(Google Cloud)",
            kernel_sees="nothing; its requests are executed, and the answers vanish until it is "
            "lifted (at Google Cloud, until its next segment goes out)",
            noticed_by="as for `silent_drop`; a reconnect works at once",
            new_connections="pass",
            needs_linux=True,
            excludes=SILENT,
        ),
        FaultRow(
            name="evict_reset_both",
            call='evict(then="reset_both")',
            takes=("then",),
            cause="load balancer that resets what it forgets (Azure LB with TCP reset)",
            kernel_sees="RST at the moment of eviction",
            noticed_by="at once, if anything is watching the socket",
            new_connections="pass",
            once=True,
            excludes=SILENT,
        ),
        FaultRow(
            name="evict_fin",
            call='evict(then="fin")',
            takes=("then",),
            cause="proxy that closes what has been idle for too long",
            kernel_sees="FIN at the moment of eviction; the client may sit in CLOSE_WAIT",
            noticed_by="a read; a pool that checks",
            new_connections="pass",
            once=True,
            excludes=SILENT,
        ),
        FaultRow(
            name="refuse_connections",
            cause="service down",
            kernel_sees="RST to its SYN: ECONNREFUSED. Connections that exist go on",
            noticed_by="at once, whoever connects",
            new_connections="are refused",
            needs_linux=True,
            listener=True,
            excludes=("silent_drop", "refuse_connections", "ignore_connections"),
        ),
        FaultRow(
            name="ignore_connections",
            cause="host gone, firewall DROP, backlog full",
            kernel_sees="no answer to its SYN. Connections that exist go on",
            noticed_by="connect timeout",
            new_connections="stay unanswered until it is lifted",
            needs_linux=True,
            listener=True,
            excludes=("silent_drop", "refuse_connections", "ignore_connections"),
        ),
        FaultRow(
            name="stall",
            cause="peer process frozen, SIGSTOP, deadlock, garbage collection",
            kernel_sees="ACKs, but no data",
            noticed_by="heartbeat, read timeout. Keepalive never: the peer's kernel is alive",
            new_connections="are accepted and stalled",
            excludes=(*SILENT, "stall", "time_out"),
        ),
        FaultRow(
            name="time_out",
            cause="proxy timeout",
            kernel_sees="ACKs, but no data; then FIN",
            noticed_by="read timeout or the FIN",
            new_connections="time out in the same way",
            after_is_its_own=True,
            excludes=(*SILENT, "stall", "time_out"),
        ),
        FaultRow(
            name="stop_reading",
            takes=("side",),
            cause="slow consumer, a reader that is busy or stuck",
            kernel_sees="its window closed once the peer's buffer is full: zero window, and each "
            "probe of it answered",
            noticed_by="write timeout; user timeout, by the persist timer. Keepalive never: the "
            "peer's kernel is alive",
            new_connections="are accepted and not read",
            excludes=(*SILENT, "stall", "time_out", "stop_reading"),
        ),
        FaultRow(
            name="lose_close",
            cause="a middlebox swallowed the FIN, or the client crashed",
            kernel_sees="an ordinary close. The *server* keeps a half-open connection",
            noticed_by="the server's keepalive; the client never",
            new_connections="pass, and their close is lost",
            needs_linux=True,
            per_flow=True,
            must_hit=True,
            excludes=("lose_close",),
        ),
        FaultRow(
            name="reset",
            takes=("side",),
            cause="process crashed, load balancer RST",
            kernel_sees="RST now, also in the middle of idling",
            noticed_by="at once, if anything is watching the socket",
            new_connections="pass",
            once=True,
            excludes=SILENT,
        ),
        FaultRow(
            name="hang_up",
            takes=("side",),
            cause="orderly close by the server",
            kernel_sees="FIN now; the client may sit in CLOSE_WAIT",
            noticed_by="a read; a pool that checks",
            new_connections="pass",
            once=True,
            excludes=SILENT,
        ),
        FaultRow(
            name="middlebox",
            call="put_behind(Middlebox(idle_timeout=…, then=…))",
            takes=("middlebox",),
            cause="firewall, NAT or load balancer that forgets each idle flow by itself; keepalive "
            "probes count as traffic",
            kernel_sees="nothing unusual, until its flow has carried no segment for "
            "`idle_timeout`; then as for `evict(then=…)`",
            noticed_by="as for `evict`. Keepalive that is faster than the box keeps the flow alive",
            new_connections="are forgotten when their own time has come",
            needs_linux=True,
            per_flow=True,
            standing=True,
            excludes=("middlebox",),
        ),
    )
}
# Who is told by a reset or a hang_up.
SIDES = ("both", "client", "server")
ONCE = frozenset(name for name, row in FAULTS.items() if row.once)
# Each of their hits is news for one wait only; a hit of the others lasts.
NEWS_ONCE = ONCE | {name for name, row in FAULTS.items() if row.per_flow}
# Which way is lost by a silent drop.
DIRECTIONS = ("both", "to_server", "to_client")
# Who finds that nobody reads.
READERS = ("client", "server", "both")
# What evict(then=...) takes, and the fault that it is.
EVICTIONS = {
    name.removeprefix("evict_"): name for name, row in FAULTS.items() if row.method == "evict"
}


def choose(argument: str, value: object, choices: Iterable[str]) -> str:
    """The value, if it is one of the choices.

    :raises UsageError: naming them.
    """
    known = [f'"{choice}"' for choice in choices]
    if isinstance(value, str) and f'"{value}"' in known:
        return value
    raise UsageError(
        f"{argument}={value!r} is none of the choices",
        expected=f"{argument}= one of {', '.join(known)}",
        happened=f"got {value!r}",
        advice="pass one of them, as a string",
    )


def meeting(name: str, connection: int, others: Iterable[tuple[str, int]]) -> list[str]:
    """Which of the other faults act where this one does.

    :param connection: the number of the only connection that it acts on; 0 for the whole
        link. ``others`` have theirs.
    """

    def meets(other: str, theirs: int) -> bool:
        if connection == theirs:
            return True
        if connection and theirs:
            return False
        # One is the whole link's. Where it acts on those who connect, it meets no connection.
        return not FAULTS[other if connection else name].listener

    return [other for other, theirs in others if meets(other, theirs)]


def check_compatible(name: str, in_force: Iterable[str]) -> None:
    """Refuse a fault that contradicts one in force.

    :raises UsageError: naming both.
    """
    for other in in_force:
        if other in FAULTS[name].excludes:
            raise UsageError(
                f"{name} contradicts the {other} that is in force on this link",
                expected=f"{name} where there is no {' or '.join(FAULTS[name].excludes)}",
                happened=f"{other} is in force: {FAULTS[other].kernel_sees}",
                advice=f"lift the {other} first, or use another link, or another connection",
            )
