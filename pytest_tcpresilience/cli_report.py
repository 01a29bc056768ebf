"""``python -m pytest_tcpresilience report``: runs that are over, as one report and one gate.

Owns the arguments and the exit status: 0 when all is well, 1 when the contract does not hold
or a run had problems, 2 for what cannot be done. It reads and writes files and knows nothing
of their contents.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.report import choice as choices
from pytest_tcpresilience.report import gate, options, summary, writing
from pytest_tcpresilience.report.choice import GateChoice
from pytest_tcpresilience.report.document import read
from pytest_tcpresilience.report.merging import merge
from pytest_tcpresilience.report.policy import parse_kinds, parse_policies

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

COMMAND = "report"
WELL, NOT_WELL, USAGE = 0, 1, 2


def add_to(commands: Commands) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser(
        COMMAND,
        help="make a report again, or one out of several runs, and hold it to a contract",
        description="Read what pytest --resilience-report=NAME.json has written, as one run. "
        "Exit status: 0 when all is well; 1 when the contract does not hold, or a run had "
        "problems; 2 for what cannot be done.",
    )
    command.add_argument("documents", nargs="+", metavar="RUN.json", help="of one run or several")
    command.add_argument(
        "--write",
        action="append",
        default=[],
        metavar="PATH",
        help="a report to write: .html, .md or .json; may be given several times",
    )
    command.add_argument("--contract", metavar="FILE", help="the contract to compare with")
    command.add_argument(
        "--policy",
        metavar=options.POLICY.metavar,
        help=f"{options.POLICY.help} ({options.POLICY.default})",
    )
    # With a value always: an option that may go without would swallow a document's name.
    command.add_argument("--record", metavar="KINDS", help=options.RECORD.help.partition(";")[0])


def run(parsed: argparse.Namespace, arguments: Sequence[str]) -> int:
    """:param arguments: all of the command line, the program's name left out.

    :returns: the exit status.
    """
    try:
        return _run(parsed, arguments)
    except UsageError as error:
        print(error, file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"{error.filename}: {error.strerror or error}", file=sys.stderr)
        return USAGE


def _run(parsed: argparse.Namespace, arguments: Sequence[str]) -> int:
    choice = _choice(parsed)
    paths = [Path(name) for name in parsed.write]
    writing.check_all(paths, "--write")
    document = merge({name: read(Path(name)) for name in parsed.documents})
    contract = None if choice is None else choices.load(choice, document.project)
    if choice is None or contract is None:
        for path in paths:
            writing.write(document, path)
        for problem in document.problems:
            print(f"problem: {problem}", file=sys.stderr)
        return NOT_WELL if document.problems else WELL
    decision = gate.decide(document, contract, choice.policies, choice.kinds)
    # The reports first: what cannot be written leaves the contract as it was.
    for path in paths:
        writing.write(document, path, decision.comparison)
    decision = gate.carry_out(decision, choice.path)
    for line in summary.lines(
        decision,
        contract=choice.shown,
        reports=parsed.write,
        arguments=("python", "-m", str(__package__), *arguments),
        option="--record",
    ):
        print(line.text)
    return WELL if decision.verdict.passed else NOT_WELL


def _choice(parsed: argparse.Namespace) -> GateChoice | None:
    if parsed.contract is None:
        if parsed.record is not None:
            raise UsageError(
                "--record has nothing to write to",
                expected="the path of a contract",
                happened="--contract was not given",
                advice="add --contract FILE",
            )
        return None
    kinds = frozenset() if parsed.record is None else parse_kinds(parsed.record, "--record")
    policies = parse_policies(parsed.policy or "", "--policy")
    return GateChoice(Path(parsed.contract), parsed.contract, policies, kinds)
