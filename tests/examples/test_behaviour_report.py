"""The example makes the report that README and the documentation show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_tcpresilience.report import table
from pytest_tcpresilience.report.document import read
from pytest_tcpresilience.report.statuses import detail_of, status_of

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "behaviour_report" / "test_behaviour.py"
PAGE = (ROOT / "docs" / "report.md").read_text()
SHOWN = re.search(r"<!-- table: behaviour -->\n(.*?)<!-- end", PAGE, re.DOTALL)
STRICT = ("-W", "error", "-p", "no:asyncio", "-p", "no:trio", "-p", "no:hypothesispytest")


def without_times(text: str) -> str:
    """What a client took is another time in each run; what it was promised is not."""
    return re.sub(r"\d+(?:\.\d+)? m?s(?= of)", "…", text)


def test_the_example_still_comes_to_what_is_shown(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_behaviour=EXAMPLE.read_text())
    names = ("a.json", "a.md", "a.html")
    result = pytester.runpytest_inprocess(
        *STRICT, *(f"--resilience-report={name}" for name in names)
    )
    result.assert_outcomes(passed=1)
    records = read(pytester.path / "a.json").records
    found = {
        (table.client_of(each), table.column_of(each)): f"{status_of(each).words} {detail_of(each)}"
        for each in records
    }
    assert len(found) == len(records) == 25
    assert SHOWN is not None
    written = (pytester.path / "a.md").read_text()
    rows = "".join(f"{line}\n" for line in written.splitlines() if line.startswith("| **"))
    shown = "".join(f"{line}\n" for line in SHOWN[1].splitlines() if line.startswith("| **"))
    assert without_links(without_times(rows)) == without_links(without_times(shown))


def without_links(text: str) -> str:
    return re.sub(r"\[([^\]]*)\]\(#r\d+\)", r"\1", text)
