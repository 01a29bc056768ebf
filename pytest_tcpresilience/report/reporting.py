"""Writes the reports of a run at its end, where the run is reported.

Owns the hooks, and what becomes of a document that cannot be written where it should. It is
registered only for a run that was asked for a report, and never in a worker of pytest-xdist.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_tcpresilience.report.collecting import collect, is_dry
from pytest_tcpresilience.report.comparison import Comparison
from pytest_tcpresilience.report.document import Document
from pytest_tcpresilience.report.writing import check_all, keep_elsewhere, write

# What a report may show besides the document; whoever compares puts it here before the end.
COMPARISON = pytest.StashKey[Comparison]()
# The reports that were written, for whoever names them.
WRITTEN = pytest.StashKey[tuple[Path, ...]]()


def begin(config: pytest.Config, paths: Sequence[Path], where: str) -> None:
    """:param where: which option asked for them.

    :raises UsageError: for a path that cannot be written, before any test runs.
    """
    if hasattr(config, "workerinput"):
        collect(config)  # the controller asks for what it saw
        return
    check_all(paths, where)
    if is_dry(config):  # yesterday's report stays
        return
    collect(config)
    config.pluginmanager.register(Reporter(config, paths), "tcpresilience_reporter")


class Reporter:
    """:param paths: absolute, for a test may change the directory."""

    def __init__(self, config: pytest.Config, paths: Sequence[Path]) -> None:
        self._config = config
        self._paths = paths
        self._problems: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        document = collect(self._config).document()
        comparison = self._config.stash.get(COMPARISON, None)
        written = []
        for path in self._paths:
            try:
                write(document, path, comparison)
                written.append(path)
            except Exception as error:  # whatever it is, the other reports are still to come
                self._problems.append(f"{path} could not be written: {_words(error)}")
        self._config.stash[WRITTEN] = tuple(written)
        if self._problems:
            self._problems.append(_rescue(document, written))
            if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for problem in self._problems:
            terminalreporter.write_line(f"tcpresilience: {problem}", red=True)
        if self._config.pluginmanager.has_plugin("tcpresilience_gate"):
            return  # it names them between its verdict and its last line
        for path in self._config.stash.get(WRITTEN, ()):
            terminalreporter.write_line(f"tcpresilience: report: {path}")


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


def _rescue(document: Document, written: Sequence[Path]) -> str:
    """Where the results are, all the same."""
    kept = next((path for path in written if path.suffix.lower() == ".json"), None)
    if kept is None:
        try:
            kept = keep_elsewhere(document)
        except OSError as error:
            return f"its results could not be kept as a temporary file either: {_words(error)}"
    return (
        f"no result is lost, they are in {kept}: python -m pytest_tcpresilience report {kept} "
        "--write PATH makes the report again"
    )
