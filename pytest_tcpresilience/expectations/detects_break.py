"""``detects_break``: the client must notice, because of the fault, inside the window.

Owns what is asked of the block. Its watching is :mod:`.block`'s, and the decision
:mod:`..evidence.verdict`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.evidence.verdict import (
    Mechanism,
    Observation,
    Outcome,
    judge,
    mechanism,
)
from pytest_tcpresilience.evidence.wording import explain
from pytest_tcpresilience.expectations.block import (
    MISTAKES,
    Ended,
    Expectation,
    Raises,
    exception_types,
)
from pytest_tcpresilience.expectations.detection import Detection, Result
from pytest_tcpresilience.expectations.fast_forward import FastForward
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.windows import Window
from pytest_tcpresilience.tcp.windows import within as window_of

if TYPE_CHECKING:
    from pytest_tcpresilience.expectations.surroundings import AnyLink

__all__ = ["MISTAKES", "detects_break"]


class detects_break(Expectation[Detection]):
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
        link: AnyLink,
        *,
        within: float | Keepalive | Window | FastForward,
        raises: Raises = Exception,
    ) -> None:
        self._raises = exception_types(raises)
        self._fast_forward = within if isinstance(within, FastForward) else None
        promise = within.window if isinstance(within, FastForward) else within
        super().__init__(
            link,
            promise,
            after=window_of(promise).latest,
            clock="hit",
            subject=Detection(),
        )

    def _conclude(self, ended: Ended) -> None:
        marked_at = self._subject.marked_at
        own = [] if marked_at is None else [Event(0, marked_at, "marked")]
        seen = self._observe(ended, own, noticed_at=marked_at)
        self._mark_judged(seen)
        outcome = judge(seen)
        words = None
        if outcome is not Outcome.NOTICED:
            words = explain(outcome, seen, complete=self._link.settings.complete)
        noticed = seen.noticed_at_all and seen.after is not None and seen.after >= 0
        by = mechanism(seen) if noticed else None
        nominal = self._nominal(seen, by)
        self._settle(
            ended,
            seen,
            outcome,
            words,
            self._expectation(seen),
            mechanism="" if by is None else str(by),
            after=seen.after if noticed else None,
            nominal=nominal,
        )
        assert seen.after is not None
        assert by is not None
        assert nominal is not None
        self._subject.conclude(
            Result(
                after=seen.after,
                nominal=nominal,
                mechanism=by,
                exception=ended.error,
                fault=seen.fault,
                window=seen.window,
                timeline=seen.events,
                health=ended.health,
            )
        )

    def _nominal(self, seen: Observation, by: Mechanism | None) -> float | None:
        """Seconds that it takes in production."""
        if by is None or seen.after is None or self._fast_forward is None:
            return None if by is None else seen.after
        return self._fast_forward.nominal_by(by, seen.after)

    def _expectation(self, seen: Observation) -> str:
        names = " or ".join(kind.__name__ for kind in self._raises)
        settings = f" ({self._promise})" if isinstance(self._promise, Keepalive) else ""
        return f"{names} {seen.window} after the fault{settings}"
