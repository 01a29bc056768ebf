"""What the terminal says of the gate: the verdict, what it is based on, and how to accept it.

Owns the words and their order, as lines that anyone can print. It knows no terminal. The
last line, when there is one to give, is a command and nothing else, so that it can be copied.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_tcpresilience.report.comparison import Finding, Status, behaviour
from pytest_tcpresilience.report.contract import Entry
from pytest_tcpresilience.report.gate import Decision
from pytest_tcpresilience.report.policy import Kind

TITLE = "TCP resilience"
RECORD = "--resilience-record"
# Of one kind that are shown one by one; a report has all of them.
SHOWN = 10

GOOD, BAD, WARN, PLAIN = "good", "bad", "warn", ""
DIFFERENT = (Status.CHANGED, Status.NEW, Status.MISSING, Status.DESELECTED)
DONE = {Kind.CREATE: "created", Kind.UPDATE: "updated", Kind.PRUNE: "pruned"}


@dataclass(frozen=True)
class Line:
    """:param style: ``"good"``, ``"bad"``, ``"warn"`` or ""."""

    text: str
    style: str = PLAIN


def lines(
    decision: Decision,
    *,
    contract: str,
    reports: Sequence[str] = (),
    arguments: Sequence[str] = ("pytest",),
    option: str = RECORD,
) -> list[Line]:
    """All that is to be said.

    :param contract: the path, as its reader knows it. :param reports: likewise.
    :param arguments: the command that was run. :param option: which of its options records.
    """
    verdict = decision.verdict
    found = [_verdict(decision, contract)]
    found += [Line(f"problem: {each}", BAD) for each in decision.comparison.problems]
    found += _refused(decision.acceptance.refused)
    for status in Status:
        failing = [each for each in verdict.failing if each.status is status]
        told = [each for each in verdict.told if each.status is status]
        found += _findings(failing, BAD) + _findings(told, WARN)
    found += [Line(f"note: {each}") for each in decision.comparison.notes]
    found += [Line(f"report: {each}") for each in reports]
    if decision.acceptable:
        found += [
            Line("if this is how it is meant to be, accept it with:"),
            Line(command(arguments, decision.acceptable, option)),
        ]
    return found


def _verdict(decision: Decision, contract: str) -> Line:
    acceptance, comparison = decision.acceptance, decision.comparison
    same = len(comparison.of(Status.SAME))
    written = [
        f"{acceptance.count(kind)} {done}" for kind, done in DONE.items() if acceptance.count(kind)
    ]
    rest = [*written, f"{same} {'entry' if same == 1 else 'entries'} as before"]
    # What neither fails nor was accepted is counted all the same.
    settled = {*acceptance.accepted, *(each.key for each in decision.verdict.failing)}
    others = Counter(each.status for each in comparison.findings if each.key not in settled)
    rest += [f"{others[status]} {status}" for status in DIFFERENT if others[status]]
    if acceptance.touched:
        rest.append(f"{acceptance.touched} with other versions of packages")
    counted = f"{', '.join(rest)} (contract {contract})"
    if not decision.verdict.passed:
        return Line(f"FAILED: {', '.join(decision.verdict.reasons)}; {counted}", BAD)
    return Line(f"{'recorded' if acceptance.differs else 'passed'}: {counted}", GOOD)


def _refused(refused: Sequence[str]) -> list[Line]:
    found = [Line(f"not recorded: {each}", BAD) for each in refused[:SHOWN]]
    if len(refused) > SHOWN:
        found.append(Line(f"not recorded: and {len(refused) - SHOWN} more", BAD))
    return found


# --- findings -----------------------------------------------------------------------------


def _findings(findings: Sequence[Finding], style: str) -> list[Line]:
    if not findings:
        return []
    if findings[0].status is Status.DESELECTED:
        why = Counter(each.why for each in findings)
        return [
            Line(f"deselected: {count} not compared, {each}", style) for each, count in why.items()
        ]
    found = [line for each in findings[:SHOWN] for line in _finding(each, style)]
    if len(findings) > SHOWN:
        found.append(Line(f"{findings[0].status}: and {len(findings) - SHOWN} more", style))
    return found


def _finding(finding: Finding, style: str) -> list[Line]:
    status = str(finding.status)
    if finding.record is None:
        return [Line(f"{status}: {finding.key}: {finding.why}", style)]
    now = Entry.of(finding.record)
    if finding.entry is None:
        return [Line(f"{status}: {finding.key}: {behaviour(now)}", style)]
    found = [Line(f"{status}: {finding.key}", style)]
    if finding.upgrade:
        found.append(Line(f"    {finding.upgrade}"))
    width = max((len(each.what) for each in finding.differences), default=0)
    found += [
        Line(f"    {each.what:<{width}}  {each.before} -> {each.now}")
        for each in finding.differences
    ]
    return found


# --- the command --------------------------------------------------------------------------


def command(arguments: Sequence[str], kinds: Iterable[Kind], option: str = RECORD) -> str:
    """The same command, which also records, as a shell takes it.

    :param arguments: with the program in front. :param option: that records; what it was
        given is replaced.
    """
    kept = list(without(arguments, option))
    end = kept.index("--") if "--" in kept else len(kept)
    kept.insert(end, f"{option}={','.join(map(str, kinds))}")
    return shlex.join(kept)


def without(arguments: Sequence[str], option: str) -> Iterable[str]:
    """The arguments without an option whose value may be left out."""
    names = set(map(str, Kind))
    skip = False
    for number, each in enumerate(arguments):
        if each == "--":
            yield from arguments[number:]
            return
        if skip:
            skip = False
            continue
        if each == option:
            following = arguments[number + 1 : number + 2]
            skip = bool(following) and set(following[0].split(",")) <= names
            continue
        if not each.startswith(f"{option}="):
            yield each
