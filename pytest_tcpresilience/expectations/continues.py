"""``survives``, ``stays_quiet`` and ``closes_within``: what must go on, or end, as it should.

Owns what each asks of its block, and the objects that tell how it went. The decisions are
:mod:`..evidence.continuity`'s.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.evidence import continuity as rules
from pytest_tcpresilience.evidence.diagnosis import Cause, diagnose
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.evidence.verdict import Observation, calm_since, in_force, not_lifted
from pytest_tcpresilience.evidence.verdict import Outcome as Wait
from pytest_tcpresilience.evidence.wording import with_evidence
from pytest_tcpresilience.expectations import loops
from pytest_tcpresilience.expectations.block import Ended, Expectation, Promise, Subject
from pytest_tcpresilience.expectations.outcome import Clocked, Outcome
from pytest_tcpresilience.faults import ONCE
from pytest_tcpresilience.kernel.sockdiag import SockDiag
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.windows import Window
from pytest_tcpresilience.tcp.windows import within as window_of

if TYPE_CHECKING:
    from pytest_tcpresilience.expectations.surroundings import AnyLink

POLL_S = 0.010
# Causes that explain a wait which had to be ended here.
WAITS = frozenset({"spinning", "loop_blocked", "unacknowledged", "user_timeout_too_long"})


class _Continues(Expectation[Subject]):
    """What the three have in common."""

    _asked: str

    def _judge(self, case: rules.Continuity, ended: Ended, expected: str) -> None:
        self._mark_judged(case.seen)
        outcome = rules.judge(case)
        words = None
        if outcome is not rules.Outcome.FINE:
            words = with_evidence(
                rules.WORDS[self._asked, outcome](case),
                case.seen,
                self._cause(outcome, case.seen),
                complete=self._link.settings.complete,
            )
        self._settle(ended, case.seen, outcome, words, expected)

    @staticmethod
    def _cause(outcome: rules.Outcome, seen: Observation) -> Cause | None:
        if outcome is not rules.Outcome.STILL_WAITING:
            return None
        found = diagnose(seen, Wait.RESCUED)
        return found if found is not None and found.name in WAITS else None


class Survival(Outcome):
    """How the client went on. Its attributes can be read once the block has ended."""

    _name = "survival"
    _seconds = 0.0

    def tell(self, seen: Observation, seconds: float) -> None:
        self._seconds = seconds
        self.conclude(seen)

    @property
    def time(self) -> float:
        """Seconds to the end of the block, from the latest of: its beginning, the hit of a
        fault, its lifting."""
        self.read()
        return self._seconds


class survives(_Continues[Survival]):
    """The client must go on on the same connections, and no byte may be lost.

    For an outage that is shorter than the client's window, and is lifted in the block or
    before it. A plain context manager with the rescue of :class:`detects_break`.

    :param link: on which the fault hits, in the block or before it.
    :param within: seconds in which the block must end, from the latest of: its beginning,
        the fault's hit, its lifting.
    :raises ExpectationFailed: when the operation failed, a connection ended, a new one was
        opened, or a byte was still on its way when the block and the setting ``slack`` were
        over.
    :raises UsageError: when no fault hit.
    """

    _asked = "survives"

    def __init__(self, link: AnyLink, *, within: float) -> None:
        self._within = window_of(within).latest
        super().__init__(link, within, after=self._within, clock="calm", subject=Survival())

    def _conclude(self, ended: Ended) -> None:
        gaps = self._gaps() if ended.error is None else ()
        seen = self._observe(ended)
        case = rules.Continuity(
            seen=seen,
            asked=self._asked,
            since=calm_since(seen.events, ended.begun_at, ended.ended_at),
            within=self._within,
            faulty=None,
            gaps=gaps,
        )
        self._judge(case, ended, f"the same connections, every byte, within {self._within:.2f} s")
        self._subject.tell(seen, case.time)

    def _gaps(self) -> tuple[rules.Gap, ...]:
        """What has not arrived; what is on its way is waited for."""
        deadline = self._link.now() + self._link.settings.slack
        while (gaps := self._on_the_way()) and self._link.now() < deadline:
            if not self._around.pause(POLL_S):
                break
        return gaps

    def _on_the_way(self) -> tuple[rules.Gap, ...]:
        found = []
        for number, client, to_server, to_client in self._link.in_flight():
            counts = {"to the server": to_server + self._unsent(client), "to the client": to_client}
            found += [rules.Gap(number, way, count) for way, count in counts.items() if count]
        return tuple(found)

    def _unsent(self, client: tuple[str, int]) -> int:
        """Bytes that the client's kernel still has to bring to the link."""
        try:
            with SockDiag() as diag:
                found = diag.lookup(client, self._link.listening)
        except OSError:  # no netlink here
            return 0
        return 0 if found is None else found.unacknowledged


