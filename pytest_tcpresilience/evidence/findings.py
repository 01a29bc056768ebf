"""How the evidence of each cause is found: one function for each row of the table.

Owns the looking. Each function takes what was seen and returns the values for its row's
sentences, or ``None`` where the evidence is not there. What the rescue did is no evidence.
"""

from __future__ import annotations

from pytest_tcpresilience.evidence import causes
from pytest_tcpresilience.evidence.health import SPINNING
from pytest_tcpresilience.evidence.timeline import Event, gave_up
from pytest_tcpresilience.evidence.units import bytes_were, duration
from pytest_tcpresilience.evidence.verdict import (
    Mechanism,
    Observation,
    mechanism,
)
from pytest_tcpresilience.tcp.fitting import FASTEST, keepalive_for, user_timeout_for
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.windows import idle_window, unacknowledged_window

Found = dict[str, str]

LOOKS = ("client_socket", "client_unanswered", "client_gone", "client_closed")
DEFAULTS = Keepalive.linux_defaults()
# A first probe that is due this long after the last segment is Linux's default. Nobody
# chooses two hours, and the look may come late after the last segment.
DEFAULT_SLACK_S = 60.0
# An exception that comes this soon after the kernel's verdict comes from it.
PROMPT_S = 0.100


# --- what they share ----------------------------------------------------------------------


def hit_at(seen: Observation) -> float:
    return seen.hit.at if seen.hit else float("-inf")


def since(seen: Observation, event: Event) -> str:
    """How long after the fault an event came."""
    return duration(max(event.at - hit_at(seen), 0.0))


def last_look(seen: Observation) -> Event | None:
    """The witness's last look at a client's socket before the rescue touched it."""
    limit = seen.rescued_at if seen.rescued_at is not None else float("inf")
    looks = [
        event for event in seen.events if event.kind in LOOKS and hit_at(seen) <= event.at < limit
    ]
    return looks[-1] if looks else None


def end_of_kernel(seen: Observation) -> Event | None:
    """The client's kernel giving up after the fault, and not because of the rescue's RST."""
    limit = seen.rescued_at if seen.rescued_at is not None else float("inf")
    for event in seen.events:
        if gave_up(event) and seen.hit and seen.hit.at <= event.at < limit:
            return event
    return None


def reopened(seen: Observation) -> Event | None:
    """The first connection that was opened after the fault."""
    for event in seen.events:
        if event.kind == "opened" and seen.hit is not None and event.at > seen.hit.at:
            return event
    return None


def ended_at(seen: Observation) -> float:
    """When the wait was over, by itself or by the rescue."""
    if seen.rescued_at is not None:
        return seen.rescued_at
    return seen.noticed_at if seen.noticed_at is not None else seen.ended_at


def settings(seen: Observation) -> str:
    """The cure of a client whose kernel is too slow: exact settings."""
    limit = seen.window.latest
    wanted = seen.promise or keepalive_for(limit)
    if wanted is None:
        slowest = idle_window(FASTEST).latest
        return (
            "give the client a read timeout or a heartbeat, or widen within= to "
            f"{slowest:.2f} s and set SO_KEEPALIVE=1, TCP_KEEPIDLE=1, TCP_KEEPINTVL=1, "
            "TCP_KEEPCNT=1: no keepalive is faster"
        )
    options = (
        f"SO_KEEPALIVE=1, TCP_KEEPIDLE={wanted.idle}, TCP_KEEPINTVL={wanted.interval}, "
        f"TCP_KEEPCNT={wanted.probes}"
    )
    if wanted.user_timeout:
        options += f", TCP_USER_TIMEOUT={wanted.user_timeout_ms}"
    return (
        f"set {options} on the client's socket (Keepalive(idle={wanted.idle}, "
        f"interval={wanted.interval}, probes={wanted.probes}).socket_options() gives them)"
    )


