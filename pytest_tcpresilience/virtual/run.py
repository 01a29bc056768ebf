"""Virtual time: trio's clock drives the network, and the network wakes trio's tasks.

Owns :class:`VirtualTcp`, which is what the ``virtual_tcp`` fixture is, and the one task that
drives its network.

How it works. trio asks its socket factory for sockets, its resolver for addresses, and its
clock for the time; all three are replaced for one run. The clock is trio's own
``MockClock`` with autojump: when every task waits, it jumps to the next deadline. The
driver sleeps until the network's next event, so that event is one of the deadlines.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path as FilePath
from typing import Any, TypeVar

import trio
import trio.testing

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.records.journal import Journal
from pytest_tcpresilience.settings import Settings
from pytest_tcpresilience.tcp.middleboxes import Middlebox
from pytest_tcpresilience.tcp.stacks import Stack, stack_named
from pytest_tcpresilience.virtual import pcap
from pytest_tcpresilience.virtual.guards import DRIVER, BlockedSteps, guard_thread
from pytest_tcpresilience.virtual.host import Host
from pytest_tcpresilience.virtual.link import VirtualLink, split_upstream
from pytest_tcpresilience.virtual.names import Names, UnknownHost
from pytest_tcpresilience.virtual.network import Network
from pytest_tcpresilience.virtual.order import deterministic_order
from pytest_tcpresilience.virtual.path import LATENCY_S, Path
from pytest_tcpresilience.virtual.sockets import Sockets
from pytest_tcpresilience.virtual.trace import Trace
from pytest_tcpresilience.virtual.world import World, in_trio

T = TypeVar("T")
# Longer than any timer of TCP (48 days is what 127 probes 32767 s apart take). Who waits
# that long with nothing else to do waits for ever.
FOREVER_S = 1000 * 365 * 86400.0
# Events of the network, for each connection, that wake no task while no task has a deadline
# either. A dead connection is given up after some 130; what goes on is healthy and idle.
IDLE_EVENTS = 1000


class VirtualTcp:
    """A TCP network in virtual time, for one run of trio.

    :param seed: decides sequence numbers, loss, jitter and the order of trio's tasks: one
        seed, one trace.

    Make hosts and paths first, then run code on them: with :meth:`run`, with
    ``async with``, or in an async test of pytest-trio that has the fixture and
    ``autojump_clock``.
    """

    def __init__(
        self,
        seed: int = 0,
        settings: Settings | None = None,
        *,
        journal: Journal | None = None,
    ) -> None:
        self.network = Network(seed)
        self.settings = settings or Settings()
        self.journal = Journal() if journal is None else journal
        self.links: list[VirtualLink] = []
        self._world = World(self.network, self.network.add_host("client"))
        self._entered = 0
        self._over = False
        self._failure: UsageError | None = None
        self._scopes: list[trio.CancelScope] = []
        self._alarm: trio.CancelScope | None = None
        self._driver = trio.CancelScope()
        self._undo: list[Callable[[], object]] = []

    # --- what there is -------------------------------------------------------------------

    @property
    def client(self) -> Host:
        """The host on which code runs where nothing else is said."""
        return self._world.home

    def host(self, name: str, stack: Stack | str | None = None, *, address: str = "") -> Host:
        """The host of that name; a new one if there is none.

        Code runs on it under ``with host:``, and so do the tasks that it starts there.

        :param stack: its TCP: ``AIX(tcp_keepidle=240)``, or a name such as ``"freebsd"``;
            Linux by default.
        :param address: its IPv4 address; the next of 10.0.0.0/8 by default.
        :raises UsageError: for a stack or an address that it cannot have (any more).
        """
        if isinstance(stack, str):
            stack = stack_named(stack)
        known = self.network.hosts.get(name)
        if known is None:
            return self.network.add_host(name, stack, address)
        if address and address != known.address:
            return self.network.add_host(name, stack, address)  # which says what is wrong
        if stack is not None:
            if known.endpoints or known.listeners:
                raise UsageError(
                    f"{name} has connections already",
                    expected="the stack of a host to be chosen before it is used",
                    happened=f"{name} runs {known.stack}",
                    advice="make the host first, or choose another name",
                )
            known.stack = stack
        return known

    def path(
        self,
        one: Host | str,
        other: Host | str,
        *,
        latency: float | Sequence[float] = LATENCY_S,
        loss: float = 0.0,
        jitter: float = 0.0,
        boxes: Sequence[Middlebox] = (),
    ) -> Path:
        """What lies between two hosts.

        :param latency: seconds one way; or those of each hop, one more than boxes.
        :param loss: the share of segments that get lost, 0 to 1.
        :param jitter: up to so many seconds more, so that segments overtake each other.
        :param boxes: firewalls, NATs and load balancers, from the first host to the second.
        :raises UsageError: for numbers that make no sense.
        """
        ends = [self.host(each) if isinstance(each, str) else each for each in (one, other)]
        return self.network.add_path(
            ends[0], ends[1], latency=latency, loss=loss, jitter=jitter, boxes=boxes
        )

    def link(
        self, upstream: Any, *, middlebox: Middlebox | None = None, client: str = ""
    ) -> VirtualLink:
        """A link to a server of the network, with the faults of a real link.

        :param upstream: ``"host:port"``, ``(host, port)`` or a URL, of a host of this network.
        :param middlebox: a box in front of it that forgets each idle flow.
        :param client: what records and reports call whoever uses it; the test's own name
            if not given.
        :raises UsageError: for a malformed upstream or an unknown host.
        """
        name, port, parts = split_upstream(upstream)
        server = self.network.hosts.get(name) or self.network.host_at(name)
        if server is None:
            raise UnknownHost(name, self.network.hosts)
        link = VirtualLink(
            self.network, server, port, parts, self.settings, client=client, journal=self.journal
        )
        self.links.append(link)
        if middlebox is not None:
            link.put_behind(middlebox)
        return link

    # The factory fixture of real links is called in the same way.
    __call__ = link

    @property
    def trace(self) -> Trace:
        """All segments so far."""
        return self.network.trace

    def save_pcap(self, path: str | FilePath, host: str | None = None, *, start: str = "") -> None:
        """The trace as a file for Wireshark.

        :param host: where the capture is taken; by default everything that was sent.
        :param start: the time of day at which the run began.
        :raises UsageError: for an unknown host. :raises OSError: as ``open`` does.
        """
        pcap.save(self.trace, path, host, start=start)

    # --- running -------------------------------------------------------------------------

    def run(self, async_fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run a trio program on the network, in virtual time from 0.

        :returns: what it returns. :raises: what it raises.
        :raises UsageError: for code that blocks, real sockets, or a standstill.
        """

        async def main() -> T:
            async with self:
                return await async_fn(*args)
            raise AssertionError("unreachable")

        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    async def __aenter__(self) -> VirtualTcp:
        if self._entered == 0:
            self._begin()
        self._entered += 1
        scope = trio.CancelScope()
        scope.__enter__()
        self._scopes.append(scope)
        return self

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        self._entered -= 1
        swallowed = self._scopes.pop().__exit__(kind, error, trace)
        if self._entered == 0:
            self._end()
        if self._failure is not None and (swallowed or error is None):
            raise self._failure from None
        return bool(swallowed)

    def _begin(self) -> None:
        if self._over:
            raise UsageError(
                "this virtual network has had its run",
                expected="one run for each network",
                happened="a second run was started on it",
                advice="make a new VirtualTcp(), or run all of it at once",
            )
        if not in_trio():
            raise UsageError(
                "a virtual network needs trio",
                expected="an async test that runs on trio, or virtual_tcp.run(...)",
                happened="no trio run is in progress",
                advice="mark the test for pytest-trio, or call virtual_tcp.run(main)",
            )
        clock = trio.lowlevel.current_clock()
        if not isinstance(clock, trio.testing.MockClock):
            raise UsageError(
                "a virtual network needs virtual time",
                expected="trio's MockClock",
                happened=f"the clock of this run is {type(clock).__name__}",
                advice="add pytest-trio's autojump_clock fixture to the test, or use "
                "virtual_tcp.run(...)",
            )
        if math.isinf(clock.autojump_threshold):
            clock.autojump_threshold = 0
        self._world.begin()
        watcher = BlockedSteps(self._fail)
        trio.lowlevel.add_instrument(watcher)
        factory = trio.socket.set_custom_socket_factory(Sockets(self._world))
        resolver = trio.socket.set_custom_hostname_resolver(Names(self._world))
        self._undo = [
            guard_thread(),
            deterministic_order(self.network.seed),
            lambda: trio.lowlevel.remove_instrument(watcher),
            lambda: trio.socket.set_custom_socket_factory(factory),
            lambda: trio.socket.set_custom_hostname_resolver(resolver),
        ]
        self.network.on_earlier = self._hurry
        self.network.on_sync = self._world.sync
        trio.lowlevel.spawn_system_task(self._drive, name=DRIVER)

    def _end(self) -> None:
        self._over = True
        self._world.running = False
        self.network.over = True
        self.network.on_earlier = self.network.on_sync = None
        self._driver.cancel()
        for undo in self._undo:
            undo()

    def close(self, *, test_failed: bool = False) -> None:
        """The test is over.

        :param test_failed: it has failed already, so that a fault which never hit is no news.
        :raises UsageError: for a scheduled fault that never hit.
        """
        self.network.over = True
        for link in self.links:
            link.ended = True
            for fault in link.never_hit():
                if not test_failed:
                    raise UsageError(
                        f"the scheduled {fault.name} never hit",
                        expected="a fault that acts before the test ends",
                        happened="the run ended first, or no connection was idle for long enough",
                        advice="wait for it with `await fault.until_hit()`, or lift it",
                    )

    def _fail(self, failure: UsageError) -> None:
        """End the run with this error."""
        if self._failure is None:
            self._failure = failure
        for scope in self._scopes:
            scope.cancel()

    # --- the driver ----------------------------------------------------------------------

    def _hurry(self) -> None:
        if self._alarm is not None:
            self._alarm.deadline = self._world.trio_time(self.network.next_due)

    async def _drive(self) -> None:
        """Sleep until the next event, and let happen what wakes no task."""
        network = self.network
        with self._driver:
            while True:
                due = network.next_due
                stuck = math.isinf(due)
                at = trio.current_time() + FOREVER_S if stuck else self._world.trio_time(due)
                with trio.CancelScope(deadline=at) as self._alarm:
                    await trio.sleep_forever()
                self._alarm = None
                if math.isinf(network.next_due):
                    self._fail(self._standstill("no timer of any connection is running"))
                    return
                # Whoever had a deadline at this same moment comes first.
                await trio.testing.wait_all_tasks_blocked()
                if not self._run_ahead():
                    self._fail(self._standstill("all that happens is keepalive being answered"))
                    return

    def _run_ahead(self) -> bool:
        """Event after event, until a task is woken or has a deadline.

        All tasks wait, so the clock may be moved here: trio would do so as well, by way of
        its whole loop. Whether there was any end to it.
        """
        world, network = self._world, self.network
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        deadline = trio.current_time() + trio.lowlevel.current_statistics().seconds_to_next_deadline
        wakes, most = network.wakes, math.inf
        if deadline > FOREVER_S / 2:
            most = network.events_done + IDLE_EVENTS * (1 + len(network.endpoints))
        world.sync()
        while wakes == network.wakes:
            due = network.next_due
            at = world.trio_time(due)
            if at >= deadline or math.isinf(due):
                break
            if network.events_done > most:
                return False
            clock.jump(max(at - clock.current_time(), 0.0))
            network.advance(due)
        return True

    def _standstill(self, why: str) -> UsageError:
        waits = [str(each) for each in self._world.waits]
        others = "the tasks of the run wait for each other, or for something outside it"
        return UsageError(
            "the simulation waits for nothing",
            expected="something that can still happen: a segment, a timer, a deadline",
            happened="\n".join([f"at {self.network.now:.6f} s {why}", *(waits or [others])]),
            advice="turn keepalive on, give the wait a deadline (trio.fail_after), or let a task "
            "do what is waited for",
        )
