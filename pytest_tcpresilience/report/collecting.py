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
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_tcpresilience.records.record import Record
from pytest_tcpresilience.report.document import Document, State, ordered
from pytest_tcpresilience.report.hearing import Heard
from pytest_tcpresilience.report.taking import name_of

COLLECTOR = pytest.StashKey["Collector"]()
# What a worker says at its end, in its workeroutput.
OUTPUT = "tcpresilience_tests"
# Runs that execute no test have nothing to compare and nothing to report.
DRY = ("collectonly", "setuponly", "setupplan")


def is_dry(config: pytest.Config) -> bool:
    """Whether no test is going to be executed."""
    return any(config.getoption(each, False) for each in DRY)


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
        self._each = config.getoption("dist", "no") == "each"
        self._started = datetime.datetime.now(datetime.timezone.utc)
        # By worker with --dist=each, where all of them run the same tests; else one for all.
        self._heard: dict[str, Heard] = {}
        # Tests that began somewhere: of that, pytest-xdist does not say where.
        self._begun: set[str] = set()
        # What is to be said of workers that died, and which workers had a test at all.
        self._deaths: dict[str, str] = {}
        self._busy: set[str] = set()
        self._pythons: dict[str, str] = {}
        self._problems: list[str] = []

    def _of(self, worker: str) -> Heard:
        return self._heard.setdefault(worker if self._each else "", Heard())

    # --- what there is -------------------------------------------------------------------

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        self._of("").deselected.update(name_of(item) for item in items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:
            self._of("").names.update((item.nodeid, name_of(item)) for item in session.items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._problems.append(f"{report.nodeid or 'the root'} could not be collected")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._is_worker:
            output: dict[str, Any] = self._config.workeroutput  # type: ignore[attr-defined]
            mine = self._of("")
            # xdist's own way refuses what is no plain data, and this is long.
            output[OUTPUT] = json.dumps([mine.names, sorted(mine.deselected)])

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: Any) -> None:
        self._pythons[node.gateway.id] = ".".join(map(str, node.workerinfo["version_info"][:3]))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        names = self._of(node.gateway.id).names
        for each in ids:
            names.setdefault(each, each)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        output: dict[str, Any] = getattr(node, "workeroutput", {})
        if OUTPUT in output:
            names, deselected = json.loads(output[OUTPUT])
            heard = self._of(node.gateway.id)
            heard.names.update(names)
            heard.deselected.update(deselected)
        if error:
            self._deaths[node.gateway.id] = str(error)

    # --- what was made -------------------------------------------------------------------

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._begun.add(nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._is_worker:
            return
        # Without pytest-xdist there is no node.
        gateway: Any = getattr(getattr(report, "node", None), "gateway", None)
        worker = "" if gateway is None else str(gateway.id)
        self._busy.add(worker)
        self._of(worker).take(report, has_begun=report.nodeid in self._begun)

    # --- what comes of it ----------------------------------------------------------------

    def document(self) -> Document:
        """The run so far."""
        if len(self._heard) < 2:
            whole = self._document(next(iter(self._heard.values()), Heard()))
        else:
            from pytest_tcpresilience.report.merging import merge

            by_worker = sorted(self._heard.items())
            whole = merge({self._label(who): self._document(heard) for who, heard in by_worker})
        problems = (*whole.problems, *self._problems, *self._lost(whole.tests))
        return replace(whole, problems=problems)

    def _document(self, heard: Heard) -> Document:
        records = ordered(heard.records)
        return Document(
            records=records,
            project=project_name(self._config.rootpath),
            tests=heard.states,
            asked=asked(self._config),
            deselected=heard.left_out,
            problems=tuple(heard.problems),
            started=self._started.isoformat(timespec="seconds"),
            versions=_common(records),
        )

    def _label(self, worker: str) -> str:
        python = self._pythons.get(worker)
        return f"{worker} (Python {python})" if python else worker

    def _lost(self, states: Mapping[str, State]) -> list[str]:
        """Of each worker that died, unless it had not begun and others did all its work."""
        undone = {State.CRASHED, State.NOT_REACHED}.intersection(states.values())
        all_done = states and not undone and not self._each
        return [
            f"worker {worker} ended before its work: {error}"
            for worker, error in self._deaths.items()
            if worker in self._busy or not all_done
        ]


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
