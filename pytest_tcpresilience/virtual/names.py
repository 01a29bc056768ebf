"""Names of a virtual network: who is called what, as trio's resolver hook asks for it."""

from __future__ import annotations

import socket as stdlib
from typing import Any

import trio

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.virtual.host import ANY, LOOPBACK, Host
from pytest_tcpresilience.virtual.world import World


def resolve(world: World, asking: Host, name: str) -> str:
    """A name, or an address as text, as an address.

    :raises UnknownHost: for a name that nobody has.
    """
    if name in ("localhost", ""):
        return LOOPBACK
    host = world.network.hosts.get(name)
    if host is not None:
        return host.address
    try:
        return stdlib.inet_ntoa(stdlib.inet_pton(stdlib.AF_INET, name))
    except OSError:
        raise UnknownHost(name, world.network.hosts) from None


class UnknownHost(UsageError, stdlib.gaierror):
    """A name that no host of the network has. Also what a real resolver raises."""

    def __init__(self, name: str, known: Any) -> None:
        super().__init__(
            f"no host is called {name!r} in this virtual network",
            expected=f"one of {', '.join(known)}, an IPv4 address of one, or localhost",
            happened=f"{name!r} was looked up",
            advice=f"make one: virtual_tcp.host({name!r})",
        )
        self.errno = stdlib.EAI_NONAME


class Names(trio.abc.HostnameResolver):
    """For ``trio.socket.set_custom_hostname_resolver``."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[tuple[Any, Any, int, str, Any]]:
        await trio.lowlevel.checkpoint()
        self._world.check()
        if host is None:
            ip = ANY if flags & stdlib.AI_PASSIVE else LOOPBACK
        else:
            ip = resolve(self._world, self._world.here, bytes(host).decode("ascii"))
        if family not in (0, stdlib.AF_INET):
            raise stdlib.gaierror(stdlib.EAI_FAMILY, "a virtual network has IPv4 only")
        number = int(port) if port is not None else 0
        return [(stdlib.AF_INET, stdlib.SOCK_STREAM, stdlib.IPPROTO_TCP, "", (ip, number))]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        await trio.lowlevel.checkpoint()
        self._world.check()
        ip, port = sockaddr[:2]
        host = self._world.network.owner(ip, self._world.here)
        named = host is not None and not flags & stdlib.NI_NUMERICHOST
        return (host.name if named and host else ip), str(port)
