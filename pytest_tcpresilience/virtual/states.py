"""The states of a connection, and the rules that move it between them, as tables.

Owns RFC 9293, section 3.3.2 (figure 5) without LISTEN, which is a host's affair, and the
test of section 3.10.7.4 for what may come in. It keeps no state of its own.
"""

from __future__ import annotations

from enum import Enum


class State(str, Enum):
    """RFC 9293, section 3.3.2."""

    SYN_SENT = "SYN_SENT"
    SYN_RECEIVED = "SYN_RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT_1 = "FIN_WAIT_1"
    FIN_WAIT_2 = "FIN_WAIT_2"
    CLOSE_WAIT = "CLOSE_WAIT"
    CLOSING = "CLOSING"
    LAST_ACK = "LAST_ACK"
    TIME_WAIT = "TIME_WAIT"
    CLOSED = "CLOSED"

    def __str__(self) -> str:
        return self.value


# Our own FIN goes out: close() or shutdown(SHUT_WR), once all data has been sent.
ON_OWN_FIN = {
    State.SYN_RECEIVED: State.FIN_WAIT_1,
    State.ESTABLISHED: State.FIN_WAIT_1,
    State.CLOSE_WAIT: State.LAST_ACK,
}
# The peer acknowledges it.
ON_FIN_ACKED = {
    State.FIN_WAIT_1: State.FIN_WAIT_2,
    State.CLOSING: State.TIME_WAIT,
    State.LAST_ACK: State.CLOSED,
}
# The peer's FIN arrives, in order.
ON_PEER_FIN = {
    State.ESTABLISHED: State.CLOSE_WAIT,
    State.FIN_WAIT_1: State.CLOSING,
    State.FIN_WAIT_2: State.TIME_WAIT,
}
# Where data of ours may be sent, and where the peer's may arrive.
MAY_SEND = frozenset({State.ESTABLISHED, State.CLOSE_WAIT})
MAY_RECEIVE = frozenset({State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2})
# Both have sent their FIN: an RST then tells nobody anything (section 3.10.7.4, step 2).
BOTH_CLOSED = frozenset({State.CLOSING, State.LAST_ACK, State.TIME_WAIT})
# Where keepalive runs. A connection that nobody owns any more has other limits.
KEPT_ALIVE = frozenset({State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_2})


def acceptable(seq: int, length: int, expected: int, window: int) -> bool:
    """Whether a segment lies in the receive window: RFC 9293, section 3.10.7.4, step 1.

    | SEG.LEN | RCV.WND | acceptable if                                    |
    | 0       | 0       | SEG.SEQ = RCV.NXT                                |
    | 0       | > 0     | RCV.NXT <= SEG.SEQ < RCV.NXT + RCV.WND           |
    | > 0     | 0       | never                                            |
    | > 0     | > 0     | its first or its last byte is inside the window  |

    A keepalive probe fails it on purpose: its number is one below what is expected, and
    what fails is answered with an ACK.
    """
    if window == 0:
        return length == 0 and seq == expected
    if length == 0:
        return expected <= seq < expected + window
    return expected <= seq < expected + window or expected < seq + length <= expected + window
