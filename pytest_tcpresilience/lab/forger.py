"""What a middlebox makes up in the name of others: RST or FIN to both ends of each flow.

To forge a segment that an end accepts, its next expected number must be known (RFC 5961). The
router asks: it sends each end a SYN in the other's name, and the end answers with an ACK that
says where it stands. That answer is kept from the other end.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

from pytest_tcpresilience.errors import HarnessError
from pytest_tcpresilience.lab.plan import ADDRESSES, END_HOSTS
from pytest_tcpresilience.lab.segment import SYN, Address, Segment, forge

if TYPE_CHECKING:
    from pytest_tcpresilience.lab.capture import Capture
    from pytest_tcpresilience.lab.lab import Lab

# Two hops of a kernel's own work.
ANSWER_S = 2.0
_POLL_S = 0.001

Flow = tuple[Address, Address]


def flows(listed: str) -> set[Flow]:
    """Whose connections to whom, from ``ss -tnH state established`` on the client.

    Those of a host with itself do not cross the router.
    """
    found = set()
    for line in listed.splitlines():
        ends = [word.rpartition(":") for word in line.split()[-2:]]
        own, peer = ((host, int(port)) for host, _, port in ends)
        if {own[0], peer[0]} == set(ADDRESSES.values()):
            found.add((own, peer))
    return found


def _raw(lab: Lab) -> socket.socket:
    return lab.router.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def where_they_stand(lab: Lab, wanted: set[Flow]) -> list[Segment]:
    """An acknowledgement of each end of each flow. The router must drop both directions.

    :raises HarnessError: when an end does not answer.
    """
    both_ways = wanted | {(there, here) for here, there in wanted}
    captures = [lab.router.capture(toward=host) for host in END_HOSTS]
    try:
        with _raw(lab) as raw:
            for source, destination in both_ways:
                with contextlib.suppress(OSError):  # its cable is out: it will not answer
                    raw.sendto(forge(source, destination, SYN, 0, 0), (destination[0], 0))
        return _answers(captures, both_ways)
    finally:
        for capture in captures:
            capture.stop()
            lab.captures.remove(capture)


def _answers(captures: list[Capture], both_ways: set[Flow]) -> list[Segment]:
    deadline = time.monotonic() + ANSWER_S
    while True:
        answers = {
            (each.source, each.destination): each
            for capture in captures
            for each in capture.segments
            if not each.outgoing and not each.has(SYN)
        }
        missing = both_ways - answers.keys()
        if not missing:
            return [answers[flow] for flow in both_ways]
        if time.monotonic() > deadline:
            raise HarnessError(
                "an end of a flow does not say where it stands",
                expected="an acknowledgement from each end of each established connection",
                happened=f"none from {', '.join(f'{a[0][0]}:{a[0][1]}' for a in sorted(missing))}",
                advice="is its cable in, and does it still exist at both ends?",
            )
        time.sleep(_POLL_S)


def tell(lab: Lab, answers: list[Segment], flags: int) -> None:
    """A segment to each end that has answered, in the name of its peer."""
    with _raw(lab) as raw:
        for heard in answers:
            packet = forge(heard.destination, heard.source, flags, heard.ack, heard.next_seq)
            raw.sendto(packet, (heard.source[0], 0))
