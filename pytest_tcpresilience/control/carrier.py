"""What links, fixtures and expectations ask of whatever carries a link.

Owns the protocol only: an engine of ours is one, and so is the chain of one and a real
Toxiproxy.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from pytest_tcpresilience.errors import EngineDied
from pytest_tcpresilience.kernel.sockdiag import Address

if TYPE_CHECKING:
    from toxiproxy import Toxiproxy


class Carrier(Protocol):
    @property
    def links(self) -> dict[str, Address]:
        """The links that it carries: name to listening address."""
        ...

    @property
    def name(self) -> str:
        """What records call it."""
        ...

    @property
    def alive(self) -> bool: ...

    @property
    def port(self) -> int:
        """Where our engine's API listens, on 127.0.0.1."""
        ...

    @property
    def pid(self) -> int:
        """Of our engine's process."""
        ...

    def death(self) -> EngineDied: ...

    @property
    def death_is_reported(self) -> bool: ...

    def call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        patience_s: float = 0.0,
    ) -> Any:
        """One request of the API; its answer. Errors as :meth:`.Engine.call`."""
        ...

    def toxiproxy(self) -> AbstractContextManager[Toxiproxy]:
        """toxiproxy-python's object for the server where toxics happen."""
        ...

    def stop(self) -> None: ...
