"""Workers that die: what the gate says of it, and what of the run is kept."""

from __future__ import annotations

import json

import pytest

# Loaded here, and so the same for each run in this process.
from pytest_tcpresilience.report import hooks  # noqa: F401
from tests.inner import Inner

pytest.importorskip("xdist")

CONFTEST = """
    import json
    import os

    from pytest_tcpresilience.report.collecting import collect

    def pytest_sessionstart(session):
        worker = getattr(session.config, "workerinput", {}).get("workerid")
        if worker in os.environ.get("DIES", "").split():
            os._exit(3)

    def pytest_unconfigure(config):
        if not hasattr(config, "workerinput"):
            with open(config.rootpath / "documents", "a") as file:
                file.write(json.dumps(collect(config).document().to_json()) + "\\n")
"""
# Records made by hand, so that no engine is needed.
SUITE = """
    import os
    import pytest
    from pytest_tcpresilience.records.record import Record
    from pytest_tcpresilience.report.taking import journal_of

    @pytest.mark.parametrize("name", list("abcd"))
    def test_client(request, name):
        journal_of(request.node).keep(
            Record(test="", entry="", expectation="detects_break", passed=True,
                   outcome="noticed", mechanism="keepalive", after=3.0))
        if name in os.environ.get("DIES", ""):
            os._exit(3)
"""
CONTRACT = "--resilience-contract=contract.json"


@pytest.fixture
def recorded(inner: Inner) -> Inner:
    inner.pytester.makeconftest(CONFTEST)
    assert inner.run(SUITE, "-p", "no:xdist", CONTRACT, "--resilience-record").ret == 0
    (inner.pytester.path / "documents").unlink()
    return inner


def run(inner: Inner, *args: str) -> tuple[pytest.RunResult, dict[str, str], list[str]]:
    """What was said, what became of each client's test, and the problems; of one document."""
    result = inner.run_subprocess(SUITE, CONTRACT, *args)
    (line,) = (inner.pytester.path / "documents").read_text().splitlines()
    document = json.loads(line)
    states = {test[test.index("[") + 1]: state for test, state in document["tests"].items()}
    return result, states, document["problems"]


def test_in_a_test(recorded: Inner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIES", "b")
    result, states, problems = run(recorded, "-n2")
    assert result.ret == 1
    assert states == {"a": "ran", "b": "crashed", "c": "ran", "d": "ran"}
    result.stdout.fnmatch_lines(
        [
            "FAILED: 1 missing, 1 problem; 3 entries as before (contract contract.json)",
            "problem: worker gw? ended before its work: Not properly terminated",
            "missing: *::test_client[[]b] [[]detects_break]: its process ended in the middle",
        ]
    )
    assert len(problems) == 1


def test_one_at_its_start_whose_work_another_does(
    recorded: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIES", "gw0")
    result, states, problems = run(recorded, "-n2")
    assert result.ret == 0
    assert states == dict.fromkeys("abcd", "ran")
    assert problems == []


def test_all_of_them_with_none_to_replace_them(
    recorded: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIES", "abcd")
    result, states, problems = run(recorded, "-n2", "--max-worker-restart=0")
    assert result.ret == 1
    assert sorted(states.values()) == ["crashed", "crashed", "not_reached", "not_reached"]
    assert len(problems) == 2
    assert "its process ended in the middle" in result.stdout.str()
    assert "the run ended before it" in result.stdout.str()


def test_all_of_them_at_their_start(recorded: Inner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIES", "gw0 gw1 gw2")
    result, states, problems = run(recorded, "-n2", "--max-worker-restart=1")
    assert result.ret == 1
    assert states == {}
    assert len(problems) == 3