def cure_of_writes(seen: Observation) -> float:
    """``TCP_USER_TIMEOUT`` in seconds, as short as the promise wants it, or as is sensible."""
    return user_timeout_for(seen.window.latest) or 0.1


# --- what the client's process did --------------------------------------------------------


def spinning(seen: Observation) -> Found | None:
    if seen.health is None or seen.hit is None or seen.noticed_at_all:
        return None
    told = end_of_kernel(seen)
    begun = told.at if told else seen.hit.at
    until = ended_at(seen)
    share = seen.health.busy_between(begun, until)
    if share < SPINNING:
        return None
    after = f", after its kernel had given the connection up {since(seen, told)}" if told else ""
    return {
        "share": f"{share:.0%}",
        "seconds": duration(until - begun),
        "after": f"{after} after the fault" if told else "",
    }


def loop_blocked(seen: Observation) -> Found | None:
    if seen.health is None or seen.hit is None:
        return None
    lag = seen.health.loop_blocked(seen.hit.at, ended_at(seen))
    if lag is None:
        return None
    return {"seconds": duration(lag.seconds), "at": duration(lag.at - seen.hit.at)}


def told_and_silent(seen: Observation) -> Found | None:
    told = end_of_kernel(seen)
    if told is None or (seen.noticed_at_all and _by_the_kernel(seen, told)):
        return None
    return {"at": since(seen, told)}


def _by_the_kernel(seen: Observation, told: Event) -> bool:
    """Whether the exception came with the kernel's verdict: then it was not swallowed."""
    prompt = seen.noticed_at is not None and seen.noticed_at - told.at < PROMPT_S
    return prompt or (seen.error is not None and seen.error.code in causes.DEAD)


def own_timeout_late(seen: Observation) -> Found | None:
    if mechanism(seen) is not Mechanism.OWN_TIMEOUT or seen.after is None:
        return None
    promised = duration(seen.window.latest)
    return {
        "after": duration(seen.after),
        "promised": promised,
        "settings": settings(seen),
    }


def own_timeout_early(seen: Observation) -> Found | None:
    if mechanism(seen) is not Mechanism.OWN_TIMEOUT or seen.after is None:
        return None
    return {"after": duration(seen.after), "promised": duration(seen.window.earliest)}


def closed_by_client(seen: Observation) -> Found | None:
    look = last_look(seen)
    if look is None or end_of_kernel(seen):
        return None
    closed = look.kind == "client_closed" or str(look.get("state", "")).startswith("fin-wait")
    return {} if closed else None


def reconnected(seen: Observation) -> Found | None:
    opened = reopened(seen)
    return None if opened is None else {"at": since(seen, opened)}


def reconnected_ghost(seen: Observation) -> Found | None:
    opened = reopened(seen)
    held = [event for event in seen.events if event.kind == "ghost"]
    if opened is None or not any(event.at >= opened.at for event in held):
        return None
    return {"at": since(seen, opened)}


# --- what the fault was -------------------------------------------------------------------


def stalled(seen: Observation) -> Found | None:
    return {} if seen.fault in ("stall", "time_out") else None


def fin_unread(seen: Observation) -> Found | None:
    look = last_look(seen)
    if look is None or look.get("state") != "close-wait" or look.kind == "client_closed":
        return None
    first = next(
        event
        for event in seen.events
        if event.get("state") == "close-wait" and event.at >= hit_at(seen)
    )
    return {"at": since(seen, first)}


def reset_unread(seen: Observation) -> Found | None:
    told = seen.fault in ("reset", "evict_reset_both")
    return {} if told and seen.rescued_at is not None and reopened(seen) is None else None


def connect_unanswered(seen: Observation) -> Found | None:
    """Only for a client that was still trying: any other may not have tried to connect."""
    waiting = seen.rescued_at is not None
    return {} if waiting and seen.fault == "ignore_connections" else None


def connect_refused(seen: Observation) -> Found | None:
    waiting = seen.rescued_at is not None
    return {} if waiting and seen.fault == "refuse_connections" else None


