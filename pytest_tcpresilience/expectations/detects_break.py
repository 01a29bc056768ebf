"""``detects_break``: the client must notice, because of the fault, inside the window.

Owns the block's beginning and end: what is watched, which exceptions are the client's,
and the collection of the evidence. The decision is :mod:`..evidence.verdict`'s.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

from pytest_tcpresilience.errors import (
    EngineDied,
    ExpectationFailed,
    ResilienceError,
    UsageError,
)
from pytest_tcpresilience.evidence import causes
from pytest_tcpresilience.evidence.timeline import Event, merge
from pytest_tcpresilience.evidence.verdict import (
    Observation,
    Outcome,
    find_hit,
    judge,
    mechanism,
)
from pytest_tcpresilience.evidence.wording import explain
from pytest_tcpresilience.expectations.detection import Detection, Result
from pytest_tcpresilience.expectations.fast_forward import FastForward
from pytest_tcpresilience.expectations.interrupt import Interrupter, for_block
from pytest_tcpresilience.expectations.lifeguard import Lifeguard
from pytest_tcpresilience.faults import ONCE
from pytest_tcpresilience.kernel import processes
from pytest_tcpresilience.link import Link
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.windows import Window
from pytest_tcpresilience.tcp.windows import within as window_of

# Mistakes in the test's own code. A block that raises one of these has a bug, and to take
# it for a detection would make the test pass. Name one in raises= if the client really
# reports a break so.
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


class detects_break:
    """The block must raise because of a fault on ``link``, inside the window.

    Works in plain functions, asyncio and trio tasks, with ``with`` in each. A client that
    never notices is woken: first its connections are reset, then new ones are refused,
    at last the block itself is interrupted. It costs the window, the setting ``slack``,
    and less than 1 s.

    :param link: on which the fault hits, in the block or before it.
    :param within: seconds from the fault, or the :class:`Keepalive` that the client
        uses: then the bounds are the kernel's arithmetic for an idle connection, and
        noticing sooner than it can is a failure too. A :class:`Window` is taken as it
        is. What :func:`fast_forward` returns stands for the settings that it has set.
    :param raises: the error, or a tuple of errors, that the client should raise. By
        default any ``Exception`` that is not a plain mistake in Python code.
    :raises ExpectationFailed: at the end of the block, when the client did not notice,
        or not so.
    :raises UsageError: when no fault hit, or nothing was connected.
    :raises EngineDied: when the engine ended in the middle.
    """

    def __init__(
        self,
        link: Link,
        *,
        within: float | Keepalive | Window | FastForward,
        raises: Raises = Exception,
    ) -> None:
        if not isinstance(link, Link):
            raise UsageError(
                f"detects_break({link!r}) needs a link",
                expected="what tcp_link(upstream) returns",
                happened=f"got a {type(link).__name__}",
                advice="pass the link, not its address",
            )
        kinds = raises if isinstance(raises, tuple) else (raises,)
        if not kinds or not all(
            isinstance(k, type) and issubclass(k, BaseException) for k in kinds
        ):
            raise UsageError(
                f"raises={raises!r} is no exception type",
                expected="an exception class or a tuple of them",
                happened=f"got {raises!r}",
                advice="name the error that the client raises, e.g. raises=ConnectionError",
            )
        self._link = link
        self._fast_forward = within if isinstance(within, FastForward) else None
        self._promise = within.window if isinstance(within, FastForward) else within
        self._window = window_of(self._promise)
        self._raises = kinds
        self._detection = Detection()

    def __enter__(self) -> Detection:
        settings = self._link.settings
        self._interrupter: Interrupter = for_block(sys._getframe(1))
        self._lifeguard = Lifeguard(
            self._link,
            self._interrupter,
            after_hit=self._window.latest + settings.slack,
            unhit=settings.hit_timeout,
        )
        try:
            self._lifeguard.start()
        except BaseException as error:
            self._interrupter.finish(error)
            raise
        return self._detection

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        ended_at = time.monotonic()
        interrupted = self._interrupter.finish(error)
        self._lifeguard.stop()
        harness = self._lifeguard.harness_error
        if harness is not None:
            if isinstance(harness, EngineDied) or not self._link.engine_alive:
                raise self._link.engine_death() from error
            raise harness from error
        if error is not None and not interrupted and not self._is_the_clients(error):
            self._link.judged = self._link.last_seq()
            return False
        self._conclude(None if interrupted else error, ended_at)
        return True

    def _is_the_clients(self, error: BaseException) -> bool:
        """Whether the exception can be a detection at all, or is the test's own affair."""
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

    # --- the end -------------------------------------------------------------------------

    def _observe(self, error: BaseException | None, ended_at: float) -> Observation:
        log = self._link.events
        own: list[Event] = []
        marked_at = self._detection.marked_at
        noticed_at = marked_at
        if error is not None:
            own.append(Event(0, ended_at, "error", {"error": causes.facts(error).name}))
            noticed_at = ended_at if noticed_at is None else min(noticed_at, ended_at)
        if marked_at is not None:
            own.append(Event(0, marked_at, "marked"))
        if self._lifeguard.interrupted_at is not None:
            own.append(Event(0, self._lifeguard.interrupted_at, "rescue_interrupt"))
        hit = find_hit(log, judged=self._link.judged, begun=self._lifeguard.begun, once=ONCE)
        idle_for = float(hit["idle_for"]) if hit else 0.0
        rescues = [
            event.at
            for event in log
            if event.kind == "rescue_reset" and event.seq > self._link.judged
        ]
        return Observation(
            events=merge(log, own),
            hit=hit,
            noticed_at=noticed_at,
            error=causes.facts(error) if error is not None else None,
            expected_error=error is None or self._matches(error),
            rescued_at=rescues[0] if rescues else None,
            window=window_of(self._promise, idle_for=idle_for),
            retries2=processes.tcp_retries2(),
        )

    def _conclude(self, error: BaseException | None, ended_at: float) -> None:
        seen = self._observe(error, ended_at)
        self._link.judged = max((event.seq for event in seen.events), default=0)
        outcome = judge(seen)
        if outcome is not Outcome.NOTICED:
            self._fail(outcome, seen, error)
        assert seen.hit is not None
        assert seen.after is not None
        by = mechanism(seen)
        forward = self._fast_forward
        self._detection.conclude(
            Result(
                after=seen.after,
                nominal=seen.after if forward is None else forward.nominal_by(by, seen.after),
                mechanism=by,
                exception=error,
                fault=seen.fault,
                window=seen.window,
                timeline=seen.events,
            )
        )

    def _fail(self, outcome: Outcome, seen: Observation, error: BaseException | None) -> None:
        words = explain(outcome, seen)
        family = ExpectationFailed if words.blame == "client" else UsageError
        raise family(
            words.summary,
            expected=self._expectation(seen),
            happened=words.happened,
            advice=words.advice,
        ) from error

    def _expectation(self, seen: Observation) -> str:
        names = " or ".join(kind.__name__ for kind in self._raises)
        settings = f" ({self._promise})" if isinstance(self._promise, Keepalive) else ""
        return f"{names} {seen.window} after the fault{settings}"
