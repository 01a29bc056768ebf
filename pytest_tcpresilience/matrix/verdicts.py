"""What became of a cell, in words, and its record.

Owns the words for what no expectation has words for: a client that hangs or fails before or
after the wait, or crashes in it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_tcpresilience.errors import ExpectationFailed, ResilienceError, UsageError
from pytest_tcpresilience.evidence import causes
from pytest_tcpresilience.matrix.cell import Phase
from pytest_tcpresilience.records.making import failure_of, promised_of
from pytest_tcpresilience.records.record import Record

if TYPE_CHECKING:
    from pytest_tcpresilience.matrix.cell import CellRun
    from pytest_tcpresilience.matrix.plan import Cell
    from pytest_tcpresilience.matrix.running import Hang


@dataclass(frozen=True)
class _Words:
    """Of one phase: where that is, what was to be, and what to do."""

    where: str
    expected: str
    advice: str


_WORDS: Mapping[Phase, _Words] = {
    Phase.CONNECT: _Words(
        "while it connected",
        "connect= to return on a healthy link",
        "try it without a fault: does the upstream run, and does connect= use link.host and "
        "link.port?",
    ),
    Phase.WARM_UP: _Words(
        "in its warm-up",
        "{activity} to work once on a healthy link, before the fault",
        "give the client a warm_up= that ends on a healthy link; what blocks until the server "
        "speaks is a wait=",
    ),
    Phase.READY: _Words(
        "between its warm-up and the fault",
        "the client to be left alone between its warm-up and the fault",
        "look for what ends it by itself",
    ),
    Phase.FAULT: _Words(
        "in its {activity} after the fault",
        "{activity} to end with an error that tells of the break",
        "an error of the test's own code is no detection; name it in raises= if the client "
        "really reports a break so",
    ),
    Phase.CLOSE: _Words(
        "in its close",
        "close= to end in time, and without an error, on a link that is broken",
        "close what is broken without a farewell, or have close= ignore the error",
    ),
    Phase.OVER: _Words(
        "at its end",
        "the client's thread or event loop to end without an error",
        "look for tasks and threads that it leaves behind",
    ),
}
_OF_RESCUE = "its connections were reset, new ones refused, and it was interrupted; it did not end"


def failure(
    cell: Cell, error: BaseException | None, failed_in: Phase | None, hang: Hang | None
) -> ResilienceError | None:
    """What the subtest of a cell raises; ``None`` for one that is as it should be.

    :param error: the first that left the cell, and ``failed_in`` where that was.
    """
    if hang is not None and (failed_in is None or failed_in is hang.phase):
        return _hung(cell, hang)
    if error is None:
        return None
    if not isinstance(error, ResilienceError):
        error = _crashed(cell, error, failed_in or Phase.OVER)
    if hang is not None:
        more = f"{error.happened}\nafter that it hung {_where(cell, hang.phase)}: {_at(hang)}"
        family = UsageError if isinstance(error, UsageError) else ExpectationFailed
        told = family(error.summary, expected=error.expected, happened=more, advice=error.advice)
        told.__cause__ = error.__cause__
        return told
    return error


def _hung(cell: Cell, hang: Hang) -> ResilienceError:
    words = _WORDS[hang.phase]
    how = _OF_RESCUE if hang.phase is Phase.FAULT else f"no end of it in {hang.seconds:.1f} s"
    return ExpectationFailed(
        f"{cell.client.name} hung {_where(cell, hang.phase)}",
        expected=words.expected.format(activity=_activity(cell, hang.phase)),
        happened=f"{how}; {_at(hang)}",
        advice=words.advice
        if hang.phase is not Phase.FAULT
        else "look for what swallows every exception, or blocks outside of Python",
    )


def _at(hang: Hang) -> str:
    where = "\n".join(["it was at:", *(f"  {each}" for each in hang.where)])
    if not hang.left:
        return f"{where}\nit ended when its link was taken away"
    names = ", ".join(map(repr, hang.left))
    return f"{where}\nleft behind, as daemons: {names}"


def _crashed(cell: Cell, error: BaseException, phase: Phase) -> ResilienceError:
    words = _WORDS[phase]
    told = ExpectationFailed(
        f"{cell.client.name} failed {_where(cell, phase)}: {causes.facts(error).name}",
        expected=words.expected.format(activity=_activity(cell, phase)),
        happened=f"it raised {type(error).__name__}",
        advice=words.advice,
    )
    told.__cause__ = error
    return told


def _where(cell: Cell, phase: Phase) -> str:
    return _WORDS[phase].where.format(activity=cell.activity)


def _activity(cell: Cell, phase: Phase) -> str:
    warm_up = cell.client.warm_up_for(cell.activity)
    return warm_up[0] if phase is Phase.WARM_UP and warm_up else cell.activity


def record_of(run: CellRun, problem: BaseException | None, hang: Hang | None) -> Record:
    """The cell's record, under its name.

    :param problem: what its subtest raises.
    """
    cell, link = run.cell, run.link
    kept = link.journal.records
    if kept:
        record = kept[-1]
    else:
        record = Record(
            test="",
            entry="",
            expectation="stays_unaware" if cell.unaware else "detects_break",
            outcome="not_judged",
            passed=True,
            link=link.name,
            upstream=link.upstream_address,
            engine=link.engine_name,
            promised=promised_of(cell.window),
        )
    if problem is not None and record.passed:
        blame = "client" if isinstance(problem, ExpectationFailed) else "test"
        told = problem if isinstance(problem, ResilienceError) else None
        record = replace(
            record,
            passed=False,
            outcome="hung" if hang is not None else "failed",
            blame=blame,
            error=failure_of(run.error) or record.error,
            summary=told.summary if told else causes.facts(problem).name,
            expected=told.expected if told else "",
            advice=told.advice if told else "",
        )
    return replace(
        record,
        entry=cell.name,
        client=cell.client.name,
        fault=cell.fault.label,
        activity=cell.activity,
    )
