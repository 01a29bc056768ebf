"""docs/expectations.md says what the code says."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

import pytest_tcpresilience
from pytest_tcpresilience import Health
from pytest_tcpresilience.evidence.diagnosis import CAUSES
from pytest_tcpresilience.evidence.recovery import STORM, STORM_S

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "expectations.md").read_text()
SNIPPETS = re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL)


def causes_table() -> str:
    return "".join(
        f"| `{row.name}` | {row.evidence} | {row.why} | {row.cure} |\n" for row in CAUSES
    )


def test_the_table_of_causes_is_the_code() -> None:
    (table,) = re.findall(r"<!-- table: causes -->\n.*?\| --- .*?\n(.*?)<!-- end", PAGE, re.DOTALL)
    assert table == causes_table()


@pytest.mark.parametrize(("path", "text"), SNIPPETS, ids=[path for path, _ in SNIPPETS])
def test_a_snippet_is_its_file(path: str, text: str) -> None:
    assert (ROOT / path).read_text() == text


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) == PAGE.count("```python") == 2


def test_each_attribute_of_health_is_on_the_page() -> None:
    told = [field.name for field in fields(Health) if field.repr]
    assert {name for name in told if f"`{name}`" not in PAGE} == set()


@pytest.mark.parametrize(
    "name", ["detects_break", "recovers", "survives", "stays_quiet", "closes_within"]
)
def test_each_expectation_is_on_the_page_with_its_arguments(name: str) -> None:
    (call,) = re.findall(rf"^\| `{name}\((.*?)\)` \|", PAGE, re.MULTILINE)
    given = re.findall(r"(\w+)(?:=(\S+?))?(?:,|$)", call)
    parameters = inspect.signature(getattr(pytest_tcpresilience, name)).parameters
    for argument, default in given:
        assert argument in parameters
        if default not in ("", "…"):
            assert default == str(parameters[argument].default)


def test_what_a_storm_is() -> None:
    assert f"More than {STORM} within {STORM_S:g} s" in PAGE
