"""A hop of our own in front of a real Toxiproxy.

Owns which of the two a call is for. A link on a chain is two proxies of the same name: the
client connects to our engine's, which does what lies below the byte stream, observes and
rescues; that one's upstream is Toxiproxy's, where the stream toxics really happen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pytest_tcpresilience.control.engine import Engine
from pytest_tcpresilience.control.toxiproxy import ToxiproxyServer
from pytest_tcpresilience.engine_choice import TOXIPROXY
from pytest_tcpresilience.errors import EngineDied, FaultUnavailable, HarnessError
from pytest_tcpresilience.kernel.sockdiag import Address

if TYPE_CHECKING:
    from toxiproxy import Toxiproxy

# Toxiproxy's own types. Ours, which it does not know, are the hop's.
STREAM_TOXICS = frozenset(
    ("latency", "bandwidth", "slow_close", "timeout", "reset_peer", "slicer", "limit_data")
)


class Chain:
    """What links and fixtures hold in place of an :class:`.Engine`."""

    def __init__(self, hop: Engine, server: ToxiproxyServer) -> None:
        self.hop = hop
        self.server = server
        # The toxics that are in Toxiproxy, by link.
        self._toxics: dict[str, set[str]] = {}

    # --- as of the hop -------------------------------------------------------------------

    @property
    def links(self) -> dict[str, Address]:
        return self.hop.links

    @property
    def name(self) -> str:
        return f"{TOXIPROXY} {self.server.version}"

    @property
    def alive(self) -> bool:
        return self.hop.alive

    @property
    def port(self) -> int:
        return self.hop.port

    @property
    def pid(self) -> int:
        return self.hop.pid

    def death(self) -> EngineDied:
        return self.hop.death()

    @property
    def death_is_reported(self) -> bool:
        return self.hop.death_is_reported

    def stop(self) -> None:
        self.server.close()
        self.hop.stop()

    # --- calls ---------------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        patience_s: float = 0.0,
    ) -> Any:
        """As :meth:`.Engine.call`, to whichever of the two it is for."""
        parts = [unquote(part) for part in path.partition("?")[0].strip("/").split("/")]
        if parts[0] == "proxies":
            if len(parts) == 1 and method == "POST" and body is not None:
                return self._create(body)
            if len(parts) == 2 and method == "DELETE":
                return self._delete(parts[1], path)
            if len(parts) > 2 and self._is_stream_toxic(parts, body):
                return self._call_server(method, parts, path, body)
        return self.hop.call(method, path, body, patience_s=patience_s)

    def _create(self, body: dict[str, Any]) -> Any:
        name = str(body["name"])
        behind = self.server.open(name, str(body["upstream"]))
        # Should this process end without a word, the engine deletes the other one.
        there = {"host": self.server.host, "port": self.server.port, "proxy": name}
        try:
            made = self.hop.call("POST", "/proxies", {**body, "upstream": behind, "behind": there})
        except BaseException:
            with contextlib.suppress(HarnessError):
                self.server.delete(name)
            raise
        self._toxics[name] = set()
        return made

    def _delete(self, name: str, path: str) -> None:
        self._toxics.pop(name, None)
        # In this order: should this process be killed in between, the engine still knows.
        try:
            self.server.delete(name)
        finally:
            self.hop.call("DELETE", path)

    def _is_stream_toxic(self, parts: list[str], body: dict[str, Any] | None) -> bool:
        if len(parts) == 4:
            return parts[3] in self._toxics.get(parts[1], ())
        return body is not None and body.get("type") in STREAM_TOXICS

    def _call_server(
        self, method: str, parts: list[str], path: str, body: dict[str, Any] | None
    ) -> Any:
        link = parts[1]
        if body is not None and (body.get("attributes") or {}).get("connection"):
            raise FaultUnavailable(
                "Toxiproxy cannot act on one connection",
                expected="a toxic on the whole link",
                happened=f"{body.get('type')} was asked for on one connection",
                advice="use a link for each connection, or the embedded engine",
            )
        below = path.partition(parts[0] + "/")[2].partition("/")[2]
        answer = self.server.call_proxy(link, method, f"/{below}", body)
        if method == "POST" and len(parts) == 3:
            self._toxics[link].add(str(answer["name"]))
        elif method == "DELETE":
            self._toxics[link].discard(parts[3])
        return answer

    @contextlib.contextmanager
    def toxiproxy(self) -> Iterator[Toxiproxy]:
        """toxiproxy-python's object for the real server."""
        with self.server.toxiproxy() as server:
            yield server
