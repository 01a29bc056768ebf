"""``recovers``: after a break the operation succeeds, on a new connection and in time.

Owns what is asked of the block, and the object that tells how it went. The decision is
:mod:`..evidence.recovery`'s.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.evidence import causes
from pytest_tcpresilience.evidence import recovery as rules
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.evidence.verdict import Observation, broken_at, calm_since
from pytest_tcpresilience.evidence.wording import with_evidence
from pytest_tcpresilience.expectations import loops
from pytest_tcpresilience.expectations.block import MISTAKES, Ended, Expectation, exception_types
from pytest_tcpresilience.expectations.detection import Marked
from pytest_tcpresilience.expectations.outcome import Outcome
from pytest_tcpresilience.tcp.windows import within as window_of

if TYPE_CHECKING:
    from pytest_tcpresilience.expectations.block import Raises
    from pytest_tcpresilience.expectations.lifeguard import Lifeguard
    from pytest_tcpresilience.expectations.surroundings import AnyLink
    from pytest_tcpresilience.recording import Push, RecordingServer


class Attempt:
    """One try of the operation: a context manager from :meth:`Recovery.retrying`."""

    def __init__(self, recovery: Recovery, on: tuple[type[BaseException], ...]) -> None:
        self._recovery = recovery
        self._on = on

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None:
            self._recovery.mark()
            return False
        return self._recovery.failed(error, self._on)


class Recovery(Outcome, Marked):
    """How the client recovered. Its attributes can be read once the block has ended."""

    _name = "recovery"

    def __init__(self, link: AnyLink, server: RecordingServer | None) -> None:
        Outcome.__init__(self)
        Marked.__init__(self)
        self._link = link
        self._server = server
        self._lifeguard: Lifeguard | None = None
        self._case: rules.Recovery | None = None
        self.failures: list[tuple[float, BaseException]] = []

    # --- in the block --------------------------------------------------------------------

    def begin(self, lifeguard: Lifeguard) -> None:
        self._lifeguard = lifeguard

    def retrying(self, *, every: float = 0.05, on: Raises = Exception) -> Retrying:
        """For a client whose first operations after a break may fail: try again.

        ``for attempt in recovery.retrying(): with attempt: client.get()``; in an event loop
        ``async for`` and ``with``. It ends with the first success, which counts as the
        recovery, or with the last error once the time is over.

        :param every: seconds between one try and the next.
        :param on: the errors to try again after. Plain mistakes in Python code are not
            among them, unless they are named.
        """
        return Retrying(self, every, exception_types(on))

    def failed(self, error: BaseException, on: tuple[type[BaseException], ...]) -> bool:
        """A try has failed. Whether there is to be another."""
        again = isinstance(error, on) and (on != (Exception,) or not isinstance(error, MISTAKES))
        if again:
            self.failures.append((self._now(), error))
        over = self._lifeguard is not None and self._lifeguard.rescuing.is_set()
        return again and not over

    def push(self, data: bytes) -> Push:
        """Have the server send a message to those who have subscribed since the break.

        It does not block: whoever subscribes first on a new connection gets it. When nobody
        does, the block has failed: the subscription was not restored.

        :param data: as for :meth:`.RecordingServer.push`.
        :raises UsageError: without ``server=``, or before anything is broken.
        """
        if self._server is None:
            raise UsageError(
                "recovery.push() needs a recording server",
                expected="recovers(link, within=..., server=recording_server)",
                happened="server= was not given",
                advice="let the link lead to a RecordingServer, and pass it",
            )
        events = self._link.events
        broken = broken_at(events, self._lifeguard.begun if self._lifeguard else 0)
        if broken is None:
            raise UsageError(
                "recovery.push() before the break",
                expected="a fault that has hit",
                happened="no fault has hit a connection of this link",
                advice="call one of the link's faults first; before it, use server.push()",
            )
        return self._server.push_after(data, broken)

    # --- after the block -----------------------------------------------------------------

    def tell(self, seen: Observation, case: rules.Recovery) -> None:
        self._case = case
        self.conclude(seen)

    def _read_case(self) -> rules.Recovery:
        self.read()
        assert self._case is not None
        return self._case

    @property
    def time(self) -> float:
        """Seconds to the first success.

        They count from the latest of: the beginning of the block, the hit of a fault, its
        lifting.
        """
        seconds = self._read_case().time
        assert seconds is not None
        return seconds

    @property
    def attempts(self) -> int:
        """Connections that were opened through the link since the break.

        What ``refuse_connections`` and ``silent_drop`` keep out never opens, and is not
        among them.
        """
        return len(self._read_case().attempts)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Seconds from each of these attempts to the next."""
        return self._read_case().spacing

    @property
    def ghosts(self) -> int:
        """Broken connections that the server still held when the client was back.

        Only a server on this machine can be looked at.
        """
        held = [event["connection"] for event in self.timeline if event.kind == "ghost"]
        return len(set(held))

    @property
    def requests(self) -> tuple[bytes, ...]:
        """What the recording server has executed since the break, or since the beginning of
        the block if that was earlier."""
        return tuple(request.data for request in self._read_case().executed or ())

    @property
    def repeated(self) -> tuple[bytes, ...]:
        """Those of them that it has executed more than once, whether that matters or not."""
        done = self.requests
        return tuple(dict.fromkeys(data for data in done if done.count(data) > 1))


