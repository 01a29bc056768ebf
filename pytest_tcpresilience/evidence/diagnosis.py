"""Why the client did not notice as promised, and what cures it.

Owns the table of causes: each with the evidence that establishes it, the sentence that a
user reads, and the cure. The first row that applies is the answer; where none does,
nothing is claimed. How a row's evidence is found is :mod:`.findings`'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pytest_tcpresilience.evidence import findings, forgetting
from pytest_tcpresilience.evidence.verdict import Observation, Outcome, judge

Found = Mapping[str, str]
"""The values for a row's sentences."""

# Where a cause explains more than the outcome itself does.
LATE = frozenset({Outcome.UNAWARE, Outcome.RESCUED, Outcome.TOO_LATE})
EARLY = frozenset({Outcome.TOO_EARLY})


@dataclass(frozen=True)
class Cause:
    """:param name: for programs. :param why: for people. :param cure: what to change."""

    name: str
    why: str
    cure: str


@dataclass(frozen=True)
class CauseRow:
    """One cause that is known.

    :param name: for programs.
    :param evidence: what establishes it, for the documentation.
    :param why: the sentence; what is in braces is filled in.
    :param cure: likewise.
    :param find: the values for both, or ``None`` where the evidence is not there.
    :param outcomes: which it explains.
    """

    name: str
    evidence: str
    why: str
    cure: str
    find: Callable[[Observation], Found | None]
    outcomes: frozenset[Outcome] = LATE


