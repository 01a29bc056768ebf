"""``stays_unaware``: the client does not notice in its window, and the test knows it.

Owns what is asked of such a block. It writes down what a client cannot do: keepalive finds no
stalled peer. When the client learns to notice, that is news, and the expectation fails.
"""

from __future__ import annotations

from pytest_tcpresilience.evidence.diagnosis import diagnose
from pytest_tcpresilience.evidence.verdict import Observation, Outcome, judge, mechanism
from pytest_tcpresilience.evidence.wording import Words, explain, with_evidence
from pytest_tcpresilience.expectations.block import Ended, Promise
from pytest_tcpresilience.expectations.detects_break import detects_break
from pytest_tcpresilience.link import Link
from pytest_tcpresilience.records.making import reason_of

# One that had the time to notice, and did.
NOTICED = frozenset({Outcome.NOTICED, Outcome.TOO_EARLY, Outcome.TOO_LATE, Outcome.WRONG_ERROR})
# Not noticing is what waits; this is another matter.
SPINNING = "spinning"


class stays_unaware(detects_break):
    """As :class:`detects_break`, the other way round.

    The rescue comes with the end of the window, and not after the setting ``slack``.
    """

    def __init__(self, link: Link, *, within: Promise) -> None:
        super().__init__(link, within=within)
        self._after -= link.settings.slack

    def _conclude(self, ended: Ended) -> None:
        seen = self._observe(ended)
        self._mark_judged(seen)
        outcome = judge(seen)
        cause = diagnose(seen, outcome)
        words = None
        if outcome in NOTICED and seen.noticed_at_all:
            words = with_evidence(
                _now_notices(seen), seen, None, complete=self._link.settings.complete
            )
        elif outcome is not Outcome.RESCUED or (cause is not None and cause.name == SPINNING):
            words = explain(outcome, seen, complete=self._link.settings.complete)
        noticed = seen.noticed_at_all
        # Why it never notices is worth keeping where nothing is wrong.
        why = {"cause": reason_of(cause)} if words is None else {}
        self._settle(
            ended,
            seen,
            outcome if words is not None else Outcome.UNAWARE,
            words,
            self._expectation(seen),
            mechanism=str(mechanism(seen)) if noticed else "",
            after=seen.after if noticed else None,
            **why,
        )

    def _expectation(self, seen: Observation) -> str:
        return f"the client not to notice {seen.window} after the fault"


def _now_notices(seen: Observation) -> Words:
    name = seen.error.name if seen.error else "detection.mark()"
    return Words(
        "client",
        f"the client now notices the {seen.fault}, {seen.after:.2f} s after it",
        f"noticed by {mechanism(seen)}: {name}",
        "take it off the list of those that never notice (unaware=), and promise when it does",
    )
