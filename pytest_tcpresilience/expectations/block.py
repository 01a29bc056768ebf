"""A block under watch: what every expectation does at its beginning and its end.

Owns the witness, the rescue and the health of one block, which exceptions are the
client's, and the putting together of what was seen. What the block should have done is
each expectation's own, and the decision is :mod:`pytest_tcpresilience.evidence`'s.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pytest_tcpresilience.errors import (
    ExpectationFailed,
    ResilienceError,
    UsageError,
)
from pytest_tcpresilience.evidence import causes
from pytest_tcpresilience.evidence.health import Health
from pytest_tcpresilience.evidence.timeline import Event, merge
from pytest_tcpresilience.evidence.verdict import Observation, find_hit
from pytest_tcpresilience.evidence.wording import Words
from pytest_tcpresilience.expectations.outcome import Clocked
from pytest_tcpresilience.expectations.surroundings import surroundings_of
from pytest_tcpresilience.faults import NEWS_ONCE
from pytest_tcpresilience.kernel import processes
from pytest_tcpresilience.records.making import failure_of, promised_of, reason_of, record_of
from pytest_tcpresilience.records.record import Record
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.windows import Window
from pytest_tcpresilience.tcp.windows import within as window_of

if TYPE_CHECKING:
    from pytest_tcpresilience.expectations.surroundings import AnyLink

# Mistakes in the test's own code. A block that raises one of these has a bug, and to take
# it for the client's doing would make the test pass. Name one in raises= if the client
# really reports a break so.
MISTAKES = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
)

Raises = type[BaseException] | tuple[type[BaseException], ...]
Promise = float | Keepalive | Window
Subject = TypeVar("Subject")


def exception_types(raises: Raises) -> tuple[type[BaseException], ...]:
    """What ``raises=`` names, as a tuple.

    :raises UsageError: when that is no exception type.
    """
    kinds = raises if isinstance(raises, tuple) else (raises,)
    if not kinds or not all(isinstance(k, type) and issubclass(k, BaseException) for k in kinds):
        raise UsageError(
            f"raises={raises!r} is no exception type",
            expected="an exception class or a tuple of them",
            happened=f"got {raises!r}",
            advice="name the error that the client raises, e.g. raises=ConnectionError",
        )
    return kinds


@dataclass(frozen=True)
class Ended:
    """How a block has ended.

    :param error: the client's exception; ``None`` if there was none, or it was the
        rescue's interrupt.
    :param begun_at: CLOCK_MONOTONIC. :param ended_at: likewise.
    :param begun: number of the last event before the block.
    """

    error: BaseException | None
    begun_at: float
    ended_at: float
    begun: int
    health: Health
    clients: dict[int, Keepalive | None] = field(default_factory=dict)


class Expectation(Generic[Subject]):
    """Base of the expectations: a plain context manager around a block.

    :param clock: since when ``after`` counts, as for :meth:`.Link.start_watch`.
    :param after: seconds to the rescue.
    """

    _raises: tuple[type[BaseException], ...] = (Exception,)

    def __init__(
        self, link: AnyLink, promise: Promise, *, after: float, clock: str, subject: Subject
    ) -> None:
        around = surroundings_of(link)
        if around is None:
            raise UsageError(
                f"{type(self).__name__}({link!r}) needs a link",
                expected="what tcp_link(upstream), or virtual_tcp(upstream), returns",
                happened=f"got a {type(link).__name__}",
                advice="pass the link, not its address",
            )
        self._around = around
        self._link = link
        self._promise = promise
        self._after = after
        self._clock = clock
        self._watched = False
        self._subject = subject
        if isinstance(subject, Clocked):
            subject.use_clock(link.now)

    # --- the block -----------------------------------------------------------------------

    def __enter__(self) -> Subject:
        self._interrupter = self._around.interrupter(sys._getframe(1))
        self._lifeguard = self._around.lifeguard(
            self._link,
            self._interrupter,
            after=self._after + self._link.settings.slack,
            unhit=self._link.settings.hit_timeout,
            clock=self._clock,
        )
        try:
            self._lifeguard.start()
        except BaseException as error:
            self._interrupter.finish(error)
            raise
        try:
            self._monitor = self._around.monitor(self._link)
            self._monitor.start()
            self._begun_at = self._link.now()
            self._watched = True
            self._begin()
        except BaseException as error:
            self._lifeguard.stop()
            self._interrupter.finish(error)
            raise
        return self._subject

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        ended_at = self._link.now()
        interrupted = self._interrupter.finish(error)
        self._lifeguard.stop()
        health = self._monitor.stop()
        harness = self._lifeguard.failure()
        if harness is not None:
            self._keep_unjudged("harness_failed", "harness", harness)
            raise harness from error
        if error is not None and not interrupted and not self._is_the_clients(error):
            self._keep_unjudged("not_judged", "test", error)
            self._link.judged = self._link.last_seq()
            return False
        self._conclude(
            Ended(
                error=None if interrupted else error,
                begun_at=self._begun_at,
                ended_at=ended_at,
                begun=self._lifeguard.begun,
                health=health,
                clients=self._link.clients,
            )
        )
        return True

    @property
    def interrupted_at(self) -> float | None:
        """When the rescue began to interrupt the block; ``None`` if it has not."""
        return self._lifeguard.interrupted_at if self._watched else None

    def abandon(self) -> None:
        """The block will never end, whatever is done to it. From another thread."""
        if self._watched:
            self._lifeguard.stop()
            self._monitor.abandon()

    def _begin(self) -> None:
        """The block is about to begin; it is watched already."""

    def _conclude(self, ended: Ended) -> None:
        """The block has ended, by itself or by the rescue."""
        raise NotImplementedError

    def _is_the_clients(self, error: BaseException) -> bool:
        """Whether the exception can be the client's at all, or is the test's own affair."""
        leaves = list(causes.leaves(error))
        if any(isinstance(leaf, ResilienceError) for leaf in leaves):
            return False
        if self._raises != (Exception,) and self._matches(error):
            return True
        return all(
            isinstance(leaf, Exception) and not isinstance(leaf, MISTAKES) for leaf in leaves
        )

    def _matches(self, error: BaseException) -> bool:
        """Whether it is what ``raises=`` names, as itself or as every member of a group."""
        if isinstance(error, self._raises):
            return True
        return all(isinstance(leaf, self._raises) for leaf in causes.leaves(error))

    # --- what was seen -------------------------------------------------------------------

    def _observe(
        self, ended: Ended, own: Sequence[Event] = (), *, noticed_at: float | None = None
    ) -> Observation:
        """All that is known about a block.

        :param own: the test process's events, but for the exception and the interrupt.
        :param noticed_at: when the client noticed, if that was not by the exception.
        """
        log, error = self._link.events, ended.error
        own = list(own)
        if error is not None:
            own.append(Event(0, ended.ended_at, "error", {"error": causes.facts(error).name}))
            noticed_at = ended.ended_at if noticed_at is None else min(noticed_at, ended.ended_at)
        if self._lifeguard.interrupted_at is not None:
            own.append(Event(0, self._lifeguard.interrupted_at, "rescue_interrupt"))
        judged = self._link.judged
        hit = find_hit(log, judged=judged, begun=ended.begun, once=NEWS_ONCE)
        rescues = [e.at for e in log if e.kind == "rescue_reset" and e.seq > ended.begun]
        idle_for = float(hit["idle_for"]) if hit else 0.0
        return Observation(
            events=merge(log, own),
            hit=hit,
            noticed_at=noticed_at,
            error=causes.facts(error) if error is not None else None,
            expected_error=error is None or self._matches(error),
            rescued_at=rescues[0] if rescues else None,
            window=window_of(self._promise, idle_for=idle_for),
            retries2=processes.tcp_retries2(),
            ended_at=ended.ended_at,
            promise=self._promise if isinstance(self._promise, Keepalive) else None,
            client=ended.clients.get(hit["connection"]) if hit else None,
            health=ended.health,
            middlebox=getattr(self._link, "middlebox", None),
        )

    def _mark_judged(self, seen: Observation) -> None:
        """What this block has seen is no news to the next one."""
        self._link.judged = max((event.seq for event in seen.events), default=0)

    # --- what comes of it ----------------------------------------------------------------

    def _settle(
        self,
        ended: Ended,
        seen: Observation,
        outcome: str,
        words: Words | None,
        expected: str,
        **also: Any,
    ) -> None:
        """Keep the record, and raise what there is to raise.

        :param words: what is wrong; ``None`` when nothing is.
        :param also: what only this expectation knows, by fields of :class:`.Record`.
        """
        record = record_of(
            type(self).__name__,
            str(outcome),
            seen,
            error=ended.error,
            client=self._settings_of_client(seen),
            expected=expected,
        )
        if words is not None:
            record = replace(
                record,
                passed=False,
                blame=words.blame,
                summary=words.summary,
                advice=words.advice,
                cause=reason_of(words.cause),
            )
        self._keep(replace(record, **also))
        if words is not None:
            family = ExpectationFailed if words.blame == "client" else UsageError
            raise family(
                words.summary, expected=expected, happened=words.happened, advice=words.advice
            ) from ended.error

    def _settings_of_client(self, seen: Observation) -> Keepalive | None:
        if seen.hit is not None and seen.hit["connection"]:
            return seen.client  # of the connection that was hit, or of none
        return next(filter(None, self._link.clients.values()), None)

    def _keep_unjudged(self, outcome: str, blame: str, error: BaseException) -> None:
        """For a block that ended by something that is not the client's doing."""
        self._keep(
            Record(
                test="",
                entry="",
                expectation=type(self).__name__,
                outcome=outcome,
                passed=False,
                blame=blame,
                error=failure_of(error),
                promised=promised_of(window_of(self._promise)),
                summary=causes.facts(error).name.partition("\n")[0],
            )
        )

    def _keep(self, record: Record) -> None:
        link = self._link
        link.journal.keep(
            replace(
                record,
                client=link.client,
                link=link.name,
                upstream=link.upstream_address,
                engine=link.engine_name,
            )
        )
