"""What a record comes to, in a word and a sign, and how it is told in one line.

Owns the table from the outcomes of all expectations to what a report calls them. Nothing is
told by colour alone: each status has a sign and words of its own. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from pytest_tcpresilience.evidence.units import duration
from pytest_tcpresilience.records.record import Record


class Tone(str, Enum):
    """How a reader should take it."""

    GOOD = "good"
    BAD = "bad"
    """The client did not do as was promised."""
    UNSURE = "unsure"
    """It says nothing about the client."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Status:
    """:param sign: a character that differs in shape, for those who see no colours."""

    words: str
    sign: str
    tone: Tone


AS_PROMISED = Status("as promised", "✔", Tone.GOOD)
EXPECTED_UNAWARE = Status("not noticed, as expected", "✔", Tone.GOOD)
TEST_MISTAKE = Status("the test's mistake", "?", Tone.UNSURE)
HARNESS = Status("the harness failed", "!", Tone.UNSURE)

# Below this, two decimals of a second say too little.
AT_ONCE_S = 0.1

# What a passed record's outcome may be without the client having noticed anything.
NOT_NOTICED = frozenset({"unaware", "rescued", "still_waiting"})

# By the outcome's own word, for a record that is not as promised.
STATUSES: Mapping[str, Status] = {
    outcome: Status(words, sign, Tone.BAD)
    for outcome, words, sign in (
        ("unaware", "not noticed", "✘"),
        ("rescued", "not noticed", "✘"),
        ("before_fault", "failed before the fault", "✘"),
        ("too_early", "too early", "◂"),
        ("too_late", "too late", "▸"),
        ("wrong_error", "wrong error", "≠"),
        ("still_waiting", "still waiting", "✘"),
        ("raised", "raised", "✘"),
        ("same_connection", "no new connection", "✘"),
        ("false_success", "false success", "✘"),
        ("not_restored", "subscription not restored", "✘"),
        ("duplicated", "executed twice", "✘"),
        ("storm", "reconnect storm", "✘"),
        ("too_many", "too many attempts", "✘"),
        ("ended_early", "ended early", "✘"),
        ("closed", "connection lost", "✘"),
        ("reconnected", "reconnected", "✘"),
        ("bytes_lost", "bytes lost", "✘"),
        ("still_open", "still open", "✘"),
        ("faulty", "a fault was in force", "✘"),
        ("never_broken", "never broken", "✘"),
        ("never_hit", "never hit", "✘"),
        ("not_connected", "not connected", "✘"),
        ("not_the_clients", "nothing to notice", "✘"),
        ("fails", "breaks the promise", "✘"),
    )
}
# As they follow "by".
MECHANISMS: Mapping[str, str] = {
    "keepalive": "keepalive",
    "user_timeout": "the user timeout",
    "retransmission_limit": "the retransmission limit",
    "kernel_timeout": "the kernel's timeout",
    "reset": "RST",
    "fin": "FIN",
    "refused": "a refused connection",
    "own_timeout": "its own timeout",
    "application": "the application",
}


def status_of(record: Record) -> Status:
    """Whose matter it is comes before what it is."""
    if record.passed:
        return EXPECTED_UNAWARE if record.outcome in NOT_NOTICED else AS_PROMISED
    if record.blame == "test":
        return TEST_MISTAKE
    if record.blame == "harness":
        return HARNESS
    other = Status(record.outcome.replace("_", " ") or "not as promised", "✘", Tone.BAD)
    return STATUSES.get(record.outcome, other)


def briefly(seconds: float) -> str:
    """A length of time; what a reset takes is milliseconds."""
    return duration(seconds) if seconds >= AT_ONCE_S else f"{seconds * 1000:.0f} ms"


def took_of(record: Record) -> float | None:
    """Seconds to what the expectation was about: a success, or the noticing."""
    return record.recovery if record.recovery is not None else record.after


def detail_of(record: Record) -> str:
    """By what, after how long, of how long: ``by keepalive, 3.01 s of 3.57 s promised``."""
    parts = []
    if record.mechanism:
        name = record.mechanism
        parts.append(f"by {MECHANISMS.get(name, name.replace('_', ' '))}")
    took = took_of(record)
    limit = duration(record.promised.latest) if record.promised is not None else ""
    if took is not None and took >= 0:
        recovered = "recovered in " if record.recovery is not None else ""
        promised = f" of {limit} promised" if limit else ""
        parts.append(f"{recovered}{briefly(took)}{promised}")
    elif took is not None:
        parts.append(f"{briefly(-took)} before the fault")
    elif limit and status_of(record) is EXPECTED_UNAWARE:
        parts.append(f"not within {limit}")
    elif limit and status_of(record) is not AS_PROMISED:
        parts.append(f"{limit} promised")
    if record.nominal is not None and record.after is not None:
        longer = record.nominal - record.after
        if longer > 1.0:  # fast-forwarded
            parts.append(f"{duration(record.nominal)} in production")
    return ", ".join(parts)
