"""README and the pages of faults say what the code says: their tables are data."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from pytest_tcpresilience import Connection, Fault, Link
from pytest_tcpresilience.engine.toxics import TYPES
from pytest_tcpresilience.evidence.kinds import KINDS
from pytest_tcpresilience.evidence.promises import RULES
from pytest_tcpresilience.faults import FAULTS
from pytest_tcpresilience.stream_toxics import StreamToxics

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
API = (ROOT / "docs" / "engine-api.md").read_text()
EVIDENCE = (ROOT / "docs" / "evidence.md").read_text()
FAULTS_PAGE = (ROOT / "docs" / "faults.md").read_text()
TABLES = dict(
    re.findall(
        r"<!-- table: (\w+) -->\n.*?\| --- .*?\n(.*?)<!-- end",
        API + EVIDENCE + FAULTS_PAGE,
        re.DOTALL,
    )
)


def faults_table() -> str:
    return "".join(
        f"| `{row.call or row.name}` | {row.cause} | {row.kernel_sees} | {row.noticed_by} "
        f"| {row.new_connections} |\n"
        for row in FAULTS.values()
    )


def toxics_table() -> str:
    rows = []
    for name, kind in TYPES.items():
        attributes = ", ".join(f"`{attribute}`" for attribute in (*kind.attributes, *kind.choices))
        below = "yes" if kind.below else "no"
        rows.append(f"| `{name}` | {attributes} | {below} | {kind.summary} |\n")
    return "".join(rows)


def methods_table() -> str:
    rows = []
    for name, kind in TYPES.items():
        if not kind.below:
            parameters = inspect.signature(getattr(StreamToxics, name)).parameters.values()
            own = [each for each in parameters if each.name not in ("self", "stream", "toxicity")]
            call = ", ".join(
                f"{each.name}{'' if each.default is each.empty else f'={each.default}'}"
                for each in own
            )
            rows.append(f"| `{name}({call})` | {kind.summary} |\n")
    return "".join(rows)


def events_table() -> str:
    rows = []
    for name, kind in KINDS.items():
        if not kind.own:  # the test process's, not the engine's
            fields = [f"`{field}`" for field in kind.fields]
            fields += [f"(`{field}`)" for field in kind.sometimes]
            rows.append(f"| `{name}` | {', '.join(fields)} | {kind.happened} |\n")
    return "".join(rows)


def rules_table() -> str:
    return "".join(
        f"| `{rule.name}` | {'failure' if rule.fails else 'warning'} | {rule.why} | {rule.cure} |\n"
        for rule in RULES
    )


WRITERS = {
    "events": events_table,
    "faults": faults_table,
    "methods": methods_table,
    "rules": rules_table,
    "toxics": toxics_table,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_is_the_code(name: str) -> None:
    assert TABLES[name] == WRITERS[name]()


@pytest.mark.parametrize("name", ["link", "connection", "fault"])
def test_what_is_named_exists(name: str) -> None:
    """As ``link.stall(…)`` or ``connection.wait_closed()`` in the text."""
    classes = {"link": Link, "connection": Connection, "fault": Fault}
    named = set(re.findall(rf"`{name}\.(\w+)", README + FAULTS_PAGE))
    assert named
    assert [each for each in named if not hasattr(classes[name], each)] == []


def test_the_two_commands_are_those_of_ci() -> None:
    commands = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)
    assert len(commands) == 2
    ci = (ROOT / ".ci" / "run").read_text()
    for command in commands:
        assert command in ci
