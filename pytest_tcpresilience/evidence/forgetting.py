"""How the evidence of a forgotten flow is found: one function for each row of the table.

Owns what boxes do to a client, a box of a link and an eviction that a test asked for. The
functions are as those of :mod:`.findings`, which has all other causes.
"""

from __future__ import annotations

from pytest_tcpresilience.evidence.findings import Found, last_look, settings, since
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.evidence.units import duration
from pytest_tcpresilience.evidence.verdict import Mechanism, Observation, mechanism
from pytest_tcpresilience.tcp.keepalive import Keepalive


def middlebox_shorter(seen: Observation) -> Found | None:
    timeout, client = seen.idle_timeout, seen.client
    if timeout is None or client is None or not client.enabled or client.idle < timeout:
        return None
    return {
        "idle_timeout": duration(timeout),
        "idle": duration(client.idle),
        "cures": cures_behind(client, timeout),
    }


def cures_behind(client: Keepalive, idle_timeout: float) -> str:
    """Both cures for a flow that a box forgets: the client's, with its cost, and the box's."""
    # Here, because few runs have a box, and the advisor brings all systems' numbers.
    from pytest_tcpresilience.tcp.advice import advise
    from pytest_tcpresilience.tcp.middleboxes import Middlebox

    cures = {each.where: each for each in advise(client, behind=Middlebox(idle_timeout)).cures}
    at_the_client, at_the_box = cures["client"], cures["middlebox"]
    if at_the_client.possible:
        first = (
            f"{at_the_client.change} on the client's socket, which costs "
            f"{at_the_client.packets_per_hour:.0f} packets per connection and hour"
        )
    else:
        first = (
            f"have the application send something more often than every {duration(idle_timeout)}"
        )
    return f"{first}; or raise the box's idle timeout to {duration(at_the_box.idle_timeout or 0)}"


def _forgotten(seen: Observation) -> Event | None:
    """A flow that a box has forgotten, of which the client was not told."""
    look = last_look(seen)
    told = look is not None and look.kind == "client_gone"
    return seen.hit if seen.fault == "middlebox" and not told else None


def forgotten_by_proxy(seen: Observation) -> Found | None:
    hit = _forgotten(seen)
    if hit is None or hit.get("counts") != "bytes":
        return None
    return {"idle_for": duration(hit["idle_for"])}


def forgotten_keepalive_off(seen: Observation) -> Found | None:
    hit, look = _forgotten(seen), last_look(seen)
    if hit is None or look is None or look["timer"] != "off":
        return None
    return {"idle_for": duration(hit["idle_for"])}


def forgotten(seen: Observation) -> Found | None:
    hit = _forgotten(seen)
    return None if hit is None else {"idle_for": duration(hit["idle_for"])}


def evicted_noticed_by_reset(seen: Observation) -> Found | None:
    if seen.effect != "evict_reset" or seen.after is None:
        return None
    if mechanism(seen) is not Mechanism.RESET:
        return None
    return {"after": duration(seen.after)}


def evicted_swallowed(seen: Observation) -> Found | None:
    look = last_look(seen)
    if seen.effect != "evict_reset" or look is None or look.kind != "client_gone":
        return None
    return {"at": since(seen, look)}


def evicted_keepalive_off(seen: Observation) -> Found | None:
    look = last_look(seen)
    if seen.effect != "evict_reset" or look is None or look["timer"] != "off":
        return None
    return {"settings": settings(seen)}


def evicted_quiet(seen: Observation) -> Found | None:
    return {} if seen.effect == "evict_reset" else None
