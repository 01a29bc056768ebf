"""One TCP segment: what crosses the wire, and how it reads.

Owns the fields of RFC 9293, section 3.1, and arithmetic on 32-bit sequence numbers. It
does not know why a segment is sent.
"""

from __future__ import annotations

from dataclasses import dataclass

# Flags, with the bits that they have in the header.
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
# As tcpdump writes them.
_LETTERS = ((FIN, "F"), (SYN, "S"), (RST, "R"), (PSH, "P"), (ACK, "."))
WRAP = 1 << 32

# An IPv4 address and a port.
Address = tuple[str, int]


def unwrap(seq: int, near: int) -> int:
    """A 32-bit number from the wire as the nearest one to ``near`` that never wraps.

    The machine counts without end and wraps only what it sends, so that "before" and
    "after" are plain comparisons (RFC 9293, section 3.4).
    """
    return near + (seq - near + WRAP // 2) % WRAP - WRAP // 2


def flag_letters(flags: int) -> str:
    """``S``, ``S.``, ``P.``, ``R`` and so on, as tcpdump writes them."""
    return "".join(letter for bit, letter in _LETTERS if flags & bit) or "none"


@dataclass(frozen=True)
class Segment:
    """A segment with the addresses of its IP header.

    :param seq: number of the first byte, modulo 2**32; a SYN and a FIN count as one each.
    :param ack: the next byte expected, if ``flags`` has ACK.
    :param window: bytes that the sender is ready to take.
    :param mss: the option of a SYN: the most bytes of payload in a segment; 0 for none.
    """

    source: Address
    destination: Address
    seq: int
    ack: int
    flags: int
    window: int = 0
    payload: bytes = b""
    mss: int = 0

    @property
    def length(self) -> int:
        """SEG.LEN: bytes of sequence space, with SYN and FIN."""
        return len(self.payload) + bool(self.flags & SYN) + bool(self.flags & FIN)

    @property
    def flow(self) -> frozenset[Address]:
        """The same for both directions of a connection."""
        return frozenset((self.source, self.destination))

    def __str__(self) -> str:
        text = f"Flags [{flag_letters(self.flags)}], seq {self.seq}"
        if self.flags & ACK:
            text += f", ack {self.ack}"
        return f"{text}, win {self.window}, length {len(self.payload)}"


def reset_for(segment: Segment) -> Segment | None:
    """The RST with which a host, or a box, answers a segment of no known connection.

    RFC 9293, section 3.5.2, group 1: it takes its number from the ACK of what it answers,
    so that whoever sent that believes it. An RST is never answered.
    """
    if segment.flags & RST:
        return None
    if segment.flags & ACK:
        return Segment(segment.destination, segment.source, segment.ack, 0, RST)
    ack = (segment.seq + segment.length) % WRAP
    return Segment(segment.destination, segment.source, 0, ack, RST | ACK)
