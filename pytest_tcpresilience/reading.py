"""Reads the keepalive settings of clients' sockets: in this process, in others, in any language.

Owns the order in which the evidence is tried: the socket's own options through a second
descriptor, else what its timer alone tells. It changes nothing on any socket. What the
settings are worth is :mod:`pytest_tcpresilience.evidence.promises`'.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from pytest_tcpresilience.evidence.readings import NOT_HERE, KeepaliveReading, by_timer
from pytest_tcpresilience.kernel import owners, procnet
from pytest_tcpresilience.kernel.owners import Denied, Owner
from pytest_tcpresilience.kernel.sockdiag import Address, Listed, SockDiag, SocketState
from pytest_tcpresilience.tcp.keepalive import (
    MAX_IDLE_S,
    MAX_INTERVAL_S,
    MAX_PROBES,
    TCP_KEEPCNT,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_USER_TIMEOUT,
    Keepalive,
)

# Addresses that a listener has and no connection.
ANY = ("0.0.0.0", "::")
_SYSCTL = "/proc/sys/net/ipv4/tcp_keepalive_"


@dataclass(frozen=True)
class Wanted:
    """A connection to read: its number within a link, and its addresses."""

    connection: int
    client: Address
    server: Address


def list_connections(*, remote_port: int = 0) -> list[Listed]:
    """The connections of this network namespace, by sock_diag, else by ``/proc/net/tcp``.

    :param remote_port: only those whose peer has this port; 0 for any.
    :raises OSError: where the system has neither.
    """
    try:
        with SockDiag() as diag:
            return diag.connections(remote_port=remote_port, info=True)
    except (OSError, AttributeError):  # AttributeError: a system without AF_NETLINK
        return procnet.connections(remote_port=remote_port)


def read(wanted: Iterable[Wanted]) -> tuple[KeepaliveReading, ...]:
    """One reading for each connection, in their order, however little could be seen."""
    return tuple(_read_one(each) for each in _locate(list(wanted), None))


def read_clients(server: Address, known: Iterable[Wanted]) -> tuple[KeepaliveReading, ...]:
    """One reading for each client of ``server``.

    :param known: those that the server has accepted. A client believes in its connection
        a little sooner; one that the kernel lists beyond these comes last, as number 0.
    """
    wanted = list(known)
    try:
        listed = list_connections(remote_port=server[1])
    except OSError:
        return read(wanted)
    names = {_plain(one.client) for one in wanted}
    for one in listed:
        here = server[0] in ANY or one.remote[0] == _plain(server)[0]
        if here and one.seen.state == "established" and _plain(one.local) not in names:
            wanted.append(Wanted(0, one.local, server))
    return tuple(_read_one(each) for each in _locate(wanted, listed))


def read_listed(listed: Iterable[Listed]) -> tuple[KeepaliveReading, ...]:
    """One reading for each listed connection, as seen from its local end."""
    each = list(listed)
    found = owners.find([one.seen.inode for one in each])
    return tuple(
        _read_one(_Located(Wanted(0, one.local, one.remote), one.seen, found.get(one.seen.inode)))
        for one in each
    )


def borrow(wanted: Iterable[Wanted]) -> Iterator[tuple[Wanted, socket.socket | Denied]]:
    """Each client's socket through a descriptor of our own, to be closed soon."""
    for each in _locate(list(wanted), None):
        yield each.wanted, _borrow_one(each)


def system_defaults() -> Keepalive:
    """What ``SO_KEEPALIVE`` alone gives in this network namespace."""
    linux = Keepalive.linux_defaults()
    return Keepalive(
        idle=_sysctl("time", linux.idle, MAX_IDLE_S),
        interval=_sysctl("intvl", linux.interval, MAX_INTERVAL_S),
        probes=_sysctl("probes", linux.probes, MAX_PROBES),
    )


