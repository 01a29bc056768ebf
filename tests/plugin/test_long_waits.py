"""The marker of tests that wait long: who gets it, and what it is good for without workers."""

from __future__ import annotations

import pytest

from tests.inner import Inner

SUITE = """
    import pytest

    def test_quick(): pass

    @pytest.mark.resilience(wait=5)
    def test_five(): pass

    @pytest.mark.resilience(wait=60)
    class TestSlow:
        def test_as_its_class(self): pass

        @pytest.mark.resilience(wait=0.1)
        def test_quicker_than_its_class(self): pass

    @pytest.mark.parametrize(
        "wait", [pytest.param(1), pytest.param(2, marks=pytest.mark.resilience(wait=20))]
    )
    def test_one_of_two(wait): pass

    @pytest.mark.long_wait
    def test_by_hand(): pass
"""
LONG = ["test_as_its_class", "test_one_of_two[2]", "test_by_hand"]
SHORT = ["test_quick", "test_five", "test_quicker_than_its_class", "test_one_of_two[1]"]


def selected(inner: Inner, *args: str) -> list[str]:
    result = inner.run(SUITE, "--collect-only", "-q", "--strict-markers", *args)
    lines = [line for line in result.outlines if "::" in line]
    return [line.rpartition("::")[2] for line in lines]


def test_long_waits_are_selected_by_their_marker(inner: Inner) -> None:
    assert selected(inner, "-m", "long_wait") == LONG
    assert selected(inner, "-m", "not long_wait") == SHORT


def test_what_is_long_is_an_option(inner: Inner) -> None:
    assert "test_five" in selected(inner, "-m", "long_wait", "--resilience-long-wait=5")
    assert selected(inner, "-m", "long_wait", "--resilience-long-wait=99") == ["test_by_hand"]
    inner.pytester.makeini("[pytest]\nresilience_long_wait = 5")
    assert "test_five" in selected(inner, "-m", "long_wait")


def test_markers_that_a_conftest_adds_count(inner: Inner) -> None:
    inner.pytester.makeconftest(
        """
        import pytest

        def pytest_collection_modifyitems(items):
            items[0].add_marker(pytest.mark.resilience(wait=11))
        """
    )
    assert selected(inner, "-m", "long_wait") == ["test_quick", *LONG]


def test_without_workers_the_order_is_as_collected(inner: Inner) -> None:
    result = inner.run(SUITE, "-v", "-p", "no:xdist")
    ran = [line.split()[0].rpartition("::")[2] for line in result.outlines if " PASSED" in line]
    assert ran == [
        "test_quick",
        "test_five",
        "test_as_its_class",
        "test_quicker_than_its_class",
        "test_one_of_two[1]",
        "test_one_of_two[2]",
        "test_by_hand",
    ]


@pytest.mark.parametrize("wait", ["0", "-3", "'ten'", "float('inf')", "True"])
def test_a_wait_that_is_no_time_fails_its_test_alone(inner: Inner, wait: str) -> None:
    result = inner.run(
        f"""
        import pytest

        @pytest.mark.resilience(wait={wait})
        def test_wrong(): pass

        def test_right(): pass
        """
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*UsageError: @pytest.mark.resilience(wait=*): * is no time"])


def test_both_markers_explain_themselves(inner: Inner) -> None:
    lines = inner.show("--markers")
    lines.stdout.fnmatch_lines(
        [
            "@pytest.mark.resilience(slack, hit_timeout, engine_timeout, wait): settings of *",
            "@pytest.mark.long_wait: the test waits at least --resilience-long-wait; *",
        ]
    )
