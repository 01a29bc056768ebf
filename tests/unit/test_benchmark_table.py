"""The benchmarks' table: what is a row, what keeps a budget, and where it goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import table
from benchmarks.table import Medians

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "performance.md"


def titles(page: str) -> list[str]:
    """The first cell of each row of the table that is generated into a page."""
    generated = page.partition(table.BEGIN)[2].partition(table.END)[0]
    rows = [line for line in generated.splitlines() if line.startswith("| ")]
    return [row.split(" | ")[0].removeprefix("| ") for row in rows[2:]]


def test_the_page_has_every_row() -> None:
    assert titles(PAGE.read_text()) == [row.title for row in table.ROWS]


def test_it_runs_and_writes_every_row(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--write", str(page)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        timeout=60,
    )
    written = page.read_text()
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "old" not in written
    assert titles(written) == [row.title for row in table.ROWS]
    for row, line in zip(table.ROWS, _lines(written), strict=True):
        assert line.split(" | ")[3] != "", row.title  # the embedded engine's figure


def _lines(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("| ")][2:]


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="begin"):
        table.replace("no marks", "table")


@pytest.mark.parametrize(
    ("budget", "direct", "embedded", "toxiproxy", "kept"),
    [
        (table.at_least(2), None, 20.0, 10.0, True),
        (table.at_least(2), None, 19.9, 10.0, False),
        (table.at_least(2), None, 20.0, None, None),
        (table.at_most_share(0.25), None, 2.5, 10.0, True),
        (table.at_most_share(0.25), None, 2.6, 10.0, False),
        (table.at_most_share(0.25), None, None, 10.0, None),
        (table.ADDED, 10.0, 30.0, 30.0, True),
        (table.ADDED, 10.0, 30.1, 30.0, False),
        (table.ADDED, None, 30.0, 30.0, None),
        (table.at_most(5, "ms"), None, 5.0, None, True),
        (table.at_most(5, "ms"), None, 5.1, None, False),
        (table.at_most(5, "ms"), None, None, None, None),
    ],
)
def test_budgets(
    budget: table.Budget,
    direct: float | None,
    embedded: float | None,
    toxiproxy: float | None,
    kept: bool | None,
) -> None:
    assert budget.kept(Medians(direct, embedded, toxiproxy)) is kept


def test_a_missed_budget_is_named() -> None:
    samples = {"embedded": {"bulk": [1.0, 3.0, 2.0]}, "toxiproxy": {"bulk": [1.1]}}
    rows = table.medians(samples)
    assert rows["bulk"] == Medians(None, 2.0, 1.1)
    assert table.missed(rows) == ["bulk throughput"]
    assert "**missed**" in table.render(rows)
