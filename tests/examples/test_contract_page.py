"""docs/contract.md says what the code does: its tables are data, and its file can be read."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_tcpresilience.report import contract as contracts
from pytest_tcpresilience.report.bands import BELOW_SHARE, CLASSES_S
from pytest_tcpresilience.report.comparison import (
    BY_STATE,
    COMPARED,
    LEFT_OUT,
    NO_SUCH_TEST,
    NOT_ASKED,
    Weight,
)
from pytest_tcpresilience.report.options import OPTIONS
from pytest_tcpresilience.report.policy import ACCEPTED_BY, DEFAULTS, Kind

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "contract.md").read_text()


def test_the_table_of_options_is_the_code() -> None:
    rows = "".join(
        f"| `{option.flag}` "
        + ("| no | no " if option.flag_only else f"| `{option.variable}` | `{option.ini}` ")
        + f"| {option.default or 'none'} | {option.help} |\n"
        for option in OPTIONS
    )
    assert re.findall(r"<!-- table: gate -->\n.*?\| --- .*?\n(.*?)<!-- end", PAGE, re.DOTALL) == [
        rows
    ]


def test_every_whereabouts_of_an_entry_is_in_its_table() -> None:
    answers = [*BY_STATE.values(), LEFT_OUT, NOT_ASKED, NO_SUCH_TEST]
    said = {(status, why) for status, why, _gone in answers}
    rows = re.findall(r"^\| (missing|deselected): (.*?) \| .* \| `(\w+)` \|$", PAGE, re.MULTILINE)
    assert {(status, why) for status, why, _policy in rows} == {(str(s), w) for s, w in said}
    assert all(status == policy for status, _why, policy in rows)
    assert {policy for *_, policy in rows} | {"changed", "new"} == set(map(str, DEFAULTS))


def test_what_is_compared_is_as_heavy_as_it_says() -> None:
    for weight in Weight:
        (row,) = re.findall(rf"^\| {weight.name.lower()} \| (.*) \|$", PAGE, re.MULTILINE)
        names = {each.what for each in COMPARED if each.weight is weight}
        words = {"promised": "what was promised", "attempts": "new connections"}
        assert [name for name in names if words.get(name, name) not in row] == []


def test_the_classes_and_the_kinds_are_those() -> None:
    numbers = [f"{each:g}" for each in CLASSES_S]
    assert f"begin at {', '.join(numbers[:-1])} and {numbers[-1]} s" in " ".join(PAGE.split())
    assert f"each {BELOW_SHARE:.0%}".replace("%", " %") in " ".join(PAGE.split())
    kinds = re.findall(r"^\| `(\w+)` \| (?:entries|away)", PAGE, re.MULTILINE)
    assert kinds == list(map(str, Kind))
    assert set(ACCEPTED_BY.values()) == set(Kind)


def test_the_file_that_is_shown_is_one_of_the_example() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    shown = contracts.parse(text, Path("the page"))
    real = contracts.read(ROOT / "examples" / "ci_gate" / "contract.json")
    assert shown.project == real.project
    assert shown.entries.items() <= real.entries.items()
    assert len(shown.entries) == 1
