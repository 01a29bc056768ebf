"""What a run in virtual time knows of itself: where code runs, and who waits for what.

Owns the tie between trio's clock and the network's, the host that a task runs on, and the
list of waits from which a standstill is explained. The sockets are :mod:`.sockets`', the
driver :mod:`.run`'s.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import trio

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.virtual.host import HERE, Host
from pytest_tcpresilience.virtual.network import Network


@dataclass(frozen=True)
class Wait:
    """A task that waits for the network. :param what: in words."""

    task: str
    host: str
    what: str

    def __str__(self) -> str:
        return f"{self.task} on {self.host} waits {self.what}"


def in_trio() -> bool:
    """Whether trio runs in this thread. (``in_trio_run()`` is younger than trio 0.25.)"""
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        return False
    return True


class World:
    """One run of trio on one network.

    :param home: the host that code runs on where nothing else is said.
    """

    def __init__(self, network: Network, home: Host) -> None:
        self.network = network
        self.home = home
        self.running = False
        self._epoch = 0.0
        self._waits: dict[int, Wait] = {}
        self._numbers = itertools.count()

    # --- time ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Zero of the network's time is now."""
        self._epoch = trio.current_time() - self.network.now
        self.running = True

    def sync(self) -> None:
        """Bring the network to trio's time.

        :raises UsageError: outside the run.
        """
        self.check()
        self.network.advance(trio.current_time() - self._epoch)

    def trio_time(self, at: float) -> float:
        return self._epoch + at

    def check(self) -> None:
        """:raises UsageError: outside the run."""
        if not self.running or not in_trio():
            raise UsageError(
                "a virtual network was used outside its run",
                expected="virtual sockets only where virtual time passes: in virtual_tcp.run(...), "
                "in an async test that has the fixture, or under `async with virtual_tcp`",
                happened="no run of this network is in progress",
                advice="open and close virtual connections inside the run",
            )

    # --- places --------------------------------------------------------------------------

    @property
    def here(self) -> Host:
        """The host that the current task runs on: the innermost ``with host:``."""
        host = HERE.get()
        return host if host is not None and host.network is self.network else self.home

    # --- waiting -------------------------------------------------------------------------

    @contextlib.contextmanager
    def waiting(self, host: Host, what: str) -> Iterator[None]:
        number = next(self._numbers)
        task = trio.lowlevel.current_task().name.rpartition(".")[2]
        self._waits[number] = Wait(task, host.name, what)
        try:
            yield
        finally:
            del self._waits[number]

    @property
    def waits(self) -> list[Wait]:
        return list(self._waits.values())
