"""Which recipes work on this machine, found by trying each one.

Owns the probe: a loopback pair for each address family, each recipe applied and its
effect looked at, never a kernel version. It takes a few milliseconds, sends nothing
beyond loopback, and leaves nothing behind.
"""

from __future__ import annotations

import platform
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

from pytest_tcpresilience.kernel import counts, cuts, oneway
from pytest_tcpresilience.kernel.sockdiag import SockDiag

LOOPBACKS = {"IPv4": "127.0.0.1", "IPv6": "::1"}


class _NoEffect(Exception):
    """The call succeeded and the wire did not change."""


@dataclass(frozen=True)
class Pair:
    """Both ends of a loopback connection, and the listener it came through."""

    listener: socket.socket
    client: socket.socket
    accepted: socket.socket


@dataclass(frozen=True)
class Capabilities:
    """What was found: for each recipe, ``None`` when it works, else the reason.

    :param missing: recipe to reason, for what does not work.
    :param notes: what else is worth a word, such as a machine without IPv6.
    """

    missing: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def lacks(self, needs: tuple[str, ...]) -> str | None:
        """Why a fault that needs these recipes cannot be produced, or ``None``."""
        reasons = [f"{need}: {self.missing[need]}" for need in needs if need in self.missing]
        return "; ".join(reasons) or None


