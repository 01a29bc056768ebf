"""What a client's settings are worth, judged without waiting.

Owns the judgement over the rules of :mod:`.promises`, and how many judgements read. What the
evidence neither establishes nor excludes is unknown; nothing is claimed. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from pytest_tcpresilience.evidence.promises import RULES, Promise
from pytest_tcpresilience.evidence.readings import KeepaliveReading
from pytest_tcpresilience.evidence.remedies import set_keepalive, set_user_timeout
from pytest_tcpresilience.evidence.units import duration


@dataclass(frozen=True)
class Finding:
    """A rule that the settings break.

    :param rule: its name. :param fails: whether a promise is not kept; else it is worth a
        word. :param why: for people. :param cure: what to change.
    """

    rule: str
    fails: bool
    why: str
    cure: str


@dataclass(frozen=True)
class Judgement:
    """What one connection's settings are worth.

    :param reading: the settings that were judged.
    :param findings: what there is to say against them.
    :param unknown: what the evidence does not allow to judge.
    """

    reading: KeepaliveReading
    findings: tuple[Finding, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[Finding, ...]:
        """Those that break the promise."""
        return tuple(finding for finding in self.findings if finding.fails)

    @property
    def notes(self) -> tuple[Finding, ...]:
        """Those that break nothing."""
        return tuple(finding for finding in self.findings if not finding.fails)

    @property
    def verdict(self) -> str:
        """``"fails"``, ``"unknown"`` or ``"holds"``."""
        return "fails" if self.failures else "unknown" if self.unknown else "holds"


# --- one ---

_IDLE_RULES = {"off", "off_though_set", "idle_too_slow", "idle_too_slow_at_least"}
_BOX_RULES = {"off", "off_though_set", "box_counts_bytes", "box_forgets", "box_forgets_at_least"}


@lru_cache(maxsize=64)
def _cures(promise: Promise) -> dict[str, str]:
    # The search for them takes longer than all else, and is alike for all connections.
    return {
        "set_keepalive": set_keepalive(promise),
        "set_user_timeout": set_user_timeout(promise),
    }


def judge(reading: KeepaliveReading, promise: Promise) -> Judgement:
    """All rules that the settings break, and what cannot be known."""
    findings = []
    for rule in RULES:
        found = rule.find(reading, promise)
        if found is not None:
            words = {**_cures(promise), **found}
            why, cure = rule.why.format(**words), rule.cure.format(**words)
            findings.append(Finding(rule.name, rule.fails, why, cure))
    return Judgement(reading, tuple(findings), _unknown(reading, promise, findings))


def _unknown(
    reading: KeepaliveReading, promise: Promise, findings: Iterable[Finding]
) -> tuple[str, ...]:
    if reading.complete:
        return ()
    broken = {finding.rule for finding in findings}
    unknown = []
    if promise.within is not None and not broken & _IDLE_RULES:
        unknown.append(f"whether an idle death is noticed within {duration(promise.within)}")
    if promise.writes_within is not None:
        unknown.append(
            "whether a death with unacknowledged data is noticed within "
            f"{duration(promise.writes_within)}"
        )
    if promise.behind is not None and not broken & _BOX_RULES:
        unknown.append(f"whether an idle connection is kept alive behind {promise.behind.name}")
    if reading.enabled is None and not unknown:
        unknown.append("whether keepalive is on")
    return tuple(unknown)


# --- many ---------------------------------------------------------------------------------

# A message names as many kinds of connection; hundreds of clients are mostly alike.
MOST_KINDS = 5


def describe(judgements: Iterable[Judgement]) -> str:
    """The connections with what was found, those that are alike together."""
    kinds: dict[tuple[object, ...], list[Judgement]] = {}
    for each in judgements:
        reading = each.reading
        by_rule = tuple(finding.rule for finding in each.findings)
        key = (reading.pid, reading.process, by_rule, each.unknown, reading.partial)
        known = reading.known if reading.complete else reading.enabled
        kinds.setdefault((*key, known), []).append(each)
    lines: list[str] = []
    for alike in list(kinds.values())[:MOST_KINDS]:
        lines += _describe_kind(alike[0], len(alike) - 1)
    left = len(kinds) - MOST_KINDS
    return "\n".join([*lines, f"and {left} other kinds"] if left > 0 else lines)


def _describe_kind(one: Judgement, others: int) -> list[str]:
    more = f" and {others} like it" if others else ""
    lines = [f"{one.reading.where}{more}, {one.reading.who}: {one.reading.known}"]
    lines += [f"  {finding.why}" for finding in one.findings]
    lines += [f"  not known: {what}" for what in one.unknown]
    if one.reading.partial:
        lines.append(f"  partial: {one.reading.partial}")
    return lines


def cures(judgements: Iterable[Judgement]) -> str:
    """What to change, each once."""
    failures = [finding for each in judgements for finding in each.failures]
    return "; ".join(dict.fromkeys(finding.cure for finding in failures))
