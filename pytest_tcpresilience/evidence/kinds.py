"""The kinds of events, and what each one carries.

Owns the table that the documentation and the sentences of :mod:`.timeline` follow; a test
fails when they drift apart, or when an engine writes what is not in it. Each event has
``seq``, ``at`` and ``kind`` besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """:param happened: in one line.

    :param fields: what it carries.
    :param sometimes: what it carries only where it makes sense.
    :param own: whether the test process writes it, and no engine does.
    """

    happened: str
    fields: tuple[str, ...] = ()
    sometimes: tuple[str, ...] = ()
    own: bool = False


_LOOK = ("connection", "state", "timer", "expires", "unanswered", "unacknowledged")
_TOXIC = ("toxic", "type")

KINDS: Mapping[str, Kind] = {
    "opened": Kind("the engine took a client's connection", ("connection", "client")),
    "connected": Kind("the upstream took the engine's", ("connection",)),
    "first_byte": Kind(
        "the first byte came, of the client (`to_server`) or the upstream (`to_client`)",
        ("connection", "direction"),
    ),
    "probe_seen": Kind(
        "`seen` keepalive probes of the client came since the last look, `probes` in all; the "
        "engine looks four times a second",
        ("connection", "seen", "probes"),
    ),
    "upstream_failed": Kind(
        "the upstream could not be connected to; the client is reset", ("connection", "error")
    ),
    "closed": Kind(
        "a connection ended: `by` the `client`, the `upstream`, a `fault` or the `engine`; "
        "`how`: `fin`, `reset`, or `timeout` when the engine's kernel got no answer from that "
        "side; `reason`: the fault's type, or the engine's",
        ("connection", "by", "how", "bytes_to_server", "bytes_to_client"),
        ("reason", "errno"),
    ),
    "enabled": Kind("the proxy takes connections again, or at last"),
    "disabled": Kind("the proxy ended its connections and takes no new ones"),
    "toxic_added": Kind(
        "a fault or toxic was armed, to act after so many seconds without traffic",
        _TOXIC,
        ("connection", "when_idle", "idle_timeout"),
    ),
    "fault_hit": Kind(
        "a fault took hold of a connection, `idle_for` seconds after its last byte, and with the "
        "words that it was given; connection 0 stands for whoever connects",
        ("connection", *_TOXIC, "idle_for"),
        ("client", "settled", "side", "direction", "then", "counts"),
    ),
    "fault_active": Kind(
        "a fault took effect on the proxy, with so many connections hit", (*_TOXIC, "connections")
    ),
    "toxic_removed": Kind("a fault or toxic was lifted", _TOXIC, ("connection",)),
    "client_socket": Kind("the witness saw the client's socket change its timer or state", _LOOK),
    "client_unanswered": Kind(
        "the witness saw a probe or retransmission of the client's go unanswered", _LOOK
    ),
    "client_gone": Kind(
        "the client's socket is gone: its kernel gave up, or the client closed it; the kernel "
        "gives up when a timer runs out, and `overdue` is for how many seconds the last one had "
        "(less than 0: it had not)",
        ("connection", "state", "timer", "unanswered", "unacknowledged", "overdue"),
    ),
    "client_closed": Kind(
        "the application has closed the client's socket",
        ("connection", "state", "timer", "unanswered", "unacknowledged"),
        ("expires", "overdue"),
    ),
    "ghost": Kind(
        "a new connection came while the server's kernel still held this one, which a fault "
        "has hit",
        ("connection",),
    ),
    "witness_unavailable": Kind(
        "the client's socket cannot be followed", ("error",), ("connection",)
    ),
    "rescue_reset": Kind("the rescue's first stage: RST on all connections"),
    "rescue_refuse": Kind("its second stage: no new connections either"),
    "watch_ended": Kind("the test's wait is over"),
    "accept_failed": Kind(
        "the machine has no descriptor or memory for a client", ("error",), ("connection",)
    ),
    "internal_error": Kind("the engine made a mistake", ("connection", "error")),
    "rescue_interrupt": Kind("the rescue's third stage: the block was interrupted", own=True),
    "error": Kind("the block raised", ("error",), own=True),
    "marked": Kind("`detection.mark()` was called", own=True),
    "tried": Kind("the operation was tried and failed", ("error",), own=True),
    "succeeded": Kind("the operation succeeded", own=True),
    "request": Kind("the recording server executed a request", ("data", "on"), own=True),
}