@contextmanager
def loopback_pair(address: str) -> Iterator[Pair]:
    """A connected loopback pair that has exchanged nothing.

    :raises OSError: when the machine has no such loopback.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        listener.settimeout(1.0)
        with socket.create_connection(listener.getsockname()[:2], timeout=1.0) as client:
            accepted, _ = listener.accept()
            with accepted:
                client.settimeout(0)
                accepted.settimeout(0)
                yield Pair(listener, client, accepted)


def _arrives(sender: socket.socket, receiver: socket.socket) -> bool:
    # On loopback a segment is delivered within the sender's system call, so looking
    # once is enough and nothing has to wait.
    sender.send(b"?")
    try:
        receiver.recv(1)
    except BlockingIOError:
        return False
    return True


def _try_silence(pair: Pair) -> None:
    cuts.silence(pair.accepted)
    if _arrives(pair.client, pair.accepted) or _arrives(pair.accepted, pair.client):
        raise _NoEffect


def _try_heal(pair: Pair) -> None:
    cuts.silence(pair.accepted)
    cuts.heal(pair.accepted)
    if not (_arrives(pair.client, pair.accepted) and _arrives(pair.accepted, pair.client)):
        raise _NoEffect


def _try_settle(pair: Pair) -> None:
    # Off first, or a new connection acknowledges at once and there is nothing to see.
    pair.accepted.setsockopt(socket.IPPROTO_TCP, cuts.TCP_QUICKACK, 0)
    _arrives(pair.client, pair.accepted)
    cuts.acknowledge_now(pair.accepted)
    if cuts.unacknowledged(pair.client):
        raise _NoEffect


def _try_reset(pair: Pair) -> None:
    cuts.reset(pair.accepted)
    try:
        pair.client.recv(1)
    except ConnectionResetError:
        return
    except BlockingIOError:
        pass
    raise _NoEffect


def _try_evict(pair: Pair) -> None:
    cuts.evict(pair.accepted)
    try:
        pair.client.send(b"?")
        pair.client.recv(1)
    except ConnectionResetError:
        return
    except BlockingIOError:
        pass
    raise _NoEffect


def _try_finish(pair: Pair) -> None:
    cuts.finish(pair.accepted)
    try:
        if pair.client.recv(1) == b"":
            return
    except BlockingIOError:
        pass
    raise _NoEffect


def _try_silence_listener(pair: Pair) -> None:
    cuts.silence_listener(pair.listener)
    with socket.socket(pair.listener.family) as client:
        client.settimeout(0)
        client.connect_ex(pair.listener.getsockname()[:2])
        if client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO) == 1:
            raise _NoEffect
    cuts.heal_listener(pair.listener)


def _try_deafen(pair: Pair) -> None:
    oneway.deafen(pair.accepted)
    if not _arrives(pair.accepted, pair.client) or _arrives(pair.client, pair.accepted):
        raise _NoEffect


def _try_mute(pair: Pair) -> None:
    oneway.mute(pair.accepted)
    if not _arrives(pair.client, pair.accepted) or _arrives(pair.accepted, pair.client):
        raise _NoEffect


def _try_count(pair: Pair) -> None:
    before = counts.segments_in(pair.accepted)
    _arrives(pair.client, pair.accepted)
    if counts.segments_in(pair.accepted) == before:
        raise _NoEffect


def _try_witness(pair: Pair) -> None:
    with SockDiag() as diag:
        local = pair.client.getsockname()[:2]
        if diag.lookup(local, pair.listener.getsockname()[:2]) is None:
            raise _NoEffect


# In this order on one pair: what leaves it usable first. `heal` precedes `silence`, whose
# lost byte would hold up later ones until it is retransmitted.
SHARED_PAIR: dict[str, Callable[[Pair], None]] = {
    "settle": _try_settle,
    "count": _try_count,
    "witness": _try_witness,
    "silence_listener": _try_silence_listener,
    "heal": _try_heal,
    "silence": _try_silence,
}
OWN_PAIR: dict[str, Callable[[Pair], None]] = {
    "deafen": _try_deafen,
    "mute": _try_mute,
    "evict": _try_evict,
    "reset": _try_reset,
    "finish": _try_finish,
}
RECIPES = SHARED_PAIR | OWN_PAIR
# The others need what only Linux has.
PORTABLE = frozenset({"reset", "finish"})
# What a user can do something about, by recipe.
INTERFACES = {
    "settle": "TCP_QUICKACK and SIOCOUTQ",
    "silence": "TCP_MD5SIG",
    "heal": "TCP_MD5SIG",
    "silence_listener": "TCP_MD5SIG_EXT",
    "deafen": "IP_MINTTL and IPV6_MINHOPCOUNT",
    "mute": "IP_OPTIONS and IPV6_RTHDR",
    "count": "TCP_INFO",
    "evict": "SO_BINDTOIFINDEX",
    "reset": "SO_LINGER",
    "finish": "shutdown",
    "witness": "NETLINK_SOCK_DIAG",
}


def _reason(recipe: str, family: str, error: Exception) -> str:
    what = "has no effect" if isinstance(error, _NoEffect) else str(error)
    return f"{INTERFACES[recipe]} ({family}): {what}"


def _attempt(recipes: Iterable[str], pair: Pair, family: str, missing: dict[str, str]) -> None:
    for recipe in recipes:
        try:
            RECIPES[recipe](pair)
        except (OSError, _NoEffect) as error:
            missing.setdefault(recipe, _reason(recipe, family, error))


def _probe_family(family: str, missing: dict[str, str]) -> str | None:
    try:
        with loopback_pair(LOOPBACKS[family]) as pair:
            _attempt(SHARED_PAIR, pair, family, missing)
        for recipe in OWN_PAIR:
            with loopback_pair(LOOPBACKS[family]) as pair:
                _attempt([recipe], pair, family, missing)
    except OSError as error:
        return f"no {family} loopback ({error.strerror or error})"
    return None


@cache
def probe() -> Capabilities:
    """Try every recipe once, for IPv4 and for IPv6 where the machine has it."""
    if not sys.platform.startswith("linux"):
        reason = f"needs Linux, this is {sys.platform}"
        return Capabilities(dict.fromkeys(RECIPES.keys() - PORTABLE, reason))
    missing: dict[str, str] = {}
    notes = [note for family in LOOPBACKS if (note := _probe_family(family, missing))]
    if len(notes) == len(LOOPBACKS):
        missing = dict.fromkeys(RECIPES, "no loopback interface is up")
    return Capabilities(missing, tuple(notes))


def kernel_name() -> str:
    """System and release, as the header of a run shows them."""
    return f"{platform.system()} {platform.release().partition('-')[0]}"
