"""Where long waits stand in the list that pytest-xdist hands out."""

from __future__ import annotations

import pytest

from pytest_tcpresilience.ordering import SCOPES, Distribution, order

MODES = ["load", "worksteal", *SCOPES]
# Position by position, a long test's wait; 0 is a short one, and they are numbered.
AS_COLLECTED = [0, 0, 7, 0, 8, 0, 0, 9, 0, 0]


def arranged(waits: list[float], how: Distribution, names: list[str] | None = None) -> list[float]:
    names = names or [f"test_{number}.py::test" for number in range(len(waits))]
    return [waits[place] for place in order(names, waits, how)]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        # Two for each worker at the start, the next ones when they are done with them.
        pytest.param(Distribution("load", 3), [9, 0, 8, 0, 7, 0, 0, 0, 0, 0], id="load"),
        pytest.param(Distribution("load", 2), [9, 0, 8, 7, 0, 0, 0, 0, 0, 0], id="load-two-each"),
        # Fewer than two for each: dealt like cards. The last two workers get no second one.
        pytest.param(Distribution("load", 6), [7, 0, 0, 0, 9, 8, 0, 0, 0, 0], id="load-cards"),
        pytest.param(Distribution("load", 1), [9, 8, 7, 0, 0, 0, 0, 0, 0, 0], id="load-one"),
        # Everything at once: 3, 3 and 4.
        pytest.param(Distribution("worksteal", 3), [9, 0, 0, 8, 0, 0, 7, 0, 0, 0], id="worksteal"),
        # One scope each, and then one each once more.
        pytest.param(Distribution("loadfile", 3), [7, 8, 9, 0, 0, 0, 0, 0, 0, 0], id="loadfile"),
        pytest.param(Distribution("loadfile", 2), [8, 9, 7, 0, 0, 0, 0, 0, 0, 0], id="two-files"),
        pytest.param(Distribution("each", 3), AS_COLLECTED, id="each"),
        pytest.param(Distribution("of somebody", 3), AS_COLLECTED, id="unknown"),
    ],
)
def test_where_long_waits_stand(how: Distribution, expected: list[float]) -> None:
    assert arranged([float(wait) for wait in AS_COLLECTED], how) == expected


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        # 5 for each of two workers at the start, then 6 and 5 for who has one test left.
        pytest.param(None, [*range(11), 16], id="unlimited"),
        # 2 for each at the start, then one by one.
        pytest.param(2, [*range(12)], id="limited"),
    ],
)
def test_more_than_the_first_batches_hold(chunk: int | None, expected: list[int]) -> None:
    found = arranged([0.0] * 28 + [1.0] * 12, Distribution("load", 2, chunk))
    assert [place for place, wait in enumerate(found) if wait] == expected


def test_the_first_to_ask_again_is_the_one_with_the_least() -> None:
    # The first worker has 12 and the second 4 when the last two are dealt, one by one.
    found = arranged([1.0, 1.5, 2.0, 2.0, 2.0, 10.0], Distribution("load", 2, chunk=1))
    assert found == [10.0, 2.0, 2.0, 2.0, 1.5, 1.0]


@pytest.mark.parametrize("mode", MODES)
def test_short_tests_keep_their_order(mode: str) -> None:
    names = [f"test_{number}.py::test" for number in range(len(AS_COLLECTED))]
    places = order(names, [float(wait) for wait in AS_COLLECTED], Distribution(mode, 3))
    assert sorted(places) == list(range(len(names)))
    short = [place for place in places if not AS_COLLECTED[place]]
    assert short == sorted(short)


@pytest.mark.parametrize("mode", ["load", "worksteal", "loadgroup"])
def test_a_run_without_long_waits_stays_as_collected(mode: str) -> None:
    names = [f"a.py::test[{number}]" for number in range(9)]
    assert order(names, [0.0] * 9, Distribution(mode, 2, by_size=True)) == list(range(9))


def test_equal_waits_keep_their_order() -> None:
    names = list("abcd")
    assert order(names, [1.0] * 4, Distribution("load", 1)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("mode", "name", "scope"),
    [
        ("loadscope", "a/test_b.py::TestC::test_d[x]", "a/test_b.py::TestC"),
        ("loadscope", "a/test_b.py::test_d", "a/test_b.py"),
        ("loadfile", "a/test_b.py::TestC::test_d", "a/test_b.py"),
        ("loadgroup", "a/test_b.py::test_d@together", "together"),
        ("loadgroup", "a/test_b.py::test_d[a@b]", "a/test_b.py::test_d[a@b]"),
        ("loadgroup", "a/test_b.py::test_d[a@b]@c", "c"),
    ],
)
def test_what_tests_must_have_in_common(mode: str, name: str, scope: str) -> None:
    assert SCOPES[mode](name) == scope


def test_a_scope_stays_together_and_its_long_waits_come_first() -> None:
    names = ["a.py::x", "b.py::x", "a.py::y", "b.py::y", "c.py::x"]
    how = Distribution("loadfile", 1)
    places = order(names, [0.0, 0.0, 0.0, 5.0, 0.0], how)
    assert [names[place] for place in places] == [
        "b.py::y",
        "b.py::x",
        "a.py::x",
        "a.py::y",
        "c.py::x",
    ]


def test_scopes_of_short_tests_come_by_size_if_they_should() -> None:
    names = ["a::x", "b::x", "b::y", "c::x", "d::x", "d::y", "d::z"]
    waits = [0.0] * 3 + [5.0] + [0.0] * 3

    def scopes(by_size: bool) -> str:
        places = order(names, waits, Distribution("loadscope", 1, by_size=by_size))
        return "".join(names[place][0] for place in places)

    assert scopes(by_size=True) == "cdddbba"
    assert scopes(by_size=False) == "cabbddd"


def test_without_tests_there_is_nothing_to_order() -> None:
    for mode in MODES:
        assert order([], [], Distribution(mode, 2, by_size=True)) == []
