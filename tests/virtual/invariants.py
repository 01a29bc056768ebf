"""What holds on any wire: RFC 9293's rules for numbers, read off a trace."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_tcpresilience.virtual.buffers import MSS
from pytest_tcpresilience.virtual.segment import ACK, FIN, RST, SYN, Address, Segment, unwrap
from pytest_tcpresilience.virtual.trace import Trace


@dataclass
class Side:
    """One sender, as an observer at its own host knows it. Numbers do not wrap.

    :param sent: each byte of sequence space by its number; FIN is -1.
    :param allowed: the right edge of the peer's window, as far as the sender has heard.
    """

    first: int
    sent: dict[int, int] = field(default_factory=dict)
    highest: int = 0
    acked: int = 0
    allowed: int = 0
    fin: int | None = None
    reset: bool = False


class Observer:
    """Checks each segment of one connection that an honest end sent."""

    def __init__(self) -> None:
        self.sides: dict[Address, Side] = {}

    def heard(self, segment: Segment) -> None:
        """It has arrived at its destination."""
        side = self.sides.get(segment.destination)
        if side is not None and segment.flags & ACK:
            ack = unwrap(segment.ack, side.highest)
            side.allowed = max(side.allowed, ack + segment.window)

    def sent(self, segment: Segment) -> None:
        if segment.flags & SYN:
            side = self.sides.setdefault(segment.source, Side(segment.seq))
            assert segment.seq == side.first, "a SYN that is repeated keeps its number"
            side.highest = max(side.highest, segment.seq + 1)
        side = self.sides[segment.source]
        if segment.flags & RST:
            side.reset = True
            return
        assert not side.reset or segment.flags & SYN, "nothing follows an RST"
        self._check_ack(side, segment)
        self._check_data(side, segment)

    def _check_ack(self, side: Side, segment: Segment) -> None:
        if not segment.flags & ACK:
            assert segment.flags & SYN, "every segment but the first SYN has an ACK"
            return
        peer = self.sides[segment.destination]
        ack = unwrap(segment.ack, peer.highest)
        assert peer.first < ack <= peer.highest, "only what was sent can be acknowledged"
        assert ack >= side.acked, "an acknowledgement is never taken back"
        side.acked = ack

    def _check_data(self, side: Side, segment: Segment) -> None:
        seq = unwrap(segment.seq, side.highest)
        assert len(segment.payload) <= MSS
        assert seq <= side.highest, "there is no hole in what is sent"
        end = seq + len(segment.payload)
        for number, byte in enumerate(segment.payload, seq):
            assert side.sent.setdefault(number, byte) == byte, "what is repeated is the same"
        if side.fin is not None and segment.payload:
            assert end <= side.fin, "no data follows a FIN"
        if segment.flags & FIN:
            assert side.fin in (None, end), "a FIN that is repeated keeps its number"
            side.fin = end
            end += 1
        elif segment.payload:
            assert end <= side.allowed, "nothing is sent beyond the peer's window"
        side.highest = max(side.highest, end)


def check_numbers(trace: Trace) -> None:
    """Hold every segment of a trace with one connection to the rules."""
    hosts = set(trace.names.values())
    rows: list[tuple[float, int, bool, Segment]] = []
    for number, each in enumerate(trace.passages):
        if each.origin in hosts:
            rows.append((each.sent_at, 2 * number, True, each.segment))
        if each.target:
            assert each.arrived_at is not None
            rows.append((each.arrived_at, 2 * number + 1, False, each.segment))
    observer = Observer()
    # What has arrived at a moment is known when something is sent at that moment.
    for _, _, is_sent, segment in sorted(rows, key=lambda row: (row[0], row[2], row[1])):
        (observer.sent if is_sent else observer.heard)(segment)
