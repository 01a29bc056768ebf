"""The smallest changes that let a client survive: both cures, and what they cost.

A flow that a middlebox forgets is cured at the box, by a longer memory, or at the client,
by probes that come sooner. The first costs the box memory, the second packets. Each cure
that is called possible has been judged again by :func:`~.advice.advise`, and found well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from pytest_tcpresilience.tcp.advice import HOUR_S, Advice, Client, advise
from pytest_tcpresilience.tcp.keepalive import MAX_IDLE_S, MAX_INTERVAL_S, MAX_PROBES, Keepalive
from pytest_tcpresilience.tcp.middleboxes import Middlebox
from pytest_tcpresilience.tcp.stacks import Stack

# What the client's application exchanges in place of probes: a request, its answer, and
# the acknowledgement of that.
HEARTBEAT_PACKETS = 3


@dataclass(frozen=True)
class Cure:
    """One way out.

    :param where: ``"client"``, ``"middlebox"`` or ``"application"``.
    :param change: what to do, in words.
    :param possible: whether it can be done, and then suffices.
    :param packets_per_hour: on each idle connection, in both directions, once it is done.
    :param keepalive: the client's new settings, where an application can make them.
    :param idle_timeout: the box's new one, in seconds.
    """

    where: str
    change: str
    possible: bool
    packets_per_hour: float
    keepalive: Keepalive | None = None
    idle_timeout: float | None = None


def _greatest(holds: Callable[[int], bool], most: int) -> int:
    """The greatest whole number up to ``most`` for which it holds, 0 for none.

    It must hold for all smaller ones too.
    """
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _base(client: Client) -> tuple[int, int, int]:
    """The client's idle, interval and count as an application would set them."""
    if client.keepalive is not None:
        return client.keepalive.idle, client.keepalive.interval, client.keepalive.probes
    stack = client.stack
    extra = stack.unanswered(0)
    numbers = math.floor(stack.idle), math.ceil(stack.interval), stack.probes - extra
    most = MAX_IDLE_S, MAX_INTERVAL_S, MAX_PROBES
    idle, interval, probes = (
        max(1, min(number, limit)) for number, limit in zip(numbers, most, strict=True)
    )
    return idle, interval, probes


