"""Collects the document of a run where it is reported: in the controller, or the only process.

Owns what is learnt from pytest's reports and from pytest-xdist's workers: the records, and
what became of each test. It asks nothing of a worker that has died: what that had to say is
on the reports that it sent before.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.records.record import Record
from pytest_tcpresilience.report.document import Document, State, ordered
from pytest_tcpresilience.report.taking import ATTRIBUTE, name_of

COLLECTOR = pytest.StashKey["Collector"]()
# What a worker says at its end, in its workeroutput.
OUTPUT = "tcpresilience_tests"


def collect(config: pytest.Config) -> Collector:
    """The run's collector, which begins with the first who asks for it."""
    if COLLECTOR not in config.stash:
        config.stash[COLLECTOR] = Collector(config)
        config.pluginmanager.register(config.stash[COLLECTOR], "tcpresilience_collector")
    return config.stash[COLLECTOR]


class Collector:
    """A plugin of its own, registered when somebody wants the document: :func:`collect`.

    In a worker it only counts tests, and its controller asks for the rest.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._is_worker = hasattr(config, "workerinput")
        self._started = datetime.datetime.now(datetime.timezone.utc)
        # By test and worker: with --dist=each several workers run the same test.
        self._records: dict[tuple[str, str], list[Record]] = {}
        self._left_out: dict[tuple[str, str], list[str]] = {}
        self._states: dict[str, State] = {}
        # Names that pytest-xdist has changed, by the changed ones.
        self._names: dict[str, str] = {}
        self._chosen: set[str] = set()
        self._deselected: set[str] = set()
        self._problems: list[str] = []

    # --- what there is -------------------------------------------------------------------

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        self._deselected.update(name_of(item) for item in items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self._names[item.nodeid] = name_of(item)
        self._chosen.update(self._names.values())

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._problems.append(f"{report.nodeid or 'the root'} could not be collected")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._is_worker:
            output: dict[str, Any] = self._config.workeroutput  # type: ignore[attr-defined]
            # xdist's own way refuses what is no plain data, and this is long.
            output[OUTPUT] = json.dumps([self._names, sorted(self._deselected)])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        for each in ids:
            self._names.setdefault(each, each)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        output: dict[str, Any] = getattr(node, "workeroutput", {})
        if OUTPUT in output:
            names, deselected = json.loads(output[OUTPUT])
            self._names.update(names)
            self._deselected.update(deselected)
        if error:
            self._problems.append(f"worker {node.gateway.id} ended before its work: {error}")

    # --- what was made -------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._is_worker:
            return
        test = report.nodeid
        run = test, str(getattr(report, "worker_id", ""))
        if report.when == "setup":  # it begins, or begins again
            self._records.pop(run, None)
            self._left_out.pop(run, None)
        state = _state_of(report)
        if state is not None:  # subtests come first, and their test has the last word
            self._states[test] = state
        luggage = getattr(report, ATTRIBUTE, None)
        if luggage is not None:
            self._take(run, luggage)

    def _take(self, run: tuple[str, str], luggage: str) -> None:
        try:
            document = json.loads(luggage)
            records = [Record.from_json(each) for each in document["records"]]
            left_out = [str(each) for each in document["deselected"]]
        except (ValueError, KeyError, TypeError, UsageError) as error:
            self._problems.append(f"the records of {run[0]} could not be read: {error}")
            return
        self._records.setdefault(run, []).extend(records)
        self._left_out.setdefault(run, []).extend(left_out)

    # --- what comes of it ----------------------------------------------------------------

    def document(self) -> Document:
        """The run so far."""
        records = ordered(record for found in self._records.values() for record in found)
        chosen = self._chosen | set(self._names.values())
        states = dict.fromkeys(chosen, State.NOT_REACHED)
        states |= dict.fromkeys(self._deselected - chosen, State.DESELECTED)
        states |= {self._names.get(test, test): state for test, state in self._states.items()}
        return Document(
            records=records,
            project=project_name(self._config.rootpath),
            tests=states,
            asked=asked(self._config),
            deselected=tuple(sorted({key for keys in self._left_out.values() for key in keys})),
            problems=tuple(self._problems),
            started=self._started.isoformat(timespec="seconds"),
            versions=_common(records),
        )


def _state_of(report: pytest.TestReport) -> State | None:
    if report.when not in ("setup", "call", "teardown"):
        return State.CRASHED  # xdist reports for a worker that died in a test
    if report.when == "teardown":
        return None
    # A test that is expected to fail is reported as skipped, and has run.
    if report.skipped and not hasattr(report, "wasxfail"):
        return State.SKIPPED
    # A setup that passed says nothing: the test may never begin.
    return None if report.when == "setup" and report.passed else State.RAN


def _common(records: Iterable[Record]) -> dict[str, str]:
    """Versions that all records share."""
    common: dict[str, str] | None = None
    for record in records:
        theirs = dict(record.versions)
        common = theirs if common is None else dict(common.items() & theirs.items())
    return common or {}


def asked(config: pytest.Config) -> tuple[str, ...]:
    """What the run was asked for, relative to its root; "" is everything.

    Empty where that cannot be told: ``--last-failed`` and ``--stepwise`` leave files out
    without a word, so nothing that did not run was asked for.
    """
    if config.getoption("lf", False) or config.getoption("stepwise", False):
        return ()
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return ("",)
    return tuple(sorted({_relative(config, each) for each in config.args}))


def _relative(config: pytest.Config, argument: str) -> str:
    path, separator, rest = argument.partition("::")
    absolute = Path(os.path.normpath(config.invocation_params.dir / path))
    try:
        relative = absolute.relative_to(config.rootpath).as_posix()
    except ValueError:
        return argument
    return f"{'' if relative == '.' else relative}{separator}{rest}"


def project_name(root: Path) -> str:
    """What ``pyproject.toml`` at the root calls the project; "" when it says nothing.

    The directory's own name is no help: every checkout may have another.
    """
    try:
        text = (root / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    return _name_in(text)


def _name_in(text: str) -> str:
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # pytest brings it for these
        import tomli as tomllib
    try:
        name = tomllib.loads(text).get("project", {}).get("name", "")
    except (tomllib.TOMLDecodeError, AttributeError):
        return ""
    return name if isinstance(name, str) else ""
