"""Waiting for what happens on a link, with no polling in the test.

Owns the wait: the engine answers when there is news, and a wait that is in vain says what
it saw instead. What is waited for is the caller's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.evidence.kinds import KINDS
from pytest_tcpresilience.evidence.timeline import Event, render

if TYPE_CHECKING:
    from pytest_tcpresilience.connection import Connection
    from pytest_tcpresilience.link import Link

What = str | Callable[[Event], bool]
# Of a wait in vain, the last events are shown.
SHOWN = 12


def limit_of(link: Link, timeout: float | None) -> float:
    """Seconds that a wait may take; the setting ``hit_timeout`` if not given.

    :raises UsageError: for what is no time.
    """
    if timeout is None:
        return link.settings.hit_timeout
    number: object = timeout
    if (
        isinstance(number, bool)
        or not isinstance(number, (int, float))
        or not math.isfinite(number)
        or number < 0
    ):
        raise UsageError(
            f"timeout={timeout!r} is no time",
            expected="timeout in seconds, at least 0",
            happened=f"got {timeout!r}",
            advice="leave timeout out for the setting hit_timeout",
        )
    return float(number)


def follow(link: Link, limit_s: float) -> Iterator[Event]:
    """The link's events from its beginning, and then as they come, for so many seconds."""
    deadline = time.monotonic() + limit_s
    seen = 0
    while True:
        left = deadline - time.monotonic()
        for event in link.events_after(seen, wait_s=max(left, 0.0)):
            seen = event.seq
            yield event
        if left <= 0:
            return


def _seen(link: Link, events: list[Event]) -> str:
    now = time.monotonic()
    lines = [link.describe_connections()]
    if events:
        lines += [f"the last events, {len(events)} in all:", render(events[-SHOWN:], now)]
    return "\n".join(lines)


def wait_for_event(
    link: Link,
    what: What,
    timeout: float | None,
    *,
    since: Event | None = None,
    connection: int = 0,
) -> Event:
    """The first event of a kind, or that a predicate takes.

    :param since: only events after this one.
    :param connection: only events of the connection of this number; 0 for all.
    :raises UsageError: when there is none in time, or for a kind that does not exist.
    """
    limit_s = limit_of(link, timeout)
    if isinstance(what, str) and what not in KINDS:
        raise UsageError(
            f"{what!r} is no kind of event",
            expected="one of " + ", ".join(KINDS),
            happened=f"got {what!r}",
            advice="pass a kind, or a function that takes an event and says whether it is the one",
        )
    events: list[Event] = []
    for event in follow(link, limit_s):
        events.append(event)
        if since is not None and event.seq <= since.seq:
            continue
        if connection and event.get("connection") != connection:
            continue
        if event.kind == what if isinstance(what, str) else what(event):
            return event
    wanted = repr(what) if isinstance(what, str) else getattr(what, "__name__", repr(what))
    where = f"connection {connection}" if connection else f"{link.name}"
    raise UsageError(
        f"no event {wanted} on {where} in {limit_s:g} s",
        expected=f"an event {wanted}" + (f" after event {since.seq}" if since else ""),
        happened=_seen(link, events),
        advice="check that the client has connected and done its part, or wait longer",
    )


def wait_for_connection(link: Link, n: int, timeout: float | None) -> Connection:
    """The ``n``-th oldest of the open connections, once there are so many.

    :raises UsageError: when there are not so many in time, or for an ``n`` below 1.
    """
    limit_s = limit_of(link, timeout)
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise UsageError(
            f"n={n!r} is no number of connections",
            expected="a whole number of at least 1",
            happened=f"got {n!r}",
            advice="leave n out for the first connection",
        )
    events: list[Event] = []
    for event in follow(link, limit_s):
        events.append(event)
        if event.kind == "opened":
            found = link.connections
            if len(found) >= n:
                return found[n - 1]
    raise UsageError(
        f"no {n} connection(s) on {link.name} in {limit_s:g} s",
        expected=f"{n} connection(s) open at the same time",
        happened=_seen(link, events),
        advice="have the client connect to link.address, in another thread or process if "
        "its call blocks, or wait longer",
    )


def wait_closed(connection: Connection, timeout: float | None) -> Connection:
    """The connection as it was when it had ended.

    :raises UsageError: when it is still open after that time.
    """
    link = connection.link
    limit_s = limit_of(link, timeout)
    for event in follow(link, limit_s):
        if event.kind == "closed" and event["connection"] == connection.number:
            return connection.now()
    raise UsageError(
        f"connection {connection.number} of {link.name} was not closed in {limit_s:g} s",
        expected="a client, an upstream or a fault that ends it",
        happened=_seen(link, list(connection.events)),
        advice="close the client's socket, or wait longer",
    )
