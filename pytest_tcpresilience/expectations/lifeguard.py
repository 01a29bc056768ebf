"""Sees to it that a block ends, whatever the client does.

Owns the rescue as the test process sees it. The engine carries out the first two
stages by itself (RST, then no new connections); a thread here follows its log, carries
out the third (interrupt the block), and takes over when the engine dies. As it follows
the log anyway, it also reads the settings of each client's socket that a fault hits.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from pytest_tcpresilience.errors import EngineDied, HarnessError
from pytest_tcpresilience.expectations.clients import settings_of
from pytest_tcpresilience.expectations.interrupt import Interrupter
from pytest_tcpresilience.kernel import processes

if TYPE_CHECKING:
    from pytest_tcpresilience.evidence.timeline import Event
    from pytest_tcpresilience.link import Link

# Between RST and refusal, and between refusal and the interrupt. Together with the
# repeats they keep a client that never notices within 1 s of its window and slack.
GRACE_S = 0.100
REPEAT_S = 0.050
POLL_S = 15.0
JOIN_S = 5.0
# Who has more connections hit than this is judged by the first ones.
MOST_READ = 8


class Lifeguard:
    """Watches over one block. :meth:`start` at its beginning, :meth:`stop` at its end.

    :param after: seconds to the rescue, from what ``clock`` says.
    :param unhit: seconds that a fault may take to hit.
    :param clock: as for :meth:`.Link.start_watch`.
    """

    def __init__(
        self, link: Link, interrupter: Interrupter, *, after: float, unhit: float, clock: str
    ) -> None:
        self._link = link
        self._interrupter = interrupter
        self._terms = {"after_hit": after, "unhit": unhit}
        self._clock = clock
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tcpresilience-lifeguard")
        # A daemon, so that a harness that fails here cannot keep pytest from ending.
        self._thread.daemon = True
        self.begun = 0
        self.rescuing = threading.Event()
        self.interrupted_at: float | None = None
        self.harness_error: HarnessError | None = None
        # Connections whose settings this block has read; an earlier one's may have changed.
        self._read: set[int] = set()

    def start(self) -> None:
        self.begun = self._link.start_watch(**self._terms, grace=GRACE_S, clock=self._clock)
        # From the beginning: what was hit before the block is the block's affair, too.
        self._seen = self._link.judged
        self._thread.start()

    def stop(self) -> None:
        """The block has ended. Afterwards nothing is interrupted any more."""
        self._over.set()
        if self.harness_error is None:
            try:
                self._link.end_watch()  # also ends the thread's long poll
            except HarnessError as error:
                self.harness_error = error
        self._thread.join(JOIN_S)

    def failure(self) -> HarnessError | None:
        """What went wrong with the harness, if anything did."""
        harness = self.harness_error
        died = isinstance(harness, EngineDied) or (harness and not self._link.engine_alive)
        return self._link.engine_death() if died else harness

    def _run(self) -> None:
        try:
            self._wait_for_rescue()
        except HarnessError as error:
            if self._over.is_set():
                return
            self.harness_error = error
            # Nobody else can wake a client behind a cut now.
            processes.shut_down_own([self._link.listening])
        self._interrupt()

    def _wait_for_rescue(self) -> None:
        while not self._over.is_set():
            for event in self._link.events_after(self._seen, wait_s=POLL_S):
                self._seen = event.seq
                self._read_client(event)
                if event.seq <= self.begun:
                    continue
                if event.kind == "rescue_reset":
                    self.rescuing.set()
                if event.kind in ("rescue_refuse", "watch_ended"):
                    return

    def _read_client(self, event: Event) -> None:
        """A fault has hit: with which settings is the client's socket going to notice?"""
        number = event.get("connection", 0)
        wanted = event.kind == "fault_hit" and number and number not in self._read
        if wanted and len(self._read) < MOST_READ and not self._over.is_set():
            self._read.add(number)
            host, port = event["client"]
            self._link.clients[number] = settings_of((host, port), self._link.listening)

    def _interrupt(self) -> None:
        attempt = 0
        delay = GRACE_S
        while not self._over.wait(delay):
            if self.interrupted_at is None:
                self.interrupted_at = time.monotonic()
            self._interrupter.interrupt(attempt)
            attempt += 1
            delay = REPEAT_S