class Retrying:
    """The tries of one operation: iterate with ``for``, or ``async for`` in an event loop."""

    def __init__(
        self, recovery: Recovery, every: float, on: tuple[type[BaseException], ...]
    ) -> None:
        self._recovery = recovery
        self._every = every
        self._on = on

    @property
    def _over(self) -> bool:
        return self._recovery.marked_at is not None

    def __iter__(self) -> Iterator[Attempt]:
        if loops.in_event_loop():
            raise UsageError(
                "recovery.retrying() would block the event loop between tries",
                expected="async for attempt in recovery.retrying()",
                happened="it was used with a plain for in a running asyncio or trio task",
                advice="write async for; the with inside it stays as it is",
            )
        while not self._over:
            yield Attempt(self._recovery, self._on)
            if not self._over:
                time.sleep(self._every)

    async def __aiter__(self) -> AsyncIterator[Attempt]:
        while not self._over:
            yield Attempt(self._recovery, self._on)
            if not self._over:
                await loops.sleep(self._every)


def _requests(once: bytes | tuple[bytes, ...]) -> tuple[bytes, ...]:
    wanted = (once,) if isinstance(once, bytes) else tuple(once)
    if not all(isinstance(each, bytes) for each in wanted):
        raise UsageError(
            f"once={once!r} names no requests",
            expected="a request as bytes, or a tuple of them, without the separator",
            happened=f"got {once!r}",
            advice="write for example once=b'pay 17'",
        )
    return wanted


class recovers(Expectation[Recovery]):
    """The operation in the block must succeed, on a new connection, after a fault.

    A plain context manager with the rescue of :class:`detects_break`.

    :param link: on which the fault hits, in the block or before it.
    :param within: seconds, from the latest of: the beginning of the block, the fault's hit,
        its lifting. An outage that is never lifted counts in full.
    :param attempts: how many connections the client may open. By default any number that
        is no storm: more than 10 within 1 s, on top of those that were broken.
    :param server: the link's upstream, when that is a :class:`RecordingServer`. Then the
        operation must have reached it, and what it did there is known.
    :param once: requests of this block that the server must execute once: not less, which
        would be a false success, and not more.
    :raises ExpectationFailed: at the end of the block, when the client did not recover, or
        not so.
    :raises UsageError: when no fault hit, or a connection was there all along.
    """

    def __init__(
        self,
        link: AnyLink,
        *,
        within: float,
        attempts: int | None = None,
        server: RecordingServer | None = None,
        once: bytes | tuple[bytes, ...] = (),
    ) -> None:
        self._once = _requests(once)
        if self._once and server is None:
            raise UsageError(
                "once= needs a recording server",
                expected="recovers(link, within=..., server=recording_server, once=...)",
                happened="server= was not given",
                advice="let the link lead to a RecordingServer, and pass it",
            )
        if attempts is not None and (isinstance(attempts, bool) or attempts < 1):
            raise UsageError(
                f"attempts={attempts!r} is no limit",
                expected="a whole number of connections, at least 1",
                happened=f"got {attempts!r}",
                advice="leave it out for any number that is no storm",
            )
        self._within = window_of(within).latest
        self._most = attempts
        self._server = server
        super().__init__(
            link, within, after=self._within, clock="calm", subject=Recovery(link, server)
        )

    def _begin(self) -> None:
        self._subject.begin(self._lifeguard)

    def _conclude(self, ended: Ended) -> None:
        marked_at = self._subject.marked_at
        own = [
            Event(0, at, "tried", {"error": causes.facts(error).name})
            for at, error in self._subject.failures
        ]
        if marked_at is not None:
            own.append(Event(0, marked_at, "succeeded"))
        broken = broken_at(self._link.events, ended.begun)
        executed = self._executed(ended.begun_at if broken is None else broken, ended)
        own += [
            Event(0, each.at, "request", {"data": repr(each.data), "on": each.connection})
            for each in executed or ()
        ]
        seen = self._observe(ended, own)
        self._mark_judged(seen)
        succeeded_at = self._succeeded_at(ended, seen)
        case = rules.Recovery(
            seen=seen,
            broken_at=broken,
            since=calm_since(seen.events, ended.begun_at, succeeded_at or ended.ended_at),
            succeeded_at=succeeded_at,
            within=self._within,
            most=self._most,
            executed=executed,
            once=self._once,
            unheard=self._unheard(broken),
            tries=len(self._subject.failures),
        )
        outcome = rules.judge(case)
        words = None
        if outcome is not rules.Outcome.RECOVERED:
            words = with_evidence(
                rules.WORDS[outcome](case),
                seen,
                rules.why(outcome, case),
                complete=self._link.settings.complete,
            )
        self._settle(
            ended,
            seen,
            outcome,
            words,
            self._expectation(),
            recovery=case.time,
            attempts=len(case.attempts),
        )
        self._subject.tell(seen, case)

    def _succeeded_at(self, ended: Ended, seen: Observation) -> float | None:
        """The first success, unless an error or the rescue has ended the block."""
        at = self._subject.marked_at
        at = ended.ended_at if at is None else at
        late = seen.rescued_at is not None and seen.rescued_at <= at
        return None if ended.error is not None or late else at

    def _executed(self, broken: float, ended: Ended) -> tuple[rules.Executed, ...] | None:
        if self._server is None:
            return None
        begun = min(broken, ended.begun_at)
        return tuple(
            rules.Executed(each.at, each.connection, each.data)
            for each in self._server.requests
            if each.at >= begun
        )

    def _unheard(self, broken: float | None) -> tuple[bytes, ...]:
        pushes = self._server.pushes if self._server is not None else ()
        waiting = [each for each in pushes if each.after == broken and each.at is None]
        return tuple(each.data for each in waiting)

    def _expectation(self) -> str:
        limit = f" within {self._within:.2f} s"
        most = "" if self._most is None else f", with at most {self._most} of them"
        once = f", executing {', '.join(map(repr, self._once))} once" if self._once else ""
        return f"success on a new connection{limit}{most}{once}"
