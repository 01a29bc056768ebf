"""The API: Toxiproxy's routes and ours, as one table.

Owns the proxies by name, and the translation between requests and calls. It knows no
socket. Ours live under ``/resilience/`` so that they can never meet one of Toxiproxy's.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from pytest_tcpresilience.engine import bodies, endpoints, errors, metrics
from pytest_tcpresilience.engine.bodies import WantedProxy
from pytest_tcpresilience.engine.errors import ApiError
from pytest_tcpresilience.engine.farewell import Behind
from pytest_tcpresilience.engine.http import Request, Response
from pytest_tcpresilience.engine.metrics import Sample
from pytest_tcpresilience.engine.neighbour import Neighbour
from pytest_tcpresilience.engine.proxy import Proxy
from pytest_tcpresilience.engine.vigil import Vigil
from pytest_tcpresilience.engine.watch import Terms, Watch

# The version whose API this is; Toxiproxy's clients choose PATCH or POST by it.
TOXIPROXY_API = "2.12.0"
# A long poll returns by then, so that a client's HTTP timeout can be shorter than a wait.
LONGEST_POLL_S = 20.0

Route = Callable[["Api", Request, dict[str, str]], Awaitable[Response]]


def _json(document: Any, status: int = 200) -> Response:
    return Response(status, json.dumps(document, separators=(",", ":")).encode())


class Api:
    """The engine's state and its routes.

    :param nursery: takes the proxies' tasks.
    :param version: of this package.
    :param seed: of all that is random; with the same one, the same connections of the
        proxies of the same names have the same luck.
    :param proxy_metrics: whether ``/metrics`` is there.
    :param neighbour: the Toxiproxy server of a test session; without one, nobody can have
        programs started here, nor requests sent to other servers.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        version: str,
        *,
        seed: int,
        proxy_metrics: bool = False,
        neighbour: Neighbour | None = None,
    ) -> None:
        self._nursery = nursery
        self._version = version
        self._seed = seed
        self._metrics = proxy_metrics
        self._neighbour = neighbour
        self._proxies: dict[str, Proxy] = {}
        self._vigil = Vigil()
        nursery.start_soon(self._vigil.run)
        self._watches: dict[str, Watch] = {}

    @property
    def seed(self) -> int:
        return self._seed

    async def handle(self, request: Request) -> Response:
        """Find the route and call it.

        :raises ApiError: 404 for an unknown path, 405 for a method that it lacks.
        """
        methods: set[str] = set()
        for method, pattern, route in ROUTES:
            names = _match(pattern, request.path)
            if names is None:
                continue
            if method == request.method:
                return await route(self, request, names)
            methods.add(method)
        if methods:
            return Response(405)
        raise errors.not_found()

    def end(self) -> list[Behind]:
        """End all proxies.

        :returns: what they leave on another server.
        """
        proxies = list(self._proxies.values())
        for proxy in proxies:
            self._end_proxy(proxy)
        return [proxy.behind for proxy in proxies if proxy.behind is not None]

    def _proxy(self, names: dict[str, str]) -> Proxy:
        try:
            return self._proxies[names["proxy"]]
        except KeyError:
            raise errors.proxy_not_found() from None

    # --- Toxiproxy's ---------------------------------------------------------------------

    async def list_proxies(self, request: Request, names: dict[str, str]) -> Response:
        return _json({name: proxy.document() for name, proxy in self._proxies.items()})

    async def create_proxy(self, request: Request, names: dict[str, str]) -> Response:
        body = bodies.parse_object(request.body)
        wanted = WantedProxy.from_json(body)
        if wanted.name in self._proxies:
            raise errors.proxy_exists()
        behind = Behind.from_json(body.get("behind")) if self._neighbour is not None else None
        proxy = await self._create(wanted)
        proxy.behind = behind
        return _json(proxy.document(), 201)

    async def _create(self, wanted: WantedProxy) -> Proxy:
        seed = f"{self._seed}/{wanted.name}"
        proxy = Proxy(wanted.name, wanted.listen, wanted.upstream, seed, self._vigil)
        self._proxies[wanted.name] = proxy
        await self._nursery.start(proxy.run)
        try:
            if wanted.enabled:
                await proxy.enable()
            elif wanted.keep_port:
                await proxy.keep_port()
        except ApiError:
            self._end_proxy(proxy)
            raise
        return proxy

    async def populate(self, request: Request, names: dict[str, str]) -> Response:
        """Answers with what there is after it, also when a proxy could not be made."""
        made: list[Proxy] = []
        document: dict[str, Any] = {}
        status = 201
        try:
            await self.make_all(bodies.parse(request.body), made)
        except ApiError as error:
            status = error.status
            document = {"error": error.message, "status": error.status}
        document["proxies"] = [proxy.document() for proxy in made]
        return _json(document, status)

    async def make_all(self, document: object, made: list[Proxy] | None = None) -> None:
        """Make the proxies of a list, and replace those whose addresses differ.

        :param made: takes the proxies of the list, made or found.
        :raises ApiError: for the first one that cannot be made; those before it stay.
        """
        for wanted in bodies.parse_proxies(document):
            proxy = self._proxies.get(wanted.name)
            if proxy is None or not proxy.is_at(wanted.listen, wanted.upstream):
                if proxy is not None:
                    self._end_proxy(proxy)
                proxy = await self._create(wanted)
            if made is not None:
                made.append(proxy)

    async def show_proxy(self, request: Request, names: dict[str, str]) -> Response:
        return _json(self._proxy(names).document())

    async def update_proxy(self, request: Request, names: dict[str, str]) -> Response:
        """New ``listen`` or ``upstream`` restart the proxy, as in Toxiproxy."""
        proxy, body = self._proxy(names), bodies.parse_object(request.body)
        listen = bodies.text(body, "listen", proxy.listen) or proxy.listen
        upstream = bodies.text(body, "upstream", proxy.upstream) or proxy.upstream
        enabled = bodies.flag(body, "enabled", proxy.enabled)
        keep_port = bodies.flag(body, "keep_port", False)
        # Both before anything changes: a mistake must not cost the proxy its connections.
        endpoints.split_address(listen, "listen")
        endpoints.split_address(upstream, "upstream")
        if (listen, upstream) != (proxy.listen, proxy.upstream):
            proxy.disable()
            proxy.aim(listen, upstream)
        if enabled:
            await proxy.enable()
        elif keep_port:
            await proxy.keep_port()
        elif proxy.enabled:
            proxy.disable()
        return _json(proxy.document())

    async def delete_proxy(self, request: Request, names: dict[str, str]) -> Response:
        self._end_proxy(self._proxy(names))
        return Response(204)

    def _end_proxy(self, proxy: Proxy) -> None:
        if self._proxies.get(proxy.name) is proxy:  # else the name is another's by now
            del self._proxies[proxy.name]
            self._end_watch(proxy.name)
        proxy.end()

    async def list_toxics(self, request: Request, names: dict[str, str]) -> Response:
        return _json([active.document() for active in self._proxy(names).toxics.values()])

    async def create_toxic(self, request: Request, names: dict[str, str]) -> Response:
        active = await self._proxy(names).add_toxic(bodies.parse_object(request.body))
        return _json(active.document())

    async def show_toxic(self, request: Request, names: dict[str, str]) -> Response:
        toxics = self._proxy(names).toxics
        if names["toxic"] not in toxics:
            raise errors.toxic_not_found()
        return _json(toxics[names["toxic"]].document())

    async def update_toxic(self, request: Request, names: dict[str, str]) -> Response:
        active = self._proxy(names).update_toxic(names["toxic"], bodies.parse_object(request.body))
        return _json(active.document())

    async def delete_toxic(self, request: Request, names: dict[str, str]) -> Response:
        await self._proxy(names).remove_toxic(names["toxic"])
        return Response(204)

    async def reset(self, request: Request, names: dict[str, str]) -> Response:
        """Enable all proxies and remove all toxics."""
        for proxy in list(self._proxies.values()):
            for toxic in list(proxy.toxics):
                with contextlib.suppress(ApiError):  # somebody else has removed it just now
                    await proxy.remove_toxic(toxic)
            await proxy.enable()
        return Response(204)

    async def version(self, request: Request, names: dict[str, str]) -> Response:
        document = {
            "version": TOXIPROXY_API,
            "engine": f"pytest-tcpresilience {self._version}",
            "seed": self._seed,
        }
        return Response(200, json.dumps(document).encode(), "application/json;charset=utf-8")

    async def engine(self, request: Request, names: dict[str, str]) -> Response:
        """Which process this is."""
        return _json({"pid": os.getpid(), "version": self._version, "seed": self._seed})

    async def start_toxiproxy(self, request: Request, names: dict[str, str]) -> Response:
        """Start a real Toxiproxy, or find the one that was started; where it answers."""
        if self._neighbour is None:
            raise errors.not_found()
        program = bodies.text(bodies.parse_object(request.body), "program")
        return _json({"port": await self._neighbour.start(program)})

    async def metrics(self, request: Request, names: dict[str, str]) -> Response:
        """What has crossed the proxies so far; unknown unless it was switched on."""
        if not self._metrics:
            raise errors.not_found()
        samples = [
            Sample(proxy.name, proxy.listen, proxy.upstream, proxy.traffic)
            for proxy in self._proxies.values()
        ]
        return Response(200, metrics.render(samples), metrics.CONTENT_TYPE)

    # --- ours ----------------------------------------------------------------------------

    async def events(self, request: Request, names: dict[str, str]) -> Response:
        """Events after number ``after``; waits up to ``wait`` seconds for the first."""
        log = self._proxy(names).events
        try:
            after = int(request.query.get("after", "0"))
            wait_s = float(request.query.get("wait", "0"))
            if math.isnan(wait_s):
                raise ValueError("nan is none")
        except ValueError as error:
            raise ApiError(f"after and wait are numbers: {error}", 400) from error
        return _json(await log.wait_since(after, min(max(wait_s, 0.0), LONGEST_POLL_S)))

    async def connections(self, request: Request, names: dict[str, str]) -> Response:
        """Those that are carried; with ``closed=1`` those that were, before them."""
        proxy = self._proxy(names)
        carried = [each.document() for each in proxy.connections.values()]
        asked = request.query.get("closed", "0")
        if asked not in ("0", "1"):
            raise ApiError("closed is 0 or 1", 400)
        return _json([*proxy.history, *carried] if asked == "1" else carried)

    async def start_watch(self, request: Request, names: dict[str, str]) -> Response:
        proxy = self._proxy(names)
        terms = Terms.parse(bodies.parse_object(request.body))
        if proxy.name in self._watches:
            raise ApiError("this proxy is being watched already", 409)
        watch = self._watches[proxy.name] = Watch(proxy, terms)
        begun = proxy.events.last
        proxy.start_soon(watch.run)
        return _json({"begun": begun}, 201)

    async def end_watch(self, request: Request, names: dict[str, str]) -> Response:
        self._end_watch(self._proxy(names).name)
        return Response(204)

    def _end_watch(self, name: str) -> None:
        watch = self._watches.pop(name, None)
        if watch is not None:
            watch.end()

    async def rescue(self, request: Request, names: dict[str, str]) -> Response:
        self._proxy(names).rescue(
            refuse=bodies.flag(bodies.parse_object(request.body), "refuse", False)
        )
        return Response(204)


