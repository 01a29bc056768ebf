"""``docs/virtual.md`` says what the simulation does: its snippet runs, and its trace is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "virtual.md").read_text()


def test_the_trace_is_what_the_snippet_prints(pytester: pytest.Pytester) -> None:
    path = "examples/virtual/test_pulled_cable.py"
    assert f"<!-- file: {path} -->" in PAGE
    text = (ROOT / path).read_text()
    (trace,) = re.findall(r"<!-- trace: pulled_cable -->\n```\n(.*?)```", PAGE, re.DOTALL)
    pytester.makepyfile(text)
    outcome = pytester.runpytest_inprocess("-s", "-p", "no:asyncio")
    outcome.assert_outcomes(passed=1)
    # pytest begins the first line with the name of the file.
    lines = [re.sub(r"^\S+\.py ", "", line) for line in outcome.outlines]
    printed = [line for line in lines if "Flags" in line]
    assert printed == trace.splitlines()


def test_every_file_that_it_names_exists() -> None:
    named = re.findall(r"`((?:tests|examples|pytest_tcpresilience)/[\w./]+)`", PAGE)
    assert len(named) >= 3
    missing = [each for each in named if not (ROOT / each).exists()]
    assert missing == []