def options_of(sock: socket.socket) -> Keepalive:
    """All that is set on a socket.

    The system's defaults may be longer than what a socket can be set to. They are then
    taken for the most that it can be set to, nine hours.

    :raises OSError: when it is closed.
    """

    def read(option: int) -> int:
        return sock.getsockopt(socket.IPPROTO_TCP, option)

    timeout = 0 if TCP_USER_TIMEOUT is None else read(TCP_USER_TIMEOUT)
    return Keepalive(
        idle=_limited(read(TCP_KEEPIDLE), MAX_IDLE_S),
        interval=_limited(read(TCP_KEEPINTVL), MAX_INTERVAL_S),
        probes=_limited(read(TCP_KEEPCNT), MAX_PROBES),
        user_timeout=timeout / 1000,
        enabled=bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)),
    )


def _limited(value: int, most: int) -> int:
    return min(max(value, 1), most)


def _sysctl(name: str, default: int, most: int) -> int:
    try:
        with open(_SYSCTL + name) as file:
            return _limited(int(file.read()), most)
    except (OSError, ValueError):
        return default


@dataclass(frozen=True)
class _Located:
    """What is known of a connection before its socket is touched."""

    wanted: Wanted
    seen: SocketState | None
    owner: Owner | None = None
    unreadable: str = NOT_HERE


def _locate(wanted: list[Wanted], listed: list[Listed] | None) -> list[_Located]:
    """One list of connections and one walk through the processes, for all."""
    ports = {one.server[1] for one in wanted}
    try:
        if listed is None:
            listed = list_connections(remote_port=ports.pop() if len(ports) == 1 else 0)
    except OSError as error:
        why = f"this system has neither sock_diag nor /proc/net/tcp ({error.strerror})"
        return [_Located(one, None, unreadable=why) for one in wanted]
    # By the peer's port alone: the engine may listen on an address that stands for many.
    by_ends = {(_plain(one.local), one.remote[1]): one.seen for one in listed}
    seen = [by_ends.get((_plain(one.client), one.server[1])) for one in wanted]
    found = owners.find([state.inode for state in seen if state is not None])
    return [
        _Located(one, state, found.get(state.inode) if state else None)
        for one, state in zip(wanted, seen, strict=True)
    ]


def _borrow_one(each: _Located) -> socket.socket | Denied:
    if each.seen is None:
        return Denied(owners.Refusal.GONE, each.unreadable)
    if each.owner is None:
        return owners.why_unknown(each.seen.inode, each.seen.uid)
    return owners.borrow(each.owner)


def _read_one(each: _Located) -> KeepaliveReading:
    one, seen = each.wanted, each.seen
    sock = _borrow_one(each)
    why = sock.detail if isinstance(sock, Denied) else ""
    blank = KeepaliveReading(one.client, one.server, one.connection, partial=why)
    if each.owner is not None:
        blank = replace(blank, pid=each.owner.pid, process=each.owner.name)
    if seen is None:
        return blank
    if isinstance(sock, Denied):
        # While a timer's handler runs the timer is not armed, and looks off. Two looks
        # cannot both fall into that moment.
        return by_timer(blank, (_look_again(one) or seen) if seen.timer == "off" else seen)
    with sock:
        settings = options_of(sock)
    return replace(
        blank,
        enabled=settings.enabled,
        idle=settings.idle,
        interval=settings.interval,
        probes=settings.probes,
        user_timeout=settings.user_timeout,
        next_probe_in=seen.expires if seen.timer == "keepalive" else None,
        rto=seen.info.rto if seen.info else None,
    )


def _look_again(wanted: Wanted) -> SocketState | None:
    for one in list_connections(remote_port=wanted.server[1]):
        if _plain(one.local) == _plain(wanted.client):
            return one.seen
    return None


def _plain(address: Address) -> Address:
    """As the kernel's lists write it."""
    host = address[0].partition("%")[0]
    return host.removeprefix("::ffff:") if "." in host else host, address[1]
