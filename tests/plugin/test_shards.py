"""Shards of a suite, each a run of its own, are held to one contract as one run would be."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_tcpresilience.cli import main

# Loaded here, and so the same for each run in this process.
from pytest_tcpresilience.report import hooks, reporting  # noqa: F401
from pytest_tcpresilience.report.document import read
from tests.inner import STRICT, Inner

# Records made by hand; what the client of `c` does is in the environment.
CONFTEST = """
    import os
    import pytest
    from pytest_tcpresilience.records.record import Record
    from pytest_tcpresilience.report.taking import journal_of

    @pytest.fixture
    def keep(request):
        def kept(mechanism="keepalive"):
            journal_of(request.node).keep(
                Record(test="", entry="", expectation="detects_break", passed=True,
                       outcome="noticed", mechanism=mechanism, after=3.0))
        return kept

    def pytest_addoption(parser):
        parser.addoption("--group", type=int)

    # As plugins do that split a suite: every third test, and the others deselected.
    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(config, items):
        group = config.getoption("group")
        if group is not None:
            config.hook.pytest_deselected(
                items=[item for n, item in enumerate(items) if n % 3 != group])
            items[:] = items[group::3]
"""
FILES = {
    "test_a": """
        import pytest
        pytestmark = pytest.mark.first

        def test_a_one(keep): keep()
        def test_a_two(keep): keep()
    """,
    "test_b": """
        import pytest
        pytestmark = pytest.mark.second

        def test_b(keep): keep()
        @pytest.mark.skip
        def test_b_skipped(keep): keep()
    """,
    "test_c": """
        import os
        import pytest
        pytestmark = pytest.mark.third

        def test_c(keep): keep(os.environ.get("MECHANISM", "keepalive"))
    """,
}
SHARDS = {
    "-k": [["-k", "test_a"], ["-k", "test_b"], ["-k", "test_c"]],
    "-m": [["-m", "first"], ["-m", "second"], ["-m", "third"]],
    "paths": [["test_a.py"], ["test_b.py"], ["test_c.py::test_c"]],
    "split": [["--group=0"], ["--group=1"], ["--group=2"]],
}
CONTRACT = "--resilience-contract=contract.json"
by_every_way = pytest.mark.parametrize("how", SHARDS)


@pytest.fixture
def suite(inner: Inner) -> Inner:
    """With a contract of all of it."""
    inner.pytester.makeini("[pytest]\nmarkers =\n first\n second\n third")
    inner.pytester.makeconftest(CONFTEST)
    inner.pytester.makepyfile(**FILES)
    assert run(inner, CONTRACT, "--resilience-record") == 0
    return inner


def run(inner: Inner, *args: str) -> int:
    return int(inner.pytester.runpytest_inprocess(*STRICT, "-p", "no:xdist", *args).ret)


def shards(inner: Inner, how: str) -> list[str]:
    """Each one's document."""
    names = []
    for number, args in enumerate(SHARDS[how]):
        names.append(f"shard-{number}.json")
        assert run(inner, f"--resilience-report={names[-1]}", *args) == 0
    return names


def verdict(text: str) -> list[str]:
    """Without the last line, which is the command that was given."""
    lines = text.partition("TCP resilience")[2].splitlines()[1:] or text.splitlines()
    said = ("passed", "FAILED", "changed", "missing", "deselected", "new", "problem")
    return [line for line in lines if line.startswith(said)]


@by_every_way
def test_three_shards_are_one_run(
    suite: Inner, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(suite, CONTRACT, "--resilience-report=whole.json") == 0
    whole = read(Path("whole.json"))
    unsharded = verdict(capsys.readouterr().out)
    names = shards(suite, how)
    capsys.readouterr()
    assert main(["report", *names, "--contract", "contract.json", "--write", "merged.json"]) == 0
    assert unsharded[0].startswith("passed: 4 entries as before")
    assert verdict(capsys.readouterr().out)[0].partition(";")[0] == unsharded[0].partition(";")[0]
    merged = read(Path("merged.json"))
    assert [record.key for record in merged.records] == [record.key for record in whole.records]
    assert merged.tests == whole.tests
    assert (merged.problems, merged.deselected) == ((), ())


@by_every_way
def test_a_change_in_one_shard_fails_the_merged_run_as_it_fails_the_whole(
    suite: Inner, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MECHANISM", "reset")
    assert run(suite, CONTRACT) == 1
    unsharded = verdict(capsys.readouterr().out)
    names = shards(suite, how)
    capsys.readouterr()
    assert main(["report", *names, "--contract", "contract.json"]) == 1
    merged = verdict(capsys.readouterr().out)
    assert unsharded[0].startswith("FAILED: 1 changed; 3 entries as before")
    assert [line for line in merged if line.startswith(("FAILED", "changed"))] == [
        line for line in unsharded if line.startswith(("FAILED", "changed"))
    ]


@by_every_way
def test_a_shard_that_is_missing_fails_where_nothing_may_be_left_out(
    suite: Inner, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = shards(suite, how)[:2]
    capsys.readouterr()
    strict = ["--policy", "deselected=fail"]
    assert main(["report", *names, "--contract", "contract.json", *strict]) == 1
    assert "FAILED: 1 deselected" in capsys.readouterr().out