# In this order: what is certain comes before what is likely, and what the client did
# before what its settings would have done.
CAUSES: tuple[CauseRow, ...] = (
    CauseRow(
        "spinning",
        "a thread of the client's process, or of a child's, was running or ready to run for "
        "more than 80 % of the time, from the fault (or its kernel's verdict) to the end of the "
        "wait",
        "the client was spinning: it kept a CPU busy for {share} of the last {seconds}{after}",
        "look for a loop that takes ETIMEDOUT (a TimeoutError in Python) for a poll's timeout "
        "and goes on reading the dead socket; leave it at any error other than EAGAIN",
        findings.spinning,
    ),
    CauseRow(
        "loop_blocked",
        "a call into the block's event loop was not answered for 0.5 s or more",
        "the event loop was blocked for {seconds}, from {at} after the fault on: nothing that "
        "runs in it could notice",
        "keep blocking calls out of the event loop: asyncio.to_thread() or "
        "trio.to_thread.run_sync()",
        findings.loop_blocked,
    ),
    CauseRow(
        "told_but_silent",
        "the client's socket was gone with probes or retransmissions unanswered, and no "
        "exception came",
        "the kernel gave the connection up {at} after the fault and told the application, "
        "which did not act on it",
        "look for an except clause that swallows the error (ETIMEDOUT is TimeoutError, which a "
        "poll timeout is too), or for a socket that nobody reads",
        findings.told_and_silent,
    ),
    CauseRow(
        "own_timeout_late",
        "the exception is a timeout without errno, later than promised",
        "only the client's own timeout ended the wait, {after} after the fault, and it is longer "
        "than the {promised} that were promised",
        "shorten the client's own timeout to less than {promised}, or {settings}",
        findings.own_timeout_late,
        frozenset({Outcome.TOO_LATE}),
    ),
    CauseRow(
        "own_timeout_early",
        "the exception is a timeout without errno, sooner than the kernel can be",
        "only the client's own timeout ended the wait, {after} after the fault, and it is shorter "
        "than the {promised} that the kernel would have taken: it also ends waits on a healthy "
        "connection",
        "if noticing this way is fine, give the limit in seconds (within=5.0) in place of the "
        "Keepalive; if not, make the client's own timeout longer than {promised}",
        findings.own_timeout_early,
        EARLY,
    ),
    CauseRow(
        "zero_window",
        "the client's persist timer was running",
        "the peer's window was 0, and {bytes} waiting to be sent: its kernel answers every "
        "window probe, so neither keepalive nor retransmission ever gives up",
        "give the client a write timeout, or set TCP_USER_TIMEOUT={user_timeout_ms}, which also "
        "ends connections to a peer that is merely slow",
        findings.zero_window,
    ),
    CauseRow(
        "nothing_to_wait_for",
        "the fault was stop_reading, and the client's persist timer was not running",
        "the peer did not read, and what the client wrote still fitted into the kernels' buffers",
        "have the client write more than its send buffer and the peer's receive buffer take "
        "(SO_SNDBUF makes the first smaller), or wait for an answer",
        findings.nothing_to_wait_for,
    ),
    CauseRow(
        "stalled_peer",
        "the fault was a stall or a time_out",
        "the peer's kernel answered every probe: this was a stall, and a stalled peer looks "
        "alive to keepalive for ever",
        "give the client a read timeout or an application heartbeat",
        findings.stalled,
    ),
    CauseRow(
        "fin_unread",
        "the client's socket sat in CLOSE_WAIT",
        "the FIN arrived {at} after the fault, and the client's socket has been in CLOSE_WAIT "
        "since: nobody reads it",
        "have the client read its idle connections, or check them before use: a readable idle "
        "socket is one that was closed",
        findings.fin_unread,
    ),
    CauseRow(
        "reset_unread",
        "the connection was reset, and the client opened no other",
        "the connection was reset at once, and the application did not act on it",
        "look for an except clause that swallows ECONNRESET, or for a socket that nobody reads",
        findings.reset_unread,
    ),
    CauseRow(
        "reconnected_ghost",
        "a new connection was opened while the server's socket of the old one was established",
        "the client opened a new connection {at} after the fault, while the server still held "
        "the old one: exclusive queues, locks and registrations stay with that ghost",
        "set keepalive on the server's sockets too, and have the client wait for its old "
        "session to end or take it over",
        findings.reconnected_ghost,
    ),
    CauseRow(
        "reconnected",
        "a new connection was opened after the fault",
        "the client opened a new connection {at} after the fault and said nothing",
        "if reconnecting silently is what you want, use recovers(link, within=...) instead",
        findings.reconnected,
    ),
    CauseRow(
        "forgotten_by_proxy",
        "a middlebox that counts bytes forgot the flow",
        "the middlebox forgot the flow, {idle_for} after its last byte; it is a proxy, which "
        "answers keepalive probes itself and counts bytes only",
        "have the application send something more often than the box's idle timeout, or raise that",
        forgetting.forgotten_by_proxy,
    ),
    CauseRow(
        "middlebox_shorter",
        "the flow was forgotten after an idle time that is not longer than TCP_KEEPIDLE of the "
        "client's socket",
        "the flow was forgotten after {idle_timeout} without a segment, and TCP_KEEPIDLE is "
        "{idle}: the first probe comes too late to keep it alive",
        "{cures}",
        forgetting.middlebox_shorter,
        LATE | EARLY | {Outcome.WRONG_ERROR},
    ),
    CauseRow(
        "forgotten_keepalive_off",
        "a middlebox forgot the flow, and no timer of the client's socket was running",
        "the middlebox forgot the flow, {idle_for} after its last byte, and SO_KEEPALIVE is off "
        "on this socket: no probe kept it alive",
        "set SO_KEEPALIVE, with TCP_KEEPIDLE below the box's idle timeout, or raise that",
        forgetting.forgotten_keepalive_off,
    ),
    CauseRow(
        "forgotten",
        "a middlebox forgot the flow",
        "the middlebox forgot the flow, {idle_for} after its last byte",
        "set TCP_KEEPIDLE below the box's idle timeout, so that probes keep the flow alive, or "
        "raise the box's timeout",
        forgetting.forgotten,
    ),
    CauseRow(
        "evicted_noticed_by_reset",
        "the exception is a reset, and the fault an eviction that answers with RST",
        "the flow was evicted, so the client's first segment after it was answered with RST, "
        "{after} after the fault: that is what it noticed, and not its own timers",
        "expect ConnectionResetError as well as TimeoutError, and have the client send "
        "something (a probe, a heartbeat) sooner",
        forgetting.evicted_noticed_by_reset,
        frozenset({Outcome.TOO_LATE, Outcome.WRONG_ERROR}),
    ),
    CauseRow(
        "evicted_swallowed",
        "the flow was evicted, and the client's socket was reset",
        "the flow was evicted, and the client's next segment, {at} after the fault, was answered "
        "with RST; the application did not act on it",
        "look for an except clause that swallows ECONNRESET, or for a socket that nobody reads",
        forgetting.evicted_swallowed,
    ),
    CauseRow(
        "evicted_keepalive_off",
        "the flow was evicted, and no timer of the client's socket was running",
        "the flow was evicted: only the client's next segment is answered, with RST, and it sent "
        "none; SO_KEEPALIVE is off on this socket",
        "{settings}",
        forgetting.evicted_keepalive_off,
    ),
    CauseRow(
        "evicted_quiet",
        "the flow was evicted, and the client sent nothing",
        "the flow was evicted: only the client's next segment is answered, with RST, and it sent "
        "none in time",
        "lower TCP_KEEPIDLE or the application's heartbeat, or widen within=",
        forgetting.evicted_quiet,
    ),
    CauseRow(
        "connect_unanswered",
        "the fault ignores connections, and the client was still waiting",
        "nobody answered the client's SYN, which Linux repeats for about two minutes",
        "give the client a connect timeout, and a limit to its retries",
        findings.connect_unanswered,
    ),
    CauseRow(
        "connect_refused",
        "the fault refuses connections, and the client was still trying",
        "each attempt to connect was refused at once, and the client kept it to itself",
        "limit the client's retries, or call detection.mark() where it handles the error",
        findings.connect_refused,
    ),
    CauseRow(
        "closed_by_client",
        "the client's socket was in FIN_WAIT or belonged to nobody",
        "the client closed its socket by itself and raised nothing",
        "call detection.mark() where the client handles the break",
        findings.closed_by_client,
    ),
    CauseRow(
        "user_timeout_too_long",
        "the client's retransmission timer was running, and TCP_USER_TIMEOUT is set",
        "{bytes} unacknowledged, so keepalive did not run; TCP_USER_TIMEOUT={user_timeout_ms} "
        "gives up after {nominal}, and {promised} were promised",
        "set TCP_USER_TIMEOUT={cure_ms} on the client's socket",
        findings.user_timeout_too_long,
    ),
    CauseRow(
        "unacknowledged",
        "the client's retransmission timer was running",
        "{bytes} unacknowledged, so keepalive did not run; without TCP_USER_TIMEOUT Linux gives "
        "up after about 15 minutes",
        "set TCP_USER_TIMEOUT={cure_ms} (Keepalive(..., user_timeout={cure})) on the client's "
        "socket",
        findings.unacknowledged,
    ),
    CauseRow(
        "keepalive_off",
        "no timer of the client's socket was running",
        "SO_KEEPALIVE is off on this socket: the kernel had no timer running, so it would never "
        "have found out",
        "{settings}",
        findings.keepalive_off,
    ),
    CauseRow(
        "keepalive_defaults",
        "SO_KEEPALIVE is on with 7200 s, 75 s and 9 probes, or its timer is due two hours after "
        "the last segment",
        "SO_KEEPALIVE is on with Linux's defaults (7200 s, 75 s, 9 probes), which find a dead "
        "connection after {nominal}{due}",
        "{settings}",
        findings.keepalive_defaults,
    ),
    CauseRow(
        "user_timeout_replaced_count",
        "keepalive is on, and with TCP_USER_TIMEOUT it takes another time than without",
        "TCP_USER_TIMEOUT={user_timeout_ms} replaces the probe count: keepalive "
        "{idle}/{interval}/{probes} gives up {nominal} after the last segment, not {without}",
        "set TCP_USER_TIMEOUT={matching_ms}, the {without} that idle, interval and probes come to",
        findings.user_timeout_replaced_count,
        LATE | EARLY,
    ),
    CauseRow(
        "keepalive_too_slow",
        "the client's keepalive timer was running, and due later than promised",
        "keepalive is on but slower than promised{known}: {which} was due {due} after the fault",
        "{settings}, or widen within=",
        findings.probe_not_due,
    ),
)


def diagnose(seen: Observation, outcome: Outcome | None = None) -> Cause | None:
    """The first cause that the evidence establishes.

    :param outcome: what is to be explained; :func:`.judge` says, if it is not given.
    """
    outcome = judge(seen) if outcome is None else outcome
    for row in CAUSES:
        found = row.find(seen) if outcome in row.outcomes else None
        if found is not None:
            return Cause(row.name, row.why.format(**found), row.cure.format(**found))
    return None
