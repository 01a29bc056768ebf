"""The gate inside a run of pytest: when it decides, and how that reaches the exit status.

Owns the hooks. What is decided is :mod:`.gate`'s, and what is said :mod:`.summary`'s. It is
registered where a run is reported, so never in a worker, and only for a run with a contract.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_tcpresilience.report import choice as choices
from pytest_tcpresilience.report import gate, summary
from pytest_tcpresilience.report.choice import GateChoice
from pytest_tcpresilience.report.collecting import collect, is_dry, project_name
from pytest_tcpresilience.report.contract import Contract
from pytest_tcpresilience.report.gate import Decision
from pytest_tcpresilience.report.paths import ini_directory
from pytest_tcpresilience.report.reporting import COMPARISON, WRITTEN

# As the terminal's writer knows them.
MARKUP = {
    summary.GOOD: {"green": True},
    summary.BAD: {"red": True},
    summary.WARN: {"yellow": True},
    summary.PLAIN: {},
}
NAME = "tcpresilience_gate"


def begin(config: pytest.Config, ini: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """:param ini: values by ini name. :param flags: values by option name.

    :raises UsageError: for what cannot be used, before any test runs.
    """
    if hasattr(config, "workerinput"):
        collect(config)  # the controller asks for what it saw
        return
    choice = choices.choose_gate(
        ini,
        os.environ,
        flags,
        started_in=config.invocation_params.dir,
        ini_directory=ini_directory(config),
    )
    if choice is None or is_dry(config):
        return
    root = config.rootpath
    contract = choices.load(choice, project_name(root), root)
    collect(config)
    config.pluginmanager.register(ContractGate(config, choice, contract), NAME)


class ContractGate:
    """:param contract: as it was before the run."""

    def __init__(self, config: pytest.Config, choice: GateChoice, contract: Contract) -> None:
        self._config = config
        self._choice = choice
        self._contract = contract
        self._decision: Decision | None = None
        # Now, because a test may go to another directory.
        self._command = [*program(), *map(str, config.invocation_params.args)]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        # With pytest-xdist the loop ends when all workers are down. Later hooks are too late:
        # what the terminal's summary is told of the exit status is fixed by then.
        stopped = True
        try:
            result = yield
            stopped = False
            return result
        except session.Failed:  # -x, --maxfail: what ran has run
            stopped = False
            raise
        finally:
            decision = self._decision = self._decide(stopped)
            self._config.stash[COMPARISON] = decision.comparison
            if not decision.verdict.passed:
                session.testsfailed += max(1, len(decision.verdict.failing))

    def _decide(self, stopped: bool) -> Decision:
        document = collect(self._config).document()
        kinds = frozenset() if stopped else self._choice.kinds
        decision = gate.decide(document, self._contract, self._choice.policies, kinds)
        if stopped and self._choice.kinds:
            return gate.with_problem(decision, "the run was interrupted, so nothing was recorded")
        return gate.carry_out(decision, self._choice.path)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._decision is None:
            return  # pytest ended before it came to any test, and has said why
        terminalreporter.section(summary.TITLE)
        for line in summary.lines(
            self._decision,
            contract=self._choice.shown,
            reports=[str(path) for path in self._config.stash.get(WRITTEN, ())],
            arguments=self._command,
        ):
            terminalreporter.write_line(line.text, **MARKUP[line.style])


def program() -> list[str]:
    """How pytest was started, as far as it can be repeated in the same shell."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return [_shown(sys.orig_argv[0]), "-m", "pytest"]
    if started.name not in ("pytest", "py.test"):
        return ["pytest"]  # from within another program, which is not ours to repeat
    found = shutil.which(started.name)
    is_first = found is not None and started.exists() and os.path.samefile(found, started)
    return [started.name] if is_first else [_shown(str(started))]


def _shown(path: str) -> str:
    """Relative where that is shorter."""
    if not os.path.isabs(path):
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
