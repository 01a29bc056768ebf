"""By what did it notice? A capture at the watched end says so. Pure.

Independent of the project's own verdict, which the rows on links are judged by.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_tcpresilience.lab.segment import FIN, RST, SYN, Segment
from pytest_tcpresilience.tcp.keepalive import Keepalive
from tests.groundtruth.ends import Ended
from tests.groundtruth.scenarios import WRITES, Scenario

DEAD = ("ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH")


def _count(segments: Sequence[Segment], what: str) -> str:
    return f"{len(segments)} {what}{'s' if len(segments) != 1 else ''} unanswered"


def _came(what: str, segment: Segment) -> str:
    # Segments of the simulated network have no TTL.
    return f"{what} came" + (f", ttl {segment.ttl}" if segment.ttl else "")


def _by_timer(sent: Sequence[Segment], settings: Keepalive, wrote: bool) -> tuple[str, str]:
    """Which timer gave up, by what it had sent."""
    data = [each for each in sent if each.length > 1]
    if not sent:  # with its own cable out
        mechanism = "user_timeout" if wrote else "keepalive"
        return mechanism, "nothing could leave the host"
    if data:
        mechanism = "user_timeout" if settings.user_timeout else "retransmission_limit"
        return mechanism, _count(data, "transmission")
    opening = [each for each in sent if each.has(SYN)]
    if opening:
        return "kernel_timeout", _count(opening, "SYN")
    probes = [each for each in sent if not each.flags & (FIN | RST)]
    assert probes, "a kernel gave up, and had not probed"
    return "keepalive", _count(probes, "probe")


def mechanism_of(
    ended: Ended, segments: Sequence[Segment], since: float, scenario: Scenario
) -> tuple[str | None, str]:
    """The mechanism, and the evidence for it.

    :param segments: as the watched end's host saw them.
    :param since: CLOCK_MONOTONIC, when the fault hit.
    """
    seen = [each for each in segments if each.at >= since and each.icmp is None]
    came = [each for each in seen if not each.outgoing]
    sent = [each for each in seen if each.outgoing]
    if ended.error in DEAD:
        assert not came, "it was answered, and gave up all the same"
        return _by_timer(sent, scenario.settings, scenario.does == WRITES)
    if ended.error in ("ECONNRESET", "EPIPE", "ECONNREFUSED"):
        resets = [each for each in came if each.has(RST)]
        assert resets, "reset, and no RST came"
        refused = ended.error == "ECONNREFUSED"
        return "refused" if refused else "reset", _came("RST", resets[0])
    if ended.error == "EOF":
        fins = [each for each in came if each.has(FIN)]
        assert fins, "the end of the stream, and no FIN came"
        return "fin", _came("FIN", fins[0])
    assert ended.own_timeout, ended
    if any(each.has(SYN) for each in sent):
        return "own_timeout", _count(sent, "SYN")
    return None, f"{len(sent)} segments went out, {len(came)} came"
