"""What lies between two hosts: latency, loss, a cable that can be pulled, and boxes.

Owns a segment's way from one host to the other. What a box does to it is
:mod:`.boxes`'.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.virtual.host import Host
from pytest_tcpresilience.virtual.segment import Segment
from pytest_tcpresilience.virtual.trace import Passage

if TYPE_CHECKING:
    from pytest_tcpresilience.virtual.network import Network

# From one end to the other, where nothing else is said: a data centre's half round trip.
LATENCY_S = 0.0005


class Box(Protocol):
    """Something on a path that looks at what passes."""

    name: str

    def passes(self, segment: Segment, place: PathPlace) -> bool:
        """Whether it goes on. The box may send segments of its own from ``place``."""
        ...


class PathPlace:
    """Where a box stands on a path, for what it sends itself.

    :param index: hops between it and the path's first host, less one.
    """

    def __init__(self, path: Path, index: int) -> None:
        self.path = path
        self.index = index

    def inject(self, segment: Segment, box: str) -> None:
        """A forged segment, from here to the host that it names."""
        path = self.path
        path.network.trace.add(passage := Passage(segment, box, path.network.now))
        forward = segment.destination[0] == path.ends[1].address
        path.hop(passage, self.index + 1 if forward else self.index, forward)


class Path:
    """The way between two hosts.

    :param latency: seconds one way; or the seconds of each hop, one more than boxes.
    :param loss: the share of segments that get lost, 0 to 1.
    :param jitter: up to so many seconds more for each segment, which can overtake.
    :param boxes: what stands on it, from the first host to the second.
    """

    def __init__(
        self,
        network: Network,
        ends: tuple[Host, Host],
        latency: float | Sequence[float] = LATENCY_S,
        loss: float = 0.0,
        jitter: float = 0.0,
        boxes: Sequence[Box] = (),
    ) -> None:
        self.network = network
        self.ends = ends
        self.loss = loss
        self.jitter = jitter
        self.boxes = tuple(boxes)
        hops = len(self.boxes) + 1
        self.hops = (latency / hops,) * hops if isinstance(latency, (int, float)) else latency
        self._cut_error: int | None = None
        self.connected = True
        self._check()

    def _check(self) -> None:
        sane = (
            len(self.hops) == len(self.boxes) + 1
            and all(hop >= 0 for hop in self.hops)
            and 0 <= self.loss <= 1
            and self.jitter >= 0
        )
        if not sane:
            raise UsageError(
                "this path makes no sense",
                expected="latency and jitter of at least 0 s, loss from 0 to 1, and a latency for "
                "each hop if there are several",
                happened=f"latency {tuple(self.hops)}, loss {self.loss!r}, jitter "
                f"{self.jitter!r}, {len(self.boxes)} box(es)",
                advice="give latency= as one number of seconds, or one more than boxes",
            )

    # --- the cable -----------------------------------------------------------------------

    def unplug(self, *, unreachable: bool = False) -> None:
        """Pull the cable: nothing gets through, either way.

        :param unreachable: a router answers what is sent with ICMP "host unreachable".
        """
        self.connected = False
        self._cut_error = errno.EHOSTUNREACH if unreachable else None

    def plug(self) -> None:
        """Put the cable back."""
        self.connected = True

    # --- a segment's way -----------------------------------------------------------------

    def carry(self, segment: Segment, origin: Host) -> None:
        """From one of the ends."""
        network = self.network
        network.trace.add(passage := Passage(segment, origin.name, network.now))
        if not self.connected:
            passage.fate = "cable unplugged"
            if self._cut_error is not None:
                self._report_unreachable(segment, origin, self._cut_error)
        elif self.loss and network.random.random() < self.loss:
            passage.fate = "lost"
        else:
            forward = origin is self.ends[0]
            self.hop(passage, 0 if forward else len(self.boxes), forward)

    def _report_unreachable(self, segment: Segment, origin: Host, error: int) -> None:
        def report() -> None:
            endpoint = origin.endpoints.get((segment.source, segment.destination))
            if endpoint is not None:
                endpoint.machine.unreachable(error)
                self.network.settle(endpoint)

        self.network.call_at(self.network.now + 2 * self.hops[0], report)

    def hop(self, passage: Passage, hop: int, forward: bool) -> None:
        """Along one stretch of cable. Hop 0 is at the first host."""
        network = self.network
        delay = self.hops[hop]
        if self.jitter:
            delay += network.random.random() * self.jitter / len(self.hops)
        network.call_at(network.now + delay, lambda: self._landed(passage, hop, forward))

    def _landed(self, passage: Passage, hop: int, forward: bool) -> None:
        if not self.connected:
            passage.fate = "cable unplugged"
            return
        index = hop if forward else hop - 1
        if 0 <= index < len(self.boxes):
            box = self.boxes[index]
            if box.passes(passage.segment, PathPlace(self, index)):
                self.hop(passage, hop + 1 if forward else hop - 1, forward)
            else:
                passage.fate = f"dropped by {box.name}"
            return
        self.network.deliver(passage, self.ends[1] if forward else self.ends[0])
