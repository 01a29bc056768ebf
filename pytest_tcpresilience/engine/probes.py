"""Keepalive probes of a client, as far as they can be seen while nothing is cut.

Owns the looking. A probe carries no byte, so no read shows it, and the kernel answers it
without a word. What it leaves is a count: ``tcpi_segs_in`` rises by one. Acknowledgements
raise it too, so a rise counts as probes only between two looks that saw the same bytes
acknowledged and received, and nothing outstanding. (A client that was too slow to read may
then send an update of its window, which is counted as a probe.)

There is no way to be woken by a probe, and the fastest keepalive has one in a second. So
the clients of each proxy are looked at four times a second, the first ones of them: a proxy
with thousands of idle connections is to cost nothing.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import trio

from pytest_tcpresilience.kernel import counts
from pytest_tcpresilience.kernel.counts import Counts

if TYPE_CHECKING:
    from pytest_tcpresilience.engine.connection import Connection
    from pytest_tcpresilience.engine.proxy import Proxy

LOOK_S = 0.25
MOST_LOOKED_AT = 64


def between(before: Counts | None, now: Counts) -> int:
    """Probes that came between two looks at a socket; 0 where that is uncertain."""
    if before is None or before.unacknowledged or now.state != counts.TCP_ESTABLISHED:
        return 0
    same = (before.acknowledged, before.received) == (now.acknowledged, now.received)
    return now.segments_in - before.segments_in if same else 0


def look(connection: Connection) -> None:
    """Look at the client's side, and record what is new."""
    try:
        now = counts.read(connection.client.sock)
    except OSError:
        return  # closed
    if now is None:
        return
    seen = between(connection.looked, now)
    connection.looked = now
    if seen and not connection.cutter:  # the answers to some would not arrive
        connection.record.probes += seen
        connection.proxy.events.add(
            "probe_seen",
            connection=connection.number,
            seen=seen,
            probes=connection.record.probes,
        )


async def watch(proxy: Proxy) -> None:
    """Look at a proxy's connections for as long as there are any. Never returns."""
    while True:
        await proxy.has_connections()
        for connection in list(islice(proxy.connections.values(), MOST_LOOKED_AT)):
            look(connection)
        await trio.sleep(LOOK_S)
