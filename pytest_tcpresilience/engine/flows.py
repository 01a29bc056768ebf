"""What a middlebox remembers of a flow, and when it forgets it.

Pure: counts and times in, a decision out. A flow is one connection, on both sides of the
box. It is alive by its segments, of which keepalive probes and their answers are some, and
not by its bytes. (A proxy, whose own kernel answers probes, counts bytes.)

A segment leaves no time behind, only a higher count, so the box has to look. It looks
twenty times in the length of its patience, and takes the time of the look at which the count
had risen for the time of the segment. So a flow is never forgotten too early, and at most
by a twentieth too late.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOKS = 20
# Below it the engine would do nothing else.
SHORTEST_S = 0.002


@dataclass
class Flow:
    """:param idle_timeout: seconds without news after which the flow is forgotten.

    :param count: of its segments at the last look; of its bytes, for a proxy.
    :param seen_at: when the count had last risen; CLOCK_MONOTONIC, seconds.
    """

    idle_timeout: float
    count: int
    seen_at: float

    @property
    def pause(self) -> float:
        """Seconds from one look to the next."""
        return max(self.idle_timeout / LOOKS, SHORTEST_S)

    def look(self, count: int, now: float) -> float | None:
        """The box looks at the flow.

        :returns: seconds until it wants to look again, or ``None`` once it has forgotten.
        """
        if count != self.count:
            self.count, self.seen_at = count, now
        left = self.seen_at + self.idle_timeout - now
        if left <= 0:
            return None
        return min(left, self.pause)
