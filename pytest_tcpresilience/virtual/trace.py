"""What crossed the network, printed as a capture.

Owns the record of each segment's passage, and how it reads at one host. It judges nothing.
:mod:`.pcap` writes the same for Wireshark.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.virtual.segment import ACK, SYN, WRAP, Address, Segment, flag_letters

# Passages that are kept; of longer runs the last ones. About 100 MB.
KEPT = 250_000


@dataclass
class Passage:
    """One segment on its way.

    :param origin: the host that sent it, or the box that forged it.
    :param sent_at: seconds since the run began. :param arrived_at: ``None`` if it did not.
    :param target: the host that it reached, "" for none.
    :param number: counts the segments of a network, from 0.
    :param fate: what became of it if it did not arrive: ``"lost"``, ``"dropped by …"``.
    """

    segment: Segment
    origin: str
    sent_at: float
    arrived_at: float | None = None
    target: str = ""
    fate: str = ""
    number: int = 0


@dataclass(frozen=True)
class Sighting:
    """A segment as one host sees it, sent or received."""

    at: float
    segment: Segment
    note: str = ""


class Trace:
    """All that was sent in a network, in the order of sending."""

    def __init__(self) -> None:
        self.passages: deque[Passage] = deque(maxlen=KEPT)
        self.sent = 0
        self.names: dict[str, str] = {}
        self._first: dict[tuple[Address, Address], int] = {}

    def add(self, passage: Passage) -> None:
        passage.number = self.sent
        self.passages.append(passage)
        self.sent += 1
        segment = passage.segment
        if segment.flags & SYN:
            self._first[segment.source, segment.destination] = segment.seq

    # --- views ---------------------------------------------------------------------------

    def at(self, host: str | None = None) -> list[Sighting]:
        """What a capture on that host shows, by time; without a host, what was sent at all.

        :raises UsageError: for a host that the network does not have.
        """
        if host is None:
            return [Sighting(e.sent_at, e.segment, self._note(e)) for e in self.passages]
        if host not in self.names.values():
            raise UsageError(
                f"no capture at {host!r}",
                expected=f"one of the hosts: {', '.join(sorted(self.names.values()))}",
                happened=f"got {host!r}",
                advice="give the name of a host, or nothing for all that was sent",
            )
        found = []
        for number, each in enumerate(self.passages):
            if each.origin == host:
                found.append((each.sent_at, number, each.segment))
            if each.target == host and each.arrived_at is not None:
                found.append((each.arrived_at, number, each.segment))
        return [Sighting(at, segment) for at, _, segment in sorted(found, key=lambda row: row[:2])]

    def _note(self, passage: Passage) -> str:
        forged = passage.origin not in self.names.values()
        notes = [f"forged by {passage.origin}"] if forged else []
        notes += [passage.fate] if passage.fate else []
        return f"  ({', '.join(notes)})" if notes else ""

    def relative(self, segment: Segment) -> tuple[int, int]:
        """SEQ and ACK counted from each side's SYN, as captures show them."""
        there, back = (segment.source, segment.destination), (segment.destination, segment.source)
        seq = (segment.seq - self._first.get(there, segment.seq)) % WRAP
        ack = (segment.ack - self._first.get(back, segment.ack)) % WRAP
        return seq, ack

    # --- words ---------------------------------------------------------------------------

    def lines(self, host: str | None = None, *, start: str = "") -> Iterator[str]:
        """One line for each segment, as tcpdump writes them.

        :param host: where the capture is taken; by default everything that was sent.
        :param start: the wall-clock time at which the run began, ``"04:51:51.379716"``;
            without it, seconds since then.
        """
        offset = clock_seconds(start) if start else None
        for seen in self.at(host):
            yield f"{_stamp(seen.at, offset)} {self.describe(seen.segment)}{seen.note}"

    def describe(self, segment: Segment) -> str:
        """A segment in tcpdump's words, with relative numbers and the hosts' names."""
        seq, ack = self.relative(segment)
        length = len(segment.payload)
        shown = f"{seq}:{seq + length}" if length else f"{seq}"
        text = f"{self._name(segment.source)} > {self._name(segment.destination)}: "
        text += f"Flags [{flag_letters(segment.flags)}], seq {shown}"
        if segment.flags & ACK:
            text += f", ack {ack}"
        return f"{text}, win {segment.window}, length {length}"

    def _name(self, address: Address) -> str:
        return f"{self.names.get(address[0], address[0])}.{address[1]}"

    def text(self, host: str | None = None, *, start: str = "") -> str:
        """:meth:`lines` as one string."""
        return "\n".join(self.lines(host, start=start))

    def __str__(self) -> str:
        return self.text()


def clock_seconds(text: str) -> float:
    """``"04:51:51.379716"`` as seconds since midnight.

    :raises UsageError: for anything else.
    """
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        raise UsageError(
            f"start={text!r} is no time of day",
            expected='hours, minutes and seconds, as in start="04:51:51.379716"',
            happened=f"got {text!r}",
            advice="leave it out for seconds since the run began",
        ) from None


def _stamp(at: float, offset: float | None) -> str:
    if offset is None:
        return f"{at:13.6f}"
    micros = round((offset + at) * 1e6)
    seconds, micros = divmod(micros, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}:{seconds:02}.{micros:06}"
