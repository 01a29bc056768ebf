"""Captures in words: a line for each segment, and what is remarkable about it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pytest_tcpresilience.lab.segment import ACK, FIN, PSH, RST, SYN, Address, Segment

_HALF = 2**31
# RFC 792, codes of "destination unreachable".
_CODES = {0: "net", 1: "host", 3: "port", 13: "admin prohibited"}


def _before(one: int, other: int) -> bool:
    """Whether a sequence number lies before another (RFC 9293, section 3.4)."""
    return one != other and (other - one) % 2**32 < _HALF


class _Flow:
    """What one side of a connection has sent so far."""

    def __init__(self, first: Segment) -> None:
        self.start = first.seq
        self.next = first.seq
        self.ttl = first.ttl
        self.reached = first.has(SYN)


def is_probe(segment: Segment, next_seq: int) -> bool:
    """Whether it is a keepalive probe: acknowledged before, and so without effect.

    Linux sends no byte, AIX and others one (RFC 1122, section 4.2.3.6).

    :param next_seq: what the sender would send next.
    """
    bare = not segment.flags & (SYN | FIN | RST | PSH) and segment.has(ACK)
    return bare and segment.length <= 1 and segment.seq == (next_seq - 1) % 2**32


def remarks(segments: Iterable[Segment]) -> list[str]:
    """What is remarkable about each segment; mostly nothing.

    ``keepalive probe``; ``again`` for a retransmission; ``forged`` for an RST or FIN that was
    made nearer than its sender's other segments were.
    """
    flows: dict[tuple[Address, Address], _Flow] = {}
    found = []
    for segment in segments:
        key = segment.source, segment.destination
        if segment.icmp is not None:
            found.append("")
            continue
        flow = flows.setdefault(key, _Flow(segment))
        found.append(_remark(segment, flow))
        if _before(flow.next, segment.next_seq):
            flow.next = segment.next_seq
    return found


def _remark(segment: Segment, flow: _Flow) -> str:
    if segment.flags & (RST | FIN) and segment.ttl != flow.ttl:
        return f"forged on the way: ttl {segment.ttl}, its sender's have {flow.ttl}"
    if is_probe(segment, flow.next):
        return "keepalive probe"
    takes = segment.length or segment.flags & (SYN | FIN)
    if takes and _before(segment.seq, flow.next):
        return "again"
    return ""


def _name(address: Address, names: Mapping[str, str]) -> str:
    return f"{names.get(address[0], address[0])}.{address[1]}"


def _tcp_line(segment: Segment, starts: Mapping[Address, int], names: Mapping[str, str]) -> str:
    def relative(number: int, owner: Address) -> int:
        return (number - starts.get(owner, number)) % 2**32

    first = relative(segment.seq, segment.source)
    text = f"{segment.letters} {first}:{(first + segment.length) % 2**32}({segment.length})"
    if segment.has(ACK):
        text += f" ack {relative(segment.ack, segment.destination)}"
    return text + ("" if segment.has(RST) else f" win {segment.window}")


def _icmp_line(segment: Segment, names: Mapping[str, str]) -> str:
    assert segment.icmp is not None
    what = _CODES.get(segment.icmp[1], f"code {segment.icmp[1]}")
    sender = names.get(segment.told_by, segment.told_by)
    return f"icmp from {sender}: {what} unreachable"


def listing(
    segments: Iterable[Segment], names: Mapping[str, str], *, since: float | None = None
) -> str:
    """A line for each segment: seconds, ends, flags, data, and what is remarkable.

    Sequence numbers count from each side's first.

    :param names: a host's name for each address.
    :param since: CLOCK_MONOTONIC, seconds; time 0 of the listing, which begins there.
    """
    all_of_them = list(segments)
    starts: dict[Address, int] = {}
    for each in all_of_them:
        if each.icmp is None:
            starts.setdefault(each.source, each.seq)
    zero = since if since is not None else all_of_them[0].at if all_of_them else 0.0
    lines = []
    for segment, remark in zip(all_of_them, remarks(all_of_them), strict=True):
        if segment.at < zero:
            continue
        ends = f"{_name(segment.source, names)} > {_name(segment.destination, names)}"
        text = (
            _tcp_line(segment, starts, names)
            if segment.icmp is None
            else _icmp_line(segment, names)
        )
        line = f"{segment.at - zero:11.6f}  {ends}: {text}"
        lines.append(f"{line}  [{remark}]" if remark else line)
    return "".join(f"{line}\n" for line in lines)