# --- what the client's kernel was doing ---------------------------------------------------


def zero_window(seen: Observation) -> Found | None:
    look = last_look(seen)
    if look is None or look["timer"] != "persist":
        return None
    return {
        "bytes": bytes_were(look["unacknowledged"]),
        "user_timeout_ms": str(round(cure_of_writes(seen) * 1000)),
    }


def nothing_to_wait_for(seen: Observation) -> Found | None:
    return {} if seen.fault == "stop_reading" else None


def _retransmitting(seen: Observation) -> Event | None:
    look = last_look(seen)
    return look if look is not None and look["timer"] == "retransmit" else None


def user_timeout_too_long(seen: Observation) -> Found | None:
    look, client = _retransmitting(seen), seen.client
    if look is None or client is None or not client.user_timeout:
        return None
    return {
        "bytes": bytes_were(look["unacknowledged"]),
        "user_timeout_ms": str(client.user_timeout_ms),
        "nominal": duration(unacknowledged_window(client).nominal),
        "promised": duration(seen.window.latest),
        "cure_ms": str(round(cure_of_writes(seen) * 1000)),
    }


def unacknowledged(seen: Observation) -> Found | None:
    look = _retransmitting(seen)
    if look is None:
        return None
    cure = cure_of_writes(seen)
    return {
        "bytes": bytes_were(look["unacknowledged"]),
        "cure": f"{cure:g}",
        "cure_ms": str(round(cure * 1000)),
    }


def keepalive_off(seen: Observation) -> Found | None:
    look = last_look(seen)
    if look is None or look["timer"] != "off" or look.kind == "client_closed":
        return None
    return {"settings": settings(seen)}


def _due(seen: Observation) -> tuple[Event, float] | None:
    """The look at a running keepalive timer, and when that is due after the fault."""
    look = last_look(seen)
    if look is None or look["timer"] != "keepalive" or "expires" not in look.fields:
        return None
    return look, look.at + look["expires"] - (seen.hit.at if seen.hit else look.at)


def keepalive_defaults(seen: Observation) -> Found | None:
    due = _due(seen)
    if due is None:
        return None
    look, seconds = due
    client = seen.client
    if client is not None:
        numbers = (client.idle, client.interval, client.probes, client.user_timeout)
        if numbers != (DEFAULTS.idle, DEFAULTS.interval, DEFAULTS.probes, 0):
            return None
    elif look["unanswered"] or seconds < DEFAULTS.idle - DEFAULT_SLACK_S:
        return None
    return {
        "nominal": duration(idle_window(DEFAULTS).nominal),
        "due": f"; the first probe was due {duration(seconds)} after the fault",
        "settings": settings(seen),
    }


def user_timeout_replaced_count(seen: Observation) -> Found | None:
    client, look = seen.client, last_look(seen)
    if client is None or not client.enabled or not client.user_timeout or look is None:
        return None
    counted = Keepalive(idle=client.idle, interval=client.interval, probes=client.probes)
    nominal, without = idle_window(client).nominal, idle_window(counted).nominal
    if look["timer"] != "keepalive" or nominal == without:
        return None
    return {
        "user_timeout_ms": str(client.user_timeout_ms),
        "idle": str(client.idle),
        "interval": str(client.interval),
        "probes": str(client.probes),
        "nominal": duration(nominal),
        "without": duration(without),
        "matching_ms": str(round(without * 1000)),
    }


def probe_not_due(seen: Observation) -> Found | None:
    due = _due(seen)
    if due is None:
        return None
    look, seconds = due
    count = look["unanswered"]
    known = ""
    if seen.client is not None and seen.client.enabled:
        known = f" ({seen.client}, {duration(idle_window(seen.client).nominal)})"
    return {
        "known": known,
        "which": f"after {count} unanswered, the next probe" if count else "the first probe",
        "due": duration(seconds),
        "settings": settings(seen),
    }
