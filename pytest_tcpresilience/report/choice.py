"""What was asked of the gate: which contract, what fails, and what is recorded.

Owns what the options' values come to, and what is refused before any test runs. What a policy
or a kind means is :mod:`.policy`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.report import contract
from pytest_tcpresilience.report.comparison import Status
from pytest_tcpresilience.report.contract import Contract
from pytest_tcpresilience.report.options import CONTRACT, POLICY, RECORD
from pytest_tcpresilience.report.policy import DEFAULTS, Kind, Policy, parse_kinds, parse_policies


@dataclass(frozen=True)
class GateChoice:
    """What was asked of the gate.

    :param path: the contract. :param shown: the path as its user gave it.
    :param kinds: what is recorded; none for a comparison alone.
    """

    path: Path
    shown: str
    policies: Mapping[Status, Policy] = field(default_factory=lambda: DEFAULTS)
    kinds: frozenset[Kind] = frozenset()


def choose_gate(
    ini: Mapping[str, Any],
    environment: Mapping[str, str],
    flags: Mapping[str, Any],
    *,
    started_in: Path,
    ini_directory: Path,
) -> GateChoice | None:
    """The choice of a run; ``None`` when it has no contract.

    :param ini: values by ini name. :param environment: the process's.
    :param flags: values by option name, ``None`` where not given; ``record`` is "" where
        it was given alone.
    :raises UsageError: naming where a bad value came from.
    """
    record, policy = flags.get(RECORD.name), POLICY.given(ini, environment, flags)
    kinds = frozenset() if record is None else parse_kinds(str(record), RECORD.flag)
    policies = DEFAULTS if policy is None else parse_policies(str(policy[1]), policy[0])
    given = CONTRACT.given(ini, environment, flags)
    if given is None:
        if kinds:
            raise UsageError(
                f"{RECORD.flag} has nothing to write to",
                expected=f"the path of a contract, by {CONTRACT.flag}=FILE, the ini option "
                f"{CONTRACT.ini} or {CONTRACT.variable}",
                happened="none was given",
                advice=f"add {CONTRACT.flag}=contract.json",
            )
        return None
    origin, shown = given[0], str(given[1])
    base = ini_directory if origin.startswith("ini option") else started_in
    return GateChoice(base / Path(shown).expanduser(), shown, policies, kinds)


def load(choice: GateChoice, project: str, root: Path | None = None) -> Contract:
    """The contract, checked as far as that can be done before any result is there.

    :param project: that is tested. :param root: what node ids are relative to, where there
        is one.
    :raises UsageError: with what is the matter.
    """
    if choice.kinds:
        contract.check_writable(choice.path)
    if Kind.CREATE in choice.kinds and not choice.path.exists():
        return Contract(project=project)
    found = contract.read(choice.path)
    contract.check_project(found, choice.path, project)
    # Names that agree are proof enough, and then all its tests may have been moved.
    known = bool(project) and found.project == project
    if root is not None and not known and Kind.PRUNE not in choice.kinds:
        contract.check_root(found, choice.path, root)
    return found
