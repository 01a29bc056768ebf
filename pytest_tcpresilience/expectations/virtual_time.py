"""Expectations in virtual time: the network itself watches over the block.

Owns the stages of the rescue on a :class:`VirtualLink`: RST, then no new connections, then
the block is cancelled, at moments of virtual time. No thread and no signal is needed: a
block in virtual time can only wait with await, and whoever waits can be cancelled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import trio

from pytest_tcpresilience.errors import HarnessError
from pytest_tcpresilience.evidence.health import Health
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.expectations.interrupt import Interrupter
from pytest_tcpresilience.expectations.lifeguard import GRACE_S, REPEAT_S
from pytest_tcpresilience.expectations.surroundings import Surroundings
from pytest_tcpresilience.faults import ONCE
from pytest_tcpresilience.virtual.link import VirtualLink

# The setting hit_timeout is for people who wait. Here a fault may take its time; a run in
# which nothing can happen any more ends by itself.
UNHIT_S = 30 * 86_400.0
# Of a client that goes on without its block, as real links do.
MOST_INTERRUPTS = 100


class CancelBlock:
    """Ends a block by cancelling a scope around it."""

    def __init__(self, _frame: object) -> None:
        self._scope = trio.CancelScope()
        self._scope.__enter__()

    def interrupt(self, attempt: int) -> None:
        self._scope.cancel()

    def finish(self, error: BaseException | None) -> bool:
        kind = type(error) if error is not None else None
        trace = error.__traceback__ if error is not None else None
        return bool(self._scope.__exit__(kind, error, trace))


class VirtualLifeguard:
    """Watches over one block, as :class:`.Lifeguard` does on a real link."""

    def __init__(
        self,
        link: VirtualLink,
        interrupter: Interrupter,
        *,
        after: float,
        unhit: float,
        clock: str,
    ) -> None:
        self._link = link
        self._interrupter = interrupter
        self._after = after
        self._clock = clock
        self._over = False
        self._struck = False
        self._stop_listening: Callable[[], None] = lambda: None
        # Counts up when a later event sets the clock back: an earlier alarm is void then.
        self._alarm = 0
        self.begun = 0
        self.rescuing = threading.Event()
        self.interrupted_at: float | None = None
        self._read: set[int] = set()

    def start(self) -> None:
        self.begun = self._link.last_seq()
        self._stop_listening = self._link.listen(self._heard)
        begun_at = self._link.now()
        if self._clock == "hit":
            self._set(begun_at + UNHIT_S)
        else:
            self._set(begun_at + self._after)
        for event in self._link.events:
            if event.seq > self._link.judged or event.get("type") not in ONCE:
                self._heard(event)

    def stop(self) -> None:
        self._over = True
        self._stop_listening()
        self._link.log("watch_ended")

    def failure(self) -> HarnessError | None:
        """There is no engine that could die."""
        return None

    def _heard(self, event: Event) -> None:
        if event.kind == "fault_hit":
            number = event.get("connection", 0)
            if number and number not in self._read:
                self._read.add(number)
                self._link.clients[number] = self._link.keepalive_of(number)
        counts = {
            "hit": event.kind == "fault_hit" and not self._struck,
            "calm": event.kind in ("fault_hit", "toxic_removed"),
            "begin": False,
        }
        if counts[self._clock]:
            self._struck = True
            self._set(event.at + self._after)

    def _set(self, at: float) -> None:
        self._alarm += 1
        alarm = self._alarm
        network = self._link.network

        def rescue() -> None:
            if alarm == self._alarm and not self._over:
                self._rescue()

        network.call_at(max(at, network.now), rescue)

    def _rescue(self) -> None:
        network = self._link.network
        self._alarm += 1  # whatever happens now, it is too late
        self.rescuing.set()
        self._link.rescue(refuse=False)
        network.call_at(network.now + GRACE_S, self._refuse)

    def _refuse(self) -> None:
        if not self._over:
            self._link.rescue(refuse=True)
            network = self._link.network
            network.call_at(network.now + GRACE_S, lambda: self._interrupt(0))

    def _interrupt(self, attempt: int) -> None:
        if self._over or attempt > MOST_INTERRUPTS:
            return
        network = self._link.network
        if self.interrupted_at is None:
            self.interrupted_at = network.now
        network.wakes += 1
        self._interrupter.interrupt(attempt)
        network.call_at(network.now + REPEAT_S, lambda: self._interrupt(attempt + 1))


class NoMonitor:
    """In virtual time a client takes no time: there is no lag, and nothing spins."""

    def __init__(self, link: VirtualLink) -> None:
        self._link = link
        self._begun_at = 0.0

    def start(self) -> None:
        self._begun_at = self._link.now()

    def stop(self) -> Health:
        seconds = self._link.now() - self._begun_at
        return Health(
            seconds=seconds,
            cpu=0.0,
            children_cpu=0.0,
            busy=0.0,
            loop_lag=0.0,
            threads=0,
            descriptors=0,
        )


VIRTUAL = Surroundings(CancelBlock, VirtualLifeguard, NoMonitor, lambda _seconds: False)
