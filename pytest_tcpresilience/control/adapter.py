"""toxiproxy-python, as the ``toxiproxy`` fixture hands it out.

The only module that imports it. It keeps a server's address in its class and knows no
time limit for HTTP; both are put right here for as long as a test uses it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from pytest_tcpresilience.errors import HarnessError, UsageError

if TYPE_CHECKING:
    from toxiproxy import Toxiproxy


class Server(Protocol):
    """What is needed of the server behind it."""

    @property
    def alive(self) -> bool: ...

    @property
    def timeout_s(self) -> float: ...

    def call(self, method: str, path: str, body: Any = None) -> Any: ...


def _limited(timeout_s: float) -> Any:
    """What toxiproxy-python uses of requests, with a time limit."""
    import requests

    def with_limit(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: function(*args, **{"timeout": timeout_s, **kwargs})

    return SimpleNamespace(
        get=with_limit(requests.get),
        post=with_limit(requests.post),
        delete=with_limit(requests.delete),
    )


def _server(behind: Server, made: set[str]) -> Toxiproxy:
    from toxiproxy import Toxiproxy

    class BorrowedServer(Toxiproxy):  # type: ignore[misc]
        """toxiproxy-python's server; its own check cannot read credentials."""

        def running(self) -> bool:
            return behind.alive

        def create(self, upstream: str, name: str, **kwargs: Any) -> Any:
            proxy = super().create(upstream, name, **kwargs)
            made.add(name)
            return proxy

    return BorrowedServer()


def _leave_others_alone(server: Toxiproxy, made: set[str], links: Callable[[], set[str]]) -> None:
    """Restrict to one's own what acts on all proxies of a server."""
    populate = server.populate

    def populate_own(proxies: list[dict[str, Any]]) -> Any:
        foreign = {each["name"] for each in proxies} & set(server.proxies()) - made
        if foreign:
            raise UsageError(
                "populate would replace proxies that this test has not made",
                expected="names that nobody else has on the server",
                happened=f"it has {', '.join(sorted(foreign))} already",
                advice="use other names; several runs may share this server",
            )
        return populate(proxies)

    def destroy_own() -> None:
        for name in made & set(server.proxies()):
            server.get_proxy(name).destroy()

    def reset_own() -> bool:
        for name in (made | links()) & set(server.proxies()):
            proxy = server.get_proxy(name)
            proxy.enable()
            for toxic in proxy.toxics():
                proxy.destroy_toxic(toxic)
        return True

    server.populate, server.destroy_all, server.reset = populate_own, destroy_own, reset_own


@contextlib.contextmanager
def borrowed(
    behind: Server, host: str, port: int, *, links: Callable[[], set[str]], shared: bool
) -> Iterator[Toxiproxy]:
    """toxiproxy-python's object for a server at an address.

    At the end its class-wide address is put back, and proxies are destroyed: those that it
    has created, and on a server that is not shared all that are new and no link's.

    :param links: names of the links' proxies.
    :param shared: whether others have proxies on the server as well. It then leaves them
        alone, in ``destroy_all`` and ``reset`` too.
    """
    import toxiproxy.api
    from toxiproxy.api import APIConsumer

    before = APIConsumer.host, APIConsumer.port, toxiproxy.api.requests
    known = set(behind.call("GET", "/proxies"))
    made: set[str] = set()
    server = _server(behind, made)
    if shared:
        _leave_others_alone(server, made, links)
    server.update_api_consumer(host, port)
    toxiproxy.api.requests = _limited(behind.timeout_s)
    try:
        yield server
    finally:
        APIConsumer.host, APIConsumer.port, toxiproxy.api.requests = before
        if behind.alive:
            there = set(behind.call("GET", "/proxies"))
            for name in there & made if shared else there - known - links():
                with contextlib.suppress(HarnessError):
                    behind.call("DELETE", f"/proxies/{quote(name, safe='')}")
