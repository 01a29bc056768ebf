"""What a client must see of each fault, whichever network it sees it on.

Owns the one table that links, the lab and any simulated network are held to: plain data, and
no socket. A world runs a scenario like this, and says what was :class:`Observed`:

1. Unless the end ``connects``: a client connects to a server, each sends the other one byte,
   and all of it is acknowledged. The end that is watched has ``settings`` on its socket, the
   other one has none.
2. The fault hits. On a link it is ``fault``, a key of ``pytest_tcpresilience.faults.FAULTS``;
   in the lab it is each of ``causes``, keys of :data:`CAUSES`. Virtual links play what links do.
3. The end that is watched does what ``does`` says, and then reads until that ends.

The window counts from step 2; for an end that writes from its write; for one that connects from
its first SYN; and for one that is told at once, from the segment that tells it. A kernel's
keepalive counts from the last segment before, so
where the window is ``idle``, the end may notice sooner by the time that was between.

Real timers are late, so a window's end is the kernel's lateness after its nominal time. Virtual
ones are not, so there it ends ``EARLY_S`` after that. Hence the times of a row agree everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.windows import (
    EARLY_S,
    SCHEDULING_S,
    WHEEL_FLOOR_S,
    WHEEL_SHARE,
    Window,
    idle_window,
    unacknowledged_window,
)

# In which nothing happens, where nothing may: longer than keepalive would have taken.
NEVER_S = 4.2
# Data that was held up comes with the next retransmission, which is no later than the cut
# was long; the lab's rules and the link's API take their time too.
CUT_S = 1.0

IDLE = Keepalive(idle=1, interval=1, probes=2)
HURRIED = Keepalive(idle=1, interval=1, probes=3, user_timeout=0.5)
WRITER = Keepalive(idle=1, interval=1, probes=2, user_timeout=1.5, enabled=False)
# A system notices up to 1 s late that its own cable is out, and its first probe waits for that.
PATIENT = Keepalive(idle=2, interval=1, probes=1)
OFF = Keepalive(idle=1, interval=1, probes=2, enabled=False)

WAITS = "waits"
WRITES = "writes"
CONNECTS = "connects"
OUTLIVES = "outlives"
CLOSES = "closes"
DOES = {
    WAITS: "sends nothing",
    WRITES: "sends four bytes",
    CONNECTS: "connects only now",
    OUTLIVES: "sends four bytes, the other end likewise, and the fault is lifted after 1 s",
    CLOSES: "sends nothing, and the client has closed",
}

# What befalls a real network, in words. The lab has a function for each.
CAUSES = {
    "server_cable": "the cable of the server is pulled",
    "client_cable": "the cable of the client is pulled",
    "no_carrier": "the cable of the client is pulled, and its system has noticed that",
    "drop": "the router drops every segment",
    "icmp": "the router drops every segment, and answers with ICMP host unreachable",
    "router_reboots": "the router is off for 1 s; it is no firewall",
    "forgets_drop": "the firewall forgets the flow, and drops what comes next",
    "forgets_reset": "the firewall forgets the flow, and answers what comes next with RST",
    "firewall_reboots": "the firewall is off for a moment, and then resets what it does not know",
    "server_restarts": "the server loses power, and comes back with nothing remembered",
    "forgets_inbound": "the firewall forgets the flow, and drops what comes from the server",
    "client_vanishes": "the client's cable is pulled before it closes",
    "forges_rst": "the firewall forgets the flow, and sends RST to both ends",
    "forges_fin": "the firewall forgets the flow, and sends FIN to both ends",
    "server_killed": "the server's socket is closed with RST, as when a process is killed "
    "that has not read all",
    "server_closes": "the server closes its socket: FIN",
    "server_frozen": "nobody reads the server's socket, as in a frozen process",
    "port_closed": "nothing listens on the server's port",
    "fin_lost": "the router drops FIN and RST, and nothing else",
}


@dataclass(frozen=True)
class Scenario:
    """One row.

    :param fault: on a link, a key of ``FAULTS``; empty where a link cannot show it.
    :param causes: in the lab, each of which must show the same.
    :param does: a key of :data:`DOES`.
    :param settings: of the watched end's socket.
    :param mechanism: by what it must notice; ``"survives"``; None for never.
    :param error: the errno's name, ``"EOF"`` or ``"data"``; None for never.
    :param window: seconds from the fault; from the lifting for one that outlives it.
    :param end: who is watched, ``"client"`` or ``"server"``.
    :param attempts: for one that connects, ``TCP_SYNCNT``; 0 for a timeout of its own, 1 s.
    :param retries2: the watched host's ``tcp_retries2``, which a link leaves alone.
    :param differs: why a link shows something else, or nothing; empty for one that agrees.
    """

    name: str
    fault: str
    causes: tuple[str, ...]
    does: str
    settings: Keepalive
    mechanism: str | None
    error: str | None
    window: Window
    end: str = "client"
    attempts: int = 0
    retries2: int = 15
    differs: str = ""

    @property
    def told(self) -> bool:
        """Whether the fault itself is a segment to the watched end."""
        return self.window is AT_ONCE and self.does == WAITS

    @property
    def idle(self) -> bool:
        """Whether the window counts from the last segment before the fault."""
        return self.window in (KEEPALIVE, PATIENCE, HURRY, FIRST_PROBE)


@dataclass(frozen=True)
class Observed:
    """How it went.

    :param after: seconds from the fault, or from the lifting. For never, how long was waited.
    :param idle_for: seconds from the last segment to the fault.
    :param evidence: what was seen that says so, in words.
    """

    mechanism: str | None
    error: str | None
    after: float
    idle_for: float = 0.0
    evidence: str = ""


def disagreement(scenario: Scenario, seen: Observed, *, punctual: bool = False) -> str:
    """What is not as the row says; empty when all is.

    :param punctual: no timer was late.
    """
    found = []
    window = scenario.window
    if punctual:
        window = replace(window, latest=window.nominal + EARLY_S)
    if seen.mechanism != scenario.mechanism:
        found.append(f"mechanism {seen.mechanism}, not {scenario.mechanism}")
    if seen.error != scenario.error:
        found.append(f"error {seen.error}, not {scenario.error}")
    earliest = window.earliest - (seen.idle_for if scenario.idle else 0.0)
    if not earliest <= seen.after <= window.latest:
        found.append(f"after {seen.after:.3f} s, not {window}")
    return "; ".join(found)


# --- windows --------------------------------------------------------------------------------


def _late(nominal: float) -> float:
    return (1 + WHEEL_SHARE) * nominal + WHEEL_FLOOR_S + SCHEDULING_S


def _window(nominal: float) -> Window:
    return Window(nominal=nominal, earliest=max(nominal - EARLY_S, 0.0), latest=_late(nominal))


KEEPALIVE = idle_window(IDLE)
PATIENCE = idle_window(PATIENT)
HURRY = idle_window(HURRIED)
FIRST_PROBE = _window(IDLE.idle)
DATA = unacknowledged_window(WRITER)
AT_ONCE = Window(nominal=0.0, earliest=0.0, latest=0.4)
NEVER = Window(nominal=NEVER_S, earliest=NEVER_S - EARLY_S, latest=NEVER_S + 1.0)
HEALED = Window(nominal=CUT_S, earliest=0.0, latest=_late(CUT_S))
# Measured: tcp_retries2 = 2 gives up at 3.33 s, which is RTO 0.2 s, and 0.4, 0.8, 1.6 more.
RETRIES2 = _window(3.33)
# TCP_SYNCNT = 1: 1 s for each of two SYNs, and one more under tcp_syn_linear_timeouts.
SYN = Window(nominal=3.06, earliest=2.9, latest=_late(3.06))
OWN = _window(1.0)

ALL_DROPS = ("server_cable", "client_cable", "drop")

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "an idle client notices the silence by its second probe",
        "silent_drop", ("server_cable", "drop", "icmp"), WAITS, IDLE, "keepalive", "ETIMEDOUT",
        KEEPALIVE,
    ),
    Scenario(
        "so does one whose own cable is out",
        "silent_drop", ("client_cable",), WAITS, PATIENT, "keepalive", "ETIMEDOUT", PATIENCE,
    ),
    Scenario(
        "a user timeout takes the place of the probe count",
        "silent_drop", ("server_cable",), WAITS, HURRIED, "keepalive", "ETIMEDOUT", HURRY,
    ),
    Scenario(
        "a client that writes into the silence is ended by its user timeout",
        "silent_drop", ("server_cable", "drop"), WRITES, WRITER, "user_timeout", "ETIMEDOUT", DATA,
    ),
    Scenario(
        "keepalive is not consulted while data is unacknowledged",
        "silent_drop", ("drop",), WRITES, IDLE, None, None, NEVER,
    ),
    Scenario(
        "without keepalive an idle client never notices",
        "silent_drop", ("server_cable",), WAITS, OFF, None, None, NEVER,
    ),
    Scenario(
        "a server whose client has gone silent is half-open until its own keepalive",
        "silent_drop", ("client_cable", "drop"), WAITS, IDLE, "keepalive", "ETIMEDOUT", KEEPALIVE,
        end="server",
    ),
    Scenario(
        "a cable that is put back loses nothing",
        "silent_drop", (*ALL_DROPS, "router_reboots"), OUTLIVES, OFF, "survives", "data", HEALED,
    ),
    Scenario(
        "one who connects into silence waits for a timeout of its own",
        "ignore_connections", ("server_cable", "drop"), CONNECTS, OFF, "own_timeout", None, OWN,
    ),
    Scenario(
        "one who connects into silence gives up after its last SYN",
        "ignore_connections", ("drop",), CONNECTS, OFF, "kernel_timeout", "ETIMEDOUT", SYN,
        attempts=1,
    ),
    Scenario(
        "one who connects to a closed port is refused",
        "refuse_connections", ("port_closed",), CONNECTS, OFF, "refused", "ECONNREFUSED", AT_ONCE,
    ),
    Scenario(
        "the first probe of a forgotten flow is answered with RST",
        "evict_reset", ("forgets_reset", "firewall_reboots", "server_restarts"), WAITS, IDLE,
        "reset", "ECONNRESET", FIRST_PROBE,
    ),
    Scenario(
        "so is the server's",
        "evict_reset", ("forgets_reset",), WAITS, IDLE, "reset", "ECONNRESET", FIRST_PROBE,
        end="server",
    ),
    Scenario(
        "a write on a forgotten flow is answered with RST",
        "evict_reset", ("forgets_reset", "server_restarts"), WRITES, OFF, "reset", "ECONNRESET",
        AT_ONCE,
    ),
    Scenario(
        "who sends nothing never learns that its flow is forgotten",
        "evict_reset", ("forgets_reset",), WAITS, OFF, None, None, NEVER,
    ),
    Scenario(
        "a forgotten flow that is dropped is silence to keepalive",
        "evict_drop", ("forgets_drop",), WAITS, IDLE, "keepalive", "ETIMEDOUT", KEEPALIVE,
    ),
    Scenario(
        "a forgotten flow that is dropped is silence to a write",
        "evict_drop", ("forgets_drop",), WRITES, WRITER, "user_timeout", "ETIMEDOUT", DATA,
    ),
    Scenario(
        "a forgotten flow of which only the answers are dropped is silence to a write",
        "evict_drop_inbound", ("forgets_inbound",), WRITES, WRITER, "user_timeout", "ETIMEDOUT",
        DATA,
    ),
    Scenario(
        "a server that was not told of a close is half-open until its own keepalive",
        "lose_close", ("client_vanishes",), CLOSES, IDLE, "keepalive", "ETIMEDOUT", KEEPALIVE,
        end="server",
    ),
    Scenario(
        "an RST for both ends reaches a client that only waits",
        "evict_reset_both", ("forges_rst",), WAITS, OFF, "reset", "ECONNRESET", AT_ONCE,
    ),
    Scenario(
        "and a server that only waits",
        "evict_reset_both", ("forges_rst",), WAITS, OFF, "reset", "ECONNRESET", AT_ONCE,
        end="server",
    ),
    Scenario(
        "a FIN for both ends reaches a client that only waits",
        "evict_fin", ("forges_fin",), WAITS, OFF, "fin", "EOF", AT_ONCE,
    ),
    Scenario(
        "a killed server resets its client",
        "reset", ("server_killed",), WAITS, OFF, "reset", "ECONNRESET", AT_ONCE,
    ),
    Scenario(
        "a server that closes tells its client",
        "hang_up", ("server_closes",), WAITS, OFF, "fin", "EOF", AT_ONCE,
    ),
    Scenario(
        "a frozen server's kernel answers every probe",
        "stall", ("server_frozen",), WAITS, IDLE, None, None, NEVER,
    ),
    Scenario(
        "a frozen server's kernel acknowledges what nobody reads",
        "stall", ("server_frozen",), WRITES, WRITER, None, None, NEVER,
    ),
)  # fmt: skip

# What real networks do and links do not. Each says why.
DIFFERENCES: tuple[Scenario, ...] = (
    Scenario(
        "what cannot leave the host is not counted as lost",
        "", ("no_carrier",), WRITES, WRITER, "user_timeout", "ETIMEDOUT", _window(1.5),
        differs="a link shows 1.92 s, as for every loss on the way. With its own cable out a host "
        "fails to send at all: Linux takes that for congestion of its own, tries again each half "
        "second instead of backing off, and so ends at the user timeout itself. If the write comes "
        "first and the system notices the missing carrier later, it was seen to take up to 2.75 s. "
        "Only the kernel of the client's own host can do that",
    ),
    Scenario(
        "ICMP unreachable gives the timeout another errno",
        "", ("icmp",), WRITES, WRITER, "user_timeout", "EHOSTUNREACH", DATA,
        differs="a link shows ETIMEDOUT at the same moment: nothing on loopback sends ICMP. A "
        "client must take all three errnos (ENETUNREACH is the third) for the same thing. Idle "
        "clients see ETIMEDOUT either way, for a probe's number is out of the window that an "
        "ICMP error must be in",
    ),
    Scenario(
        "without a user timeout, tcp_retries2 ends a write",
        "", ("drop",), WRITES, OFF, "retransmission_limit", "ETIMEDOUT", RETRIES2, retries2=2,
        differs="a link shows the same after 938.7 s: the sysctl is its machine's, 15 by "
        "default. The lab's client has 2",
    ),
    Scenario(
        "a lost FIN alone leaves a kernel that answers for its client",
        "", ("fin_lost",), CLOSES, IDLE, None, None, NEVER, end="server",
        differs="a link's `lose_close` leaves nobody who answers, as when the client is gone. Here "
        "the kernel of a client that has closed goes on sending its FIN, for a minute "
        "or two, and answers the server's probes meanwhile. The server's keepalive finds it "
        "after that",
    ),
)  # fmt: skip

# Rows of these share a test, side by side. By what the fault is.
FAMILIES = {
    "silence": ("silent_drop", "stall"),
    "connecting": ("ignore_connections", "refuse_connections"),
    "eviction": ("evict_reset", "evict_drop", "evict_drop_inbound", "lose_close"),
    "told": ("evict_reset_both", "evict_fin", "reset", "hang_up"),
}


def family(name: str) -> list[Scenario]:
    return [each for each in SCENARIOS if each.fault in FAMILIES[name]]
