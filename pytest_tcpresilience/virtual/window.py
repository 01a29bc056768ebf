"""The persist timer: how a sender finds out that a closed window has opened again.

Owns RFC 9293, section 3.8.6.1, and RFC 1122, section 4.2.2.17. It sends nothing.

How to think about it. An update of the window carries no data, so nobody repeats it when it
is lost; without probes both ends would wait for ever. A peer that answers is alive, however
small its window, and must be asked for as long as it does. Linux lets the user timeout end
that all the same, from the first probe on (measured), which is a false alarm worth a test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Probes without an answer after which the peer is taken for dead (Linux: tcp_retries2).
UNANSWERED_MOST = 15


@dataclass
class Persist:
    """One spell of a closed window.

    :param asked_at: when the window closed, or the last probe went out.
    :param wait: seconds from there to the next one; it doubles up to ``most``.
    """

    asked_at: float
    wait: float
    most: float
    user_timeout: float = 0.0
    unanswered: int = 0
    first_at: float | None = None

    @property
    def limit(self) -> float:
        """When the user timeout ends it."""
        if not self.user_timeout or self.first_at is None:
            return math.inf
        return self.first_at + self.user_timeout

    @property
    def due(self) -> float:
        return min(self.asked_at + self.wait, self.limit)

    def is_over(self, now: float) -> bool:
        return now >= self.limit or self.unanswered >= UNANSWERED_MOST

    def probed(self, now: float) -> None:
        if self.first_at is None:
            self.first_at = now
        self.asked_at = now
        self.wait = min(self.wait * 2, self.most)
        self.unanswered += 1

    def answered(self) -> None:
        self.unanswered = 0
