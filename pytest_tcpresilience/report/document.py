"""The document of a run: its records, and which tests were there to make some.

Owns its fields, the JSON file, and how the documents of several runs become one. The gate and
every report are made of a document and of nothing else, so that a file of yesterday, or the
files of several machines, do as well as the run that has just ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.records.record import Record

SCHEMA = "pytest-tcpresilience/document"
VERSION = 1


class State(str, Enum):
    """What became of a test. Of several runs the first of these counts."""

    RAN = "ran"
    CRASHED = "crashed"
    """Its process ended in the middle of it, so its records are lost."""
    SKIPPED = "skipped"
    NOT_REACHED = "not_reached"
    """It was chosen, and the run ended before (``-x``, an interrupt, dead workers)."""
    DESELECTED = "deselected"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Document:
    """A run, or several that were merged.

    :param records: as :func:`ordered` has them.
    :param project: the name of the project that was tested, "" when nothing says it.
    :param tests: by node id, every test that was collected.
    :param asked: the paths and node ids that the run was asked for, relative to its root;
        "" is everything.
    :param deselected: keys of entries that were left out by choice, though their test ran.
    :param problems: what the run itself has to say against these records, each a sentence.
    :param started: of the first run, in ISO 8601 and UTC.
    :param versions: of what was the same for all records.
    """

    records: tuple[Record, ...] = ()
    project: str = ""
    tests: Mapping[str, State] = field(default_factory=dict)
    asked: tuple[str, ...] = ()
    deselected: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    started: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "project": self.project,
            "started": self.started,
            "versions": dict(sorted(self.versions.items())),
            "asked": list(self.asked),
            "tests": {test: str(state) for test, state in sorted(self.tests.items())},
            "deselected": list(self.deselected),
            "problems": list(self.problems),
            "records": [record.to_json() for record in self.records],
        }

    @classmethod
    def from_json(cls, document: object, where: str = "the document") -> Document:
        """:param where: what it is called in an error.

        :raises UsageError: for anything that no run has written.
        """
        if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
            raise _unreadable(where, f"its schema is not {SCHEMA!r}")
        version = document.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise _unreadable(where, f"its version is {version!r}, newer than {VERSION}")
        try:
            return cls(
                records=ordered(Record.from_json(each) for each in document["records"]),
                project=str(document["project"]),
                tests={str(test): State(state) for test, state in document["tests"].items()},
                asked=tuple(map(str, document["asked"])),
                deselected=tuple(map(str, document["deselected"])),
                problems=tuple(map(str, document["problems"])),
                started=str(document["started"]),
                versions={str(k): str(v) for k, v in document["versions"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unreadable(where, f"{type(error).__name__}: {error}") from error


def ordered(records: Iterable[Record]) -> tuple[Record, ...]:
    """By test and entry, so that who ran first, and where, does not show."""
    return tuple(sorted(records, key=lambda record: (record.test, record.entry)))


def read(path: Path) -> Document:
    """:raises UsageError: for a file that is none, or cannot be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(str(path), error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(str(path), f"no JSON: {error}") from error
    return Document.from_json(document, str(path))


def _unreadable(where: str, why: str) -> UsageError:
    return UsageError(
        f"{where} cannot be read",
        expected=f"a file that --resilience-report=….json has written, version {VERSION} or "
        "earlier",
        happened=why,
        advice="run the tests again with --resilience-report=NAME.json",
    )
