"""The language of ``--resilience-cells``: words, operators, parentheses, and what is wrong."""

from __future__ import annotations

import pytest

from pytest_tcpresilience import UsageError
from pytest_tcpresilience.matrix.selection import Selection, choose_cells

NAMES = ("psycopg × silent_drop", "psycopg × stall", "our client × stall", "Redis × reset")


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("psycopg", (0, 1)),
        ("PSYCOPG", (0, 1)),
        ("redis", (3,)),
        ("psycopg and stall", (1,)),
        ("psycopg or stall", (0, 1, 2)),
        ("not stall", (0, 3)),
        ("not not stall", (1, 2)),
        ("NOT stall AND psycopg", (0,)),
        ("redis or psycopg and stall", (1, 3)),
        ("(redis or psycopg) and (stall or reset)", (1, 3)),
        ("not (redis or stall)", (0,)),
        ('"our client"', (2,)),
        ("'client × stall'", (2,)),
        ('"and"', ()),
        ("(((reset)))", (3,)),
        ("×", (0, 1, 2, 3)),
    ],
)
def test_what_is_chosen(text: str, chosen: tuple[int, ...]) -> None:
    selection = Selection(text, "--resilience-cells")
    assert tuple(n for n, name in enumerate(NAMES) if name in selection) == chosen


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty, at character 1"),
        ("   ", "it is empty"),
        ("a b", "and, or, or not is missing before 'b', at character 3"),
        ("a not b", "and, or, or not is missing before 'not', at character 3"),
        ("a and", "a word is missing before the end, at character 6"),
        ("or a", "a word is missing before 'or', at character 1"),
        ("a and or b", "a word is missing before 'or', at character 7"),
        ("(a", "a closing parenthesis is missing, at character 3"),
        ("()", r"a word is missing before '\)', at character 2"),
        ("a)", r"'\)' has no counterpart, at character 2"),
        ("a (b)", r"'\(' has no counterpart, at character 3"),
        ("a or 'b", "a closing quotation mark is missing, at character 5"),
        ("''", "an empty word is in every name, at character 1"),
    ],
)
def test_what_cannot_be_read(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        Selection(text, "ini option x")
    assert caught.value.summary == f"ini option x: {text!r} cannot be read"


def test_the_nearest_value_counts() -> None:
    ini, environment = {"resilience_cells": "a"}, {"RESILIENCE_CELLS": "b"}
    assert choose_cells({}, {}, {}) is None
    assert str(choose_cells(ini, {}, {"cells": None})) == "ini option resilience_cells 'a'"
    assert str(choose_cells(ini, environment, {})) == ("environment variable RESILIENCE_CELLS 'b'")
    assert str(choose_cells(ini, environment, {"cells": "c"})) == "--resilience-cells 'c'"