def _match(pattern: tuple[str, ...], path: tuple[str, ...]) -> dict[str, str] | None:
    if len(pattern) != len(path):
        return None
    names: dict[str, str] = {}
    for wanted, given in zip(pattern, path, strict=True):
        if wanted.startswith("{"):
            if not given:
                return None
            names[wanted[1:-1]] = given
        elif wanted != given:
            return None
    return names


def _path(pattern: str) -> tuple[str, ...]:
    return tuple(pattern.removeprefix("/").split("/"))


ROUTES: tuple[tuple[str, tuple[str, ...], Route], ...] = (
    ("GET", _path("/proxies"), Api.list_proxies),
    ("POST", _path("/proxies"), Api.create_proxy),
    ("GET", _path("/proxies/{proxy}"), Api.show_proxy),
    ("POST", _path("/proxies/{proxy}"), Api.update_proxy),
    ("PATCH", _path("/proxies/{proxy}"), Api.update_proxy),
    ("DELETE", _path("/proxies/{proxy}"), Api.delete_proxy),
    ("GET", _path("/proxies/{proxy}/toxics"), Api.list_toxics),
    ("POST", _path("/proxies/{proxy}/toxics"), Api.create_toxic),
    ("GET", _path("/proxies/{proxy}/toxics/{toxic}"), Api.show_toxic),
    ("POST", _path("/proxies/{proxy}/toxics/{toxic}"), Api.update_toxic),
    ("PATCH", _path("/proxies/{proxy}/toxics/{toxic}"), Api.update_toxic),
    ("DELETE", _path("/proxies/{proxy}/toxics/{toxic}"), Api.delete_toxic),
    ("POST", _path("/populate"), Api.populate),
    ("GET", _path("/metrics"), Api.metrics),
    ("POST", _path("/reset"), Api.reset),
    ("GET", _path("/version"), Api.version),
    ("GET", _path("/resilience/engine"), Api.engine),
    ("POST", _path("/resilience/toxiproxy"), Api.start_toxiproxy),
    ("GET", _path("/resilience/proxies/{proxy}/events"), Api.events),
    ("GET", _path("/resilience/proxies/{proxy}/connections"), Api.connections),
    ("POST", _path("/resilience/proxies/{proxy}/watch"), Api.start_watch),
    ("DELETE", _path("/resilience/proxies/{proxy}/watch"), Api.end_watch),
    ("POST", _path("/resilience/proxies/{proxy}/rescue"), Api.rescue),
)
