"""What is known of one connection, for those who ask later.

Owns the facts and the shape in which the API shows them. It decides nothing, and no
fault reads it. All times are CLOCK_MONOTONIC seconds.
"""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass, field
from typing import Any, Literal

By = Literal["client", "upstream", "fault", "engine"]
How = Literal["fin", "reset", "timeout"]

# Reasons of the engine's own, by who is behind them; any other is the type of a toxic.
_BY: dict[str, By] = {
    "rescue": "engine",
    "proxy_ended": "engine",
    "accept_failed": "engine",
    "internal_error": "engine",
    "upstream_failed": "upstream",
}
# With these a kernel gives a connection up that it got no answer on (tcp(7)).
_GIVEN_UP = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
DIRECTIONS = {"upstream": "to_server", "downstream": "to_client"}


@dataclass(frozen=True)
class Hit:
    """What a fault found when it took hold of a connection.

    :param at: CLOCK_MONOTONIC, seconds.
    :param idle_for: seconds since the last byte in either direction.
    :param settled: whether all data was acknowledged on both sides.
    """

    at: float
    idle_for: float
    settled: bool


@dataclass(frozen=True)
class Ending:
    """How a connection ended: the first thing that ended it for the client.

    :param by: who did it.
    :param how: ``fin``, ``reset``, or ``timeout`` when a kernel gave up on its peer.
    :param reason: a toxic's type, or the engine's; empty when a peer did it.
    :param code: the name of the errno, where there was one.
    """

    by: By
    how: How
    reason: str = ""
    code: str = ""

    def document(self) -> dict[str, Any]:
        given = {"reason": self.reason, "errno": self.code}
        return {"by": self.by, "how": self.how, **{k: v for k, v in given.items() if v}}


def by_peer(side: By, error: OSError | None = None) -> Ending:
    """A peer's own FIN, or what broke the socket to it."""
    if error is None:
        return Ending(side, "fin")
    code = errno.errorcode.get(error.errno or 0, str(error))
    return Ending(side, "timeout" if error.errno in _GIVEN_UP else "reset", code=code)


def for_reason(reason: str, how: How) -> Ending:
    """A fault did it, or the engine."""
    return Ending(_BY.get(reason, "fault"), how, reason)


@dataclass(slots=True)
class Struck:
    """A fault on this connection."""

    type: str
    armed_at: float
    hit_at: float
    lifted_at: float | None = None


@dataclass(slots=True)
class Record:
    """:param first_byte_at: by stream.

    :param probes: as in :mod:`.probes`.
    :param faults: those that took hold, by the names of their toxics.
    :param finished_by: whose FIN was the first.
    """

    connected_at: float | None = None
    first_byte_at: dict[str, float] = field(default_factory=dict)
    probes: int = 0
    faults: dict[str, Struck] = field(default_factory=dict)
    finished_by: By | None = None
    closed_at: float | None = None
    ending: Ending | None = None

    def struck(self, name: str, type_: str, *, armed_at: float, hit_at: float) -> None:
        self.faults[name] = Struck(type_, armed_at, hit_at)

    def lifted(self, name: str) -> None:
        fault = self.faults.get(name)
        if fault is not None:
            fault.lifted_at = time.monotonic()

    def document(self) -> dict[str, Any]:
        closed = None
        if self.ending is not None:
            closed = {"at": self.closed_at, **self.ending.document()}
        return {
            "connected_at": self.connected_at,
            "first_byte_upstream_at": self.first_byte_at.get("upstream"),
            "first_byte_downstream_at": self.first_byte_at.get("downstream"),
            "probes": self.probes,
            "faults": [
                {
                    "toxic": name,
                    "type": each.type,
                    "armed_at": each.armed_at,
                    "hit_at": each.hit_at,
                    "lifted_at": each.lifted_at,
                }
                for name, each in self.faults.items()
            ],
            "closed": closed,
        }
