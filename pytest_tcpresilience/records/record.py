"""One record: everything that is known about one expectation, as plain data.

Owns the fields, their order, and the way to JSON and back. A record travels from a worker
to its controller, is kept in files, and is read again by other versions, so nothing in it is
an object of Python, and what cannot be read is refused with a reason. Times are seconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pytest_tcpresilience.errors import UsageError

SCHEMA = "pytest-tcpresilience/record"
# Counts up when a field changes its meaning or goes. A new field does not count.
VERSION = 1


@dataclass(frozen=True)
class Settings:
    """Of the client's socket, as read; each as for :class:`.Keepalive`."""

    enabled: bool
    idle: int
    interval: int
    probes: int
    user_timeout_ms: int

    def __str__(self) -> str:
        after = f", user timeout {self.user_timeout_ms} ms" if self.user_timeout_ms else ""
        if not self.enabled:
            return f"keepalive off{after}"
        return f"keepalive {self.idle}/{self.interval}/{self.probes}{after}"


@dataclass(frozen=True)
class Promised:
    """The time in which the client should have acted.

    :param earliest: seconds after the fault; 0 for no lower bound. :param nominal: what the
        promised settings come to. :param latest: the limit.
    :param parts: why it is so long, line by line.
    """

    earliest: float
    nominal: float
    latest: float
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """The exception that left the block.

    :param type: its class, with its module. :param text: its own words.
    :param errno: the kernel's, by name, found in it or in what it wraps; "" for none.
    """

    type: str
    text: str
    errno: str = ""


@dataclass(frozen=True)
class Reason:
    """Why the client did not do as it should: :class:`.Cause` as data."""

    name: str
    why: str
    cure: str


@dataclass(frozen=True)
class Happening:
    """An event of the timeline.

    :param at: seconds after :attr:`Record.origin`; negative before it.
    :param kind: one of :data:`.evidence.kinds.KINDS`. :param text: the sentence for it.
    :param connection: its number, 0 for none. :param fields: what else it carries.
    """

    at: float
    kind: str
    text: str
    connection: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """What came of one expectation.

    :param test: the test's node id. :param entry: names the expectation within it.
    :param expectation: ``"detects_break"`` and so on.
    :param client: who was tested: the name that the test gave, else the test's own.
    :param fault: what was done to it, as a person would name it.
    :param effect: what its kernel met: a name of the fault table, "" when nothing hit.
    :param activity: what the client was doing.
    :param link: the link's name, and ``upstream`` where that led to.
    :param outcome: the expectation's own word. :param passed: whether that is as promised.
    :param blame: ``"client"``, ``"test"`` or ``"harness"`` when it is not.
    :param mechanism: by what the client noticed, "" where it did not or was not to.
    :param after: seconds from the fault to that. :param nominal: likewise in production,
        where time was fast-forwarded.
    :param error: what left the block. :param settings: ``None`` when they could not be read.
    :param promised: ``None`` for what has no window.
    :param recovery: seconds to the first success. :param attempts: connections opened since.
    :param cause: why not. :param summary: one sentence. :param expected: what was promised.
    :param advice: what to do. :param engine: who carried the link.
    :param versions: of Python, the kernel, the plugin. :param libraries: of the client's own
        packages, by the names under which they are installed.
    :param origin: what times are relative to: ``"fault"`` or ``"block"``.
    :param left_out: events of the timeline that are not in it, from its middle.
    :param problem: what could not be kept, and why; "" when all is here.
    """

    test: str
    entry: str
    expectation: str
    outcome: str
    passed: bool
    client: str = ""
    fault: str = ""
    effect: str = ""
    activity: str = ""
    link: str = ""
    upstream: str = ""
    blame: str = ""
    mechanism: str = ""
    after: float | None = None
    nominal: float | None = None
    error: Failure | None = None
    settings: Settings | None = None
    promised: Promised | None = None
    recovery: float | None = None
    attempts: int | None = None
    cause: Reason | None = None
    summary: str = ""
    expected: str = ""
    advice: str = ""
    engine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    origin: str = "block"
    timeline: tuple[Happening, ...] = ()
    left_out: int = 0
    problem: str = ""

    @property
    def key(self) -> str:
        """What it is called across runs: the test and its entry."""
        return f"{self.test} [{self.entry}]"

    def to_json(self, *, timeline: bool = True) -> dict[str, Any]:
        """Plain data that :func:`json.dumps` takes without help.

        :raises ValueError: for a number that JSON does not have.
        :raises TypeError: for a value that is no plain data.
        """
        document: dict[str, Any] = {"schema": SCHEMA, "version": VERSION, **asdict(self)}
        if not timeline:
            del document["timeline"], document["left_out"], document["origin"]
        # One way only, so that what a reader gets is what a worker had: lists for tuples.
        plain: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
        return plain

    @classmethod
    def from_json(cls, document: object) -> Record:
        """:raises UsageError: for what is no record, or one of a newer version."""
        where = "a record"
        if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
            raise _unreadable(where, f"its schema is not {SCHEMA!r}")
        version = document.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise _unreadable(
                where,
                f"its version is {version!r}, and this pytest-tcpresilience reads up to {VERSION}",
                "update pytest-tcpresilience here",
            )
        where = f"the record of {document.get('test')!r}"
        known = {each.name for each in fields(cls)}
        values = {name: value for name, value in document.items() if name in known}
        try:
            for name, kind in _NESTED.items():
                if values.get(name) is not None:
                    values[name] = _nested(kind, values[name])
            values["timeline"] = tuple(_nested(Happening, e) for e in values.get("timeline", ()))
            record = cls(**values)
        except (TypeError, ValueError, AttributeError) as error:
            raise _unreadable(where, str(error)) from error
        _check(where, record)
        return record


_NESTED: Mapping[str, Any] = {
    "error": Failure,
    "settings": Settings,
    "promised": Promised,
    "cause": Reason,
}
_TEXTS = tuple(each.name for each in fields(Record) if each.type == "str")
_NUMBERS = ("after", "nominal", "recovery", "attempts")


def _nested(kind: Any, document: Mapping[str, Any]) -> Any:
    known = {each.name for each in fields(kind)}
    values = {name: value for name, value in document.items() if name in known}
    if isinstance(values.get("parts"), list):
        values["parts"] = tuple(values["parts"])
    return kind(**values)


def _check(where: str, record: Record) -> None:
    """Whoever reads a file gets what the types say, whatever wrote it."""
    for name in _TEXTS:
        if not isinstance(getattr(record, name), str):
            raise _unreadable(where, f"{name} is {getattr(record, name)!r} and no text")
    if not isinstance(record.passed, bool):
        raise _unreadable(where, f"passed is {record.passed!r}, neither true nor false")
    for name in _NUMBERS:
        value = getattr(record, name)
        wrong = isinstance(value, bool) or not isinstance(value, (int, float, type(None)))
        if wrong or (isinstance(value, float) and not math.isfinite(value)):
            raise _unreadable(where, f"{name} is {value!r} and no number")
    for name in ("versions", "libraries"):
        if not isinstance(getattr(record, name), Mapping):
            raise _unreadable(where, f"{name} is {getattr(record, name)!r} and no table")


def _unreadable(
    where: str, why: str, advice: str = "record it again, or take the file as it was written"
) -> UsageError:
    return UsageError(
        f"{where} cannot be read",
        expected=f"what pytest-tcpresilience wrote, version {VERSION} or earlier",
        happened=why,
        advice=advice,
    )