def _gentle(stack: Stack, base: tuple[int, int, int], total: int) -> tuple[int, int, int] | None:
    """Idle, interval and count with which the end comes by ``total``, close to ``base``."""
    idle, interval, probes = base
    count = stack.unanswered(probes)
    if max(idle, interval) + interval * count <= total:
        return base
    if total - interval * count >= interval:  # a shorter idle time is enough
        return min(idle, total - interval * count), interval, probes
    while count + 1 > total and probes > 1:
        probes -= 1
        count = stack.unanswered(probes)
    if count + 1 > total:
        return None
    interval = min(interval, max(1, total // (2 * count)))
    return min(idle, total - interval * count), interval, probes


def _proposal(advice: Advice) -> Keepalive | None:
    """The client's settings, changed as little as its trouble allows."""
    client, box, within = advice.client, advice.behind, advice.within
    stack = client.stack
    idle, interval, probes = _base(client)
    timeout = client.user_timeout
    if box is not None and not box.proxy:
        limit = box.idle_timeout
        gap = _greatest(lambda at: stack.latest(at) < limit, min(math.ceil(limit), MAX_IDLE_S))
        if not gap:
            return None
        idle, interval = min(idle, gap), min(interval, gap)
    if within is not None:
        bound = within
        first = stack.retransmissions().times[0]
        total = _greatest(
            lambda at: stack.latest(at + first) <= bound, min(math.ceil(bound), MAX_IDLE_S)
        )
        found = _gentle(stack, (idle, interval, probes), total)
        if found is None:
            return None
        idle, interval, probes = found
        if stack.user_timeout_option is not None:
            # No longer than keepalive takes: on Linux it then leaves the count as it is.
            most = idle + interval * stack.unanswered(probes)
            timeout = float(min(timeout or most, most))
    return Keepalive(idle, interval, probes, user_timeout=timeout)


def _cure_by_keepalive(advice: Advice) -> Cure:
    client, stack = advice.client, advice.client.stack
    proposal = _proposal(advice)
    if proposal is None:
        why = "no keepalive is fast enough: timers count in seconds and are late"
        return Cure("client", why, False, client.packets_per_hour)
    options = {"TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"}
    if not options <= stack.offered:
        return _cure_by_tunable(advice, proposal)
    after = advise(proposal, stack=stack, behind=advice.behind, within=advice.within)
    change = _difference(client, proposal)
    if stack.unanswered(proposal.probes) == 1:
        change += "; one lost probe then ends a healthy connection"
    if not after.ok:
        change += f"; not enough: {after.reasons[0]}"
    return Cure("client", change, after.ok, after.client.packets_per_hour, proposal)


def _difference(client: Client, proposal: Keepalive) -> str:
    stack = client.stack
    before = _base(client)
    # One option alone leaves a spacing that is not even as it is.
    uneven = client.keepalive is None and stack.keepalive() is None
    after = proposal.idle, proposal.interval, proposal.probes
    parts = [] if client.enabled else ["SO_KEEPALIVE on"]
    for name, old, new in zip(("IDLE", "INTVL", "CNT"), before, after, strict=True):
        if new != old or uneven:
            parts.append(f"TCP_KEEP{name} {new}")
    if proposal.user_timeout != client.user_timeout:
        parts.append(f"{stack.user_timeout_option} {proposal.user_timeout:g} s")
    return "set " + ", ".join(parts)


def _cure_by_tunable(advice: Advice, proposal: Keepalive) -> Cure:
    """For a system whose applications cannot set all of it: its idle time, for all of them."""
    stack = advice.client.stack
    tunable = stack.tunables[0]
    value = round(proposal.idle / tunable.seconds)
    if not tunable.low <= value <= tunable.high:
        change = f"{tunable.native} cannot be as low as {value}"
        return Cure("client", change, False, advice.client.packets_per_hour)
    tuned = replace(stack, **{tunable.field: value})
    after = advise("default", stack=tuned, behind=advice.behind, within=advice.within)
    on = "" if advice.client.enabled else "SO_KEEPALIVE on, and "
    change = f"set {on}the system's {tunable.native} to {value} ({tunable.unit})"
    if not after.ok:
        change += f"; not enough: {after.reasons[0]}"
    return Cure("client", change, after.ok, after.client.packets_per_hour)


def _cure_at_the_box(advice: Advice, box: Middlebox) -> Cure:
    client = advice.client
    packets = client.packets_per_hour
    if not client.enabled:
        change = "without keepalive no idle timeout is long enough"
        return Cure("middlebox", change, False, packets)
    needed = float(math.floor(client.stack.latest(client.gap())) + 1)
    memory = (
        f"raise the idle timeout of {box.name} from {box.idle_timeout:g} s to {needed:g} s; it "
        "remembers each dead flow that much longer"
    )
    if box.adjustable is None:
        change = f"{memory}; but it cannot be set"
        return Cure("middlebox", change, False, packets, idle_timeout=needed)
    most = box.adjustable[1]
    if needed > most:
        change = f"{memory}; but it can be set to {most:g} s at most"
        return Cure("middlebox", change, False, packets, idle_timeout=needed)
    raised = box.with_idle_timeout(needed)
    settings = client.keepalive or "default"
    after = advise(settings, stack=client.stack, behind=raised, within=advice.within)
    change = memory if after.ok else f"{memory}; not enough: {after.reasons[0]}"
    return Cure("middlebox", change, after.ok, packets, idle_timeout=needed)


def _cure_by_heartbeat(box: Middlebox) -> Cure:
    """A proxy wants to see the application's bytes."""
    period = max(1, math.ceil(box.idle_timeout / 2))
    change = (
        f"let the application exchange a heartbeat each {period} s, half of what {box.name} waits, "
        "or let it expect the end of the connection"
    )
    return Cure("application", change, True, HEARTBEAT_PACKETS * HOUR_S / period)


def cures_for(advice: Advice) -> tuple[Cure, ...]:
    """Both cures, the client's first, with those that are not possible and why."""
    if advice.ok:
        return ()
    box = advice.behind
    cures = [_cure_by_keepalive(advice)]
    if box is not None and box.proxy:
        return (_cure_by_heartbeat(box), *cures)
    if box is not None and advice.held != "yes":
        cures.append(_cure_at_the_box(advice, box))
    return tuple(cures)
