"""``fast_forward``: makes the hours of a client's keepalive pass in seconds.

Owns the change of a live socket's timers and the way back. The fast settings are
:mod:`pytest_tcpresilience.tcp.fastest`'s.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from pytest_tcpresilience.errors import ExpectationFailed, FaultUnavailable, UsageError
from pytest_tcpresilience.evidence.promises import write_death_s
from pytest_tcpresilience.evidence.readings import KeepaliveReading
from pytest_tcpresilience.evidence.verdict import Mechanism
from pytest_tcpresilience.expectations.static_checks import check_link, connected
from pytest_tcpresilience.kernel.owners import Denied
from pytest_tcpresilience.link import Link
from pytest_tcpresilience.reading import Wanted, borrow
from pytest_tcpresilience.tcp.fastest import FEW_PROBES, fastest
from pytest_tcpresilience.tcp.keepalive import (
    MAX_PROBES,
    TCP_KEEPCNT,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_USER_TIMEOUT,
    Keepalive,
)
from pytest_tcpresilience.tcp.windows import EARLY_S, Window, idle_window


@dataclass(frozen=True)
class Forwarded:
    """One connection. :param reading: as the client set it. :param fast: as it is now."""

    reading: KeepaliveReading
    fast: Keepalive


class FastForward:
    """Sockets whose timers run fast, until :meth:`restore` or the end of the block.

    Give it to ``detects_break(link, within=…)`` as the window.
    """

    def __init__(self, connections: tuple[Forwarded, ...]) -> None:
        self.connections = connections
        self._restored = False

    @property
    def nominal(self) -> float:
        """Seconds in which the client's own settings find an idle death; the longest."""
        return max(idle_window(each.reading.settings).nominal for each in self.connections)

    @property
    def window(self) -> Window:
        """When the fast settings do, from a fault that hits afterwards or just before.

        The lower bound is one interval: a connection that had been idle for longer than
        the fast idle time sends its first probe at once.
        """
        slowest = max(
            (idle_window(each.fast, answered_probe=True) for each in self.connections),
            key=lambda window: window.latest,
        )
        earliest = min(each.fast.interval for each in self.connections) - EARLY_S
        return Window(slowest.nominal, earliest, slowest.latest, slowest.parts, slowest.slacks)

    def nominal_by(self, mechanism: Mechanism, after: float) -> float:
        """What a detection by this mechanism takes in production.

        :param after: seconds that it took here.
        """
        if mechanism is Mechanism.KEEPALIVE:
            return self.nominal
        if mechanism is Mechanism.USER_TIMEOUT:
            return max(write_death_s(each.reading) or 0.0 for each in self.connections)
        return after

    def restore(self) -> None:
        """Give each socket that is still open the client's own settings back."""
        if self._restored:
            return
        self._restored = True
        own = {each.reading.client: each.reading for each in self.connections}
        wanted = [_wanted(reading) for reading in own.values()]
        for each, sock in borrow(wanted):
            if not isinstance(sock, Denied):
                # One that has died since takes no settings any more, nor needs it.
                with sock, contextlib.suppress(OSError):
                    _set(sock, own[each.client].settings)

    def __enter__(self) -> FastForward:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.restore()

    def __repr__(self) -> str:
        return f"<FastForward of {len(self.connections)} connection(s), nominal {self.nominal:g} s>"


def fast_forward(link: Link, *, probes: int | Literal["same"] = FEW_PROBES) -> FastForward:
    """Let the timers of every client that is connected run fast, from now on.

    The kernel then finds a death after some three seconds by the rule by which it would
    have after hours, and the client's *reaction* can be seen. The application's
    configuration is not touched, nor are connections that it opens later. The change is
    active when the call returns; at the end of a ``with`` block it is undone.

    :param probes: the most that go unanswered before the kernel gives up, 2 by default.
        ``"same"`` for as many as the client has set, which takes a second for each: eleven
        seconds for Linux's default of 9. How the client reacts does not depend on it.
    :raises ExpectationFailed: for a client whose keepalive is off. It would never notice,
        and no time that passes changes that.
    :raises FaultUnavailable: for a client whose socket is out of reach.
    :raises UsageError: when nobody is connected, or for another ``probes``.
    """
    check_link("fast_forward", link)
    most = _check_probes(probes)
    readings = connected("fast_forward", link)
    for reading in readings:
        _check(reading)
    plan = {
        reading.client: Forwarded(reading, fastest(reading.settings, most)) for reading in readings
    }
    forward = FastForward(tuple(plan.values()))
    for each, sock in borrow([_wanted(reading) for reading in readings]):
        reading = plan[each.client].reading
        if isinstance(sock, Denied):
            forward.restore()
            raise _out_of_reach(reading, sock.detail)
        with sock:
            _set(sock, plan[each.client].fast)
    return forward


def _set(sock: socket.socket, settings: Keepalive) -> None:
    # The idle time comes last: with it the kernel arms the running timer anew, and what the
    # timer then finds must be there already.
    options = [(TCP_KEEPINTVL, settings.interval), (TCP_KEEPCNT, settings.probes)]
    if TCP_USER_TIMEOUT is not None:
        options.append((TCP_USER_TIMEOUT, settings.user_timeout_ms))
    for option, value in (*options, (TCP_KEEPIDLE, settings.idle)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _wanted(reading: KeepaliveReading) -> Wanted:
    return Wanted(reading.connection, reading.client, reading.server)


def _check_probes(probes: object) -> int | None:
    if probes == "same":
        return None
    if isinstance(probes, bool) or not isinstance(probes, int) or not 1 <= probes <= MAX_PROBES:
        raise UsageError(
            f"fast_forward: probes={probes!r} is none of the choices",
            expected=f'a number from 1 to {MAX_PROBES}, or "same"',
            happened=f"got {probes!r}",
            advice="leave probes out for a reaction in some three seconds",
        )
    return probes


def _check(reading: KeepaliveReading) -> None:
    if reading.enabled is False:
        raise ExpectationFailed(
            "there is nothing to fast-forward: the client would never notice",
            expected="a client with SO_KEEPALIVE on",
            happened=str(reading),
            advice="set SO_KEEPALIVE on the client's socket; assert_keepalive says which times",
        )
    if not reading.complete:
        raise _out_of_reach(reading, reading.partial)


def _out_of_reach(reading: KeepaliveReading, why: str) -> FaultUnavailable:
    return FaultUnavailable(
        "time cannot be fast-forwarded: the client's socket is out of reach",
        expected="a client in the test's process, or in a process of the same user",
        happened=f"{reading.where}, {reading.who}: {why}",
        advice="run the client there, or give it short times with its own configuration",
    )