class Quiet(Outcome, Clocked):
    """The time in which nothing may happen, and how it went."""

    _name = "quiet time"

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        """How long the link has to stay quiet."""
        self._until = math.inf
        self._rescuing = threading.Event()

    def begin(self, until: float, rescuing: threading.Event) -> None:
        self._until = until
        self._rescuing = rescuing

    def wait(self) -> None:
        """Block until the time is over.

        :raises UsageError: in an asyncio or trio task, whose loop it would block.
        """
        if loops.in_event_loop():
            raise UsageError(
                "quiet.wait() would block the event loop",
                expected="a block without an event loop",
                happened="it was called in a running asyncio or trio task",
                advice="write await quiet.sleep()",
            )
        self._rescuing.wait(max(self._until - self._now(), 0.0))

    async def sleep(self) -> None:
        """As :meth:`wait`, in asyncio and trio."""
        await loops.sleep(max(self._until - self._now(), 0.0))


class stays_quiet(_Continues[Quiet]):
    """Nothing may happen on a healthy idle link: no error, no end, no new connection.

    The block may be a read that would wait for ever: it is ended when the time is over, and
    the error of being ended is no false alarm. Its connection is then reset, so a client
    that is to be used further waits with ``quiet.wait()`` or ``await quiet.sleep()``.

    :param link: with a client that is connected, and without a fault.
    :param windows: how many windows the link must stay quiet for.
    :param within: seconds, or the :class:`Keepalive` that the client uses: one window.
    :raises ExpectationFailed: when something happened.
    :raises UsageError: when nobody was connected, a fault was in force, or the block ended
        before the time was over.
    """

    _asked = "stays_quiet"

    def __init__(
        self, link: AnyLink, *, windows: int = 3, within: float | Keepalive | Window
    ) -> None:
        if isinstance(windows, bool) or not isinstance(windows, int) or windows < 1:
            raise UsageError(
                f"windows={windows!r} is no number of windows",
                expected="a whole number, at least 1",
                happened=f"got {windows!r}",
                advice="3 is a good number",
            )
        self._seconds = windows * window_of(within).nominal
        super().__init__(
            link, within, after=self._seconds, clock="begin", subject=Quiet(self._seconds)
        )

    def _begin(self) -> None:
        # No fault hits here, at which they would be read.
        self._link.clients.update(self._link.settings_now())
        self._subject.begin(self._begun_at + self._seconds, self._lifeguard.rescuing)

    def _conclude(self, ended: Ended) -> None:
        seen = self._observe(ended)
        case = rules.Continuity(
            seen=seen,
            asked=self._asked,
            since=ended.begun_at,
            within=self._seconds,
            faulty=in_force(seen.events, begun=ended.begun, once=ONCE),
        )
        self._judge(case, ended, f"nothing to happen for {self._seconds:.2f} s")
        self._subject.conclude(seen)


class Closing(Outcome):
    """How teardown went. Its attributes can be read once the block has ended."""

    _name = "closing"
    _seconds = 0.0

    def tell(self, seen: Observation, seconds: float) -> None:
        self._seconds = seconds
        self.conclude(seen)

    @property
    def time(self) -> float:
        """Seconds that the block took, or that passed since the fault if that hit in it."""
        self.read()
        return self._seconds


class closes_within(_Continues[Closing]):
    """The teardown in the block must end in time while the link is still dead.

    A plain context manager with the rescue of :class:`detects_break`.

    :param link: on which a fault has hit, before the block or in it.
    :param seconds: for the block.
    :raises ExpectationFailed: when it took longer, raised, or left the client's socket open.
    :raises UsageError: when no fault was in force.
    """

    _asked = "closes_within"

    def __init__(self, link: AnyLink, seconds: Promise) -> None:
        self._within = window_of(seconds).latest
        super().__init__(link, seconds, after=self._within, clock="begin", subject=Closing())

    def _conclude(self, ended: Ended) -> None:
        seen = self._observe(ended)
        began = [event.at for event in seen.events if event.kind == "fault_hit"]
        limit = seen.rescued_at if seen.rescued_at is not None else math.inf
        case = rules.Continuity(
            seen=seen,
            asked=self._asked,
            since=max(ended.begun_at, *(at for at in began if at <= ended.ended_at), 0.0),
            within=self._within,
            faulty=not_lifted(seen.events),
            held=_held(seen.events, limit),
        )
        self._judge(case, ended, f"teardown within {self._within:.2f} s, and no socket left open")
        self._subject.tell(seen, case.time)


def _held(events: tuple[Event, ...], limit: float) -> tuple[int, ...]:
    """Connections whose client's socket was seen, and not seen to go."""
    looks = [event for event in events if event.at < limit and event.get("connection")]
    seen = {event["connection"] for event in looks if event.kind == "client_socket"}
    gone = {e["connection"] for e in looks if e.kind in ("client_closed", "client_gone", "closed")}
    return tuple(sorted(seen - gone))
