"""The contract: what each client did when its connection died, as a file that is reviewed.

Owns the entries, what of a record is in them, and the file: how it is written, and every way
in which it can be unusable. What differs between a contract and a run is
:mod:`.comparison`'s. No moment, no machine and no port is in the file, and times are bands
(:mod:`.bands`), so that the same behaviour gives the same bytes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.records.record import Promised, Record, Settings
from pytest_tcpresilience.report import bands, files
from pytest_tcpresilience.report.bands import Band

SCHEMA = "pytest-tcpresilience/contract"
# Counts up when a field changes its meaning or goes. A new field does not count.
VERSION = 1

AS_WRITTEN = (
    "take the file as it was written, from version control, or delete it and record "
    "it anew with --resilience-record"
)
CONFLICT = re.compile(r"^(<{7}|={7}|>{7}|\|{7})( .*)?$", re.MULTILINE)
# How many connections were opened is a matter of luck where a client tries again and again.
SEVERAL = "several"
# Outcomes of a client that went on waiting until it was woken.
WOKEN = frozenset({"rescued", "still_waiting", "unaware"})
# The kernel's own timers, which end a connection by its settings.
BY_SETTINGS = frozenset({"keepalive", "user_timeout", "retransmission_limit", "kernel_timeout"})


@dataclass(frozen=True)
class Entry:
    """What a contract holds of one record. See there for the fields that have its names.

    :param error: the type of the exception. :param errno: the kernel's, by name.
    :param settings: ``None`` where they could not be read, or play no part.
    :param promised: the nominal time that was promised, and the limit. A window's lower end
        is not in it, since that depends on how long the connection happened to be idle.
    :param after: when the client noticed. :param recovery: when its next operation
        succeeded. :param attempts: ``"0"``, ``"1"`` or ``"several"`` new connections.
    """

    test: str
    entry: str
    expectation: str
    outcome: str
    client: str = ""
    fault: str = ""
    mechanism: str = ""
    error: str = ""
    errno: str = ""
    settings: Settings | None = None
    promised: Band | None = None
    after: Band | None = None
    recovery: Band | None = None
    attempts: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """As :attr:`.Record.key`."""
        return f"{self.test} [{self.entry}]"

    @classmethod
    def of(cls, record: Record) -> Entry:
        promised = record.promised
        # What leaves the block of a client that was woken is the rescue's doing.
        error = None if record.outcome in WOKEN else record.error
        after = bands.noticed(record)
        return cls(
            test=record.test,
            entry=record.entry,
            client=record.client,
            fault=record.fault,
            expectation=record.expectation,
            outcome=record.outcome,
            mechanism=record.mechanism,
            error=error.type if error else "",
            errno=error.errno if error else "",
            settings=_settings_that_tell(record, after),
            promised=None if promised is None else _promise(promised),
            after=after,
            recovery=bands.recovered(record),
            attempts=how_many(record.attempts),
            libraries=dict(sorted(record.libraries.items())),
        )

    def to_json(self) -> dict[str, Any]:
        """In the order in which a reviewer wants them, without what is empty."""
        promised = self.promised
        document = {
            "test": self.test,
            "entry": self.entry,
            "client": self.client,
            "fault": self.fault,
            "expectation": self.expectation,
            "outcome": self.outcome,
            "mechanism": self.mechanism,
            "error": self.error,
            "errno": self.errno,
            "settings": self.settings and vars(self.settings),
            "promised": promised and {"nominal": promised.earliest, "latest": promised.latest},
            "after": self.after and self.after.to_json(),
            "recovery": self.recovery and self.recovery.to_json(),
            "attempts": self.attempts,
            "libraries": dict(sorted(self.libraries.items())),
        }
        return {name: value for name, value in document.items() if value}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Entry:
        """:raises KeyError, TypeError, ValueError, AttributeError: for what is no entry."""
        texts = {name: _text(document, name) for name in _TEXTS}
        for name in ("test", "entry", "expectation", "outcome"):
            if not texts[name]:
                raise ValueError(f"it has no {name}")
        settings, promised = document.get("settings"), document.get("promised")
        if promised is not None:
            promised = {"earliest": promised["nominal"], "latest": promised["latest"]}
        return cls(
            **texts,
            settings=None if settings is None else _settings(settings),
            promised=_band(promised),
            after=_band(document.get("after")),
            recovery=_band(document.get("recovery")),
            libraries={str(k): str(v) for k, v in document.get("libraries", {}).items()},
        )


_TEXTS = (
    "test",
    "entry",
    "client",
    "fault",
    "expectation",
    "outcome",
    "mechanism",
    "error",
    "errno",
    "attempts",
)


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r} and no text")
    return value


def _settings(document: Mapping[str, Any]) -> Settings:
    values = {each.name: document[each.name] for each in fields(Settings)}
    for name, value in values.items():
        if not isinstance(value, int):
            raise ValueError(f"{name} is {value!r} and no whole number")
    return Settings(**{**values, "enabled": bool(values["enabled"])})


def _band(document: Mapping[str, Any] | None) -> Band | None:
    return None if document is None else Band.from_json(document)


def _settings_that_tell(record: Record, after: Band | None) -> Settings | None:
    """Those that play a part, and can be read each time.

    Of a socket that is closed soon after the fault, by RST or by the application, it is a race
    whether they are.
    """
    if record.outcome == "rescued":
        # It waited for all of its window, unless it had closed the socket itself.
        tell = record.cause is None or record.cause.name != "closed_by_client"
    else:
        healthy = not record.effect
        waited = after is not None and after.earliest >= bands.CLASSES_S[1]
        probed = bands.probes_band(record) is not None
        tell = healthy or waited or probed or record.mechanism in BY_SETTINGS
    return record.settings if tell else None


def _promise(promised: Promised) -> Band:
    return Band(round(float(promised.nominal), 2), round(float(promised.latest), 2))


def how_many(attempts: int | None) -> str:
    """Connections that were opened, as far as two runs agree on it."""
    if attempts is None:
        return ""
    return str(attempts) if attempts <= 1 else SEVERAL


@dataclass(frozen=True)
class Contract:
    """:param entries: by key, each once. :param project: as :attr:`.Document.project`."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    project: str = ""

    def text(self) -> str:
        """The file: each line tells one thing, and the entries are in the order of names."""
        ordered = sorted(self.entries.values(), key=lambda entry: (entry.test, entry.entry))
        document = {
            "schema": SCHEMA,
            "version": VERSION,
            "project": self.project,
            "entries": [entry.to_json() for entry in ordered],
        }
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read(path: Path) -> Contract:
    """:raises UsageError: for a file that cannot be used, with what is the matter with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise _unusable(path, error.strerror or str(error), "give the path of a file") from error
    except UnicodeDecodeError as error:
        raise _unusable(path, f"no UTF-8: {error}") from error
    return parse(text, path)


def parse(text: str, path: Path) -> Contract:
    """:param path: what it is called in an error. :raises UsageError: as :func:`read`."""
    if not text.strip():
        raise _unusable(path, "the file is empty")
    conflict = CONFLICT.search(text)
    if conflict:
        line = text.count("\n", 0, conflict.start()) + 1
        raise _unusable(
            path,
            f"line {line} is a conflict marker of version control: {conflict[0].strip()}",
            "take either side, run the tests, and accept what changed with --resilience-record",
        )
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unusable(path, f"no JSON, or only the beginning of it: {error}") from error
    return _from_json(document, path)


def _from_json(document: object, path: Path) -> Contract:
    if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
        raise _unusable(path, f"its schema is not {SCHEMA!r}", "give the path of a contract")
    version = document.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and version > VERSION:
        raise _unusable(
            path,
            f"its version is {version}, and this pytest-tcpresilience reads up to {VERSION}",
            "update pytest-tcpresilience here",
        )
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise _unusable(path, f"its version is {version!r}")
    if not isinstance(document.get("entries"), list):
        raise _unusable(path, "it has no list of entries")
    entries: dict[str, Entry] = {}
    for number, each in enumerate(document["entries"], 1):
        try:
            entry = Entry.from_json(each)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unusable(path, f"entry {number}: {type(error).__name__}: {error}") from error
        if entry.key in entries:
            raise _unusable(path, f"two of its entries are {entry.key}")
        entries[entry.key] = entry
    return Contract(entries, str(document.get("project", "")))


def write(contract: Contract, path: Path) -> None:
    """All of it or nothing: whatever happens meanwhile, one of the two files is there.

    :raises OSError: when it cannot be written; the file that was there is as it was.
    """
    files.replace(path, contract.text())


def check_writable(path: Path) -> None:
    """:raises UsageError: for a path that a contract cannot be written to."""
    target = files.target_of(path)
    if target.is_dir():
        raise _unusable(path, "it is a directory", "give the path of a file")
    if not target.parent.is_dir():
        raise _unusable(path, f"there is no directory {target.parent}", "make it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise _unusable(path, f"{target.parent} cannot be written to", "ask for another path")


def check_project(contract: Contract, path: Path, project: str) -> None:
    """:param project: that is tested here. :raises UsageError: for another one's contract."""
    if contract.project and project and contract.project != project:
        raise UsageError(
            f"{path} is the contract of another project",
            expected=f"one of {project!r}, which is tested here",
            happened=f"it is of {contract.project!r}",
            advice=f"give this project a contract of its own, or write {project!r} into the "
            "file if the project was renamed",
        )


def check_root(contract: Contract, path: Path, root: Path) -> None:
    """For a contract whose project's name says nothing.

    :param root: what node ids are relative to.
    :raises UsageError: when not one of its entries is of a file that is there.
    """
    modules = {entry.test.partition("::")[0] for entry in contract.entries.values()}
    if modules and not any((root / module).exists() for module in modules):
        raise UsageError(
            f"{path} is the contract of another project",
            expected=f"entries of tests under {root}",
            happened=f"none of its {len(modules)} test files is there, such as {min(modules)}",
            advice="run it from its own project, with that project's --rootdir; if its tests "
            "were moved, add --resilience-record=create,prune",
        )


def _missing(path: Path) -> UsageError:
    return UsageError(
        f"there is no contract {path}",
        expected="a file that --resilience-record has written",
        happened="no such file",
        advice="record the first one: run the tests with --resilience-record",
    )


def _unusable(path: Path, why: str, advice: str = AS_WRITTEN) -> UsageError:
    return UsageError(
        f"the contract {path} cannot be used",
        expected=f"a file that --resilience-record has written, version {VERSION} or earlier",
        happened=why,
        advice=advice,
    )
