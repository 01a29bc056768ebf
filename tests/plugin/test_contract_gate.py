"""The gate in a run of pytest: options, exit status, summary, and what it refuses to begin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inner import LEAN, STRICT, Inner

# Tests whose records are made by hand. What a client does is in a file, by entry, so that it
# can change between two runs.
SUITE = """
    import json
    from pathlib import Path

    import pytest

    from pytest_tcpresilience.records.record import Record
    from pytest_tcpresilience.report.taking import journal_of

    WORLD = Path(__file__).with_name("world.json")
    WORLD = json.loads(WORLD.read_text()) if WORLD.exists() else {}

    def keep(request, **values):
        record = {"test": "", "entry": "", "expectation": "detects_break", "passed": True,
                  "outcome": "noticed", "mechanism": "keepalive", "after": 3.0, **values}
        journal_of(request.node).keep(Record(**record))

    @pytest.mark.parametrize("name", ["a", "b"])
    def test_client(request, name):
        what = WORLD.get(name, {})
        if what == "skip":
            pytest.skip()
        if what == "silent":
            return
        keep(request, **what)
        if "blame" in what:
            pytest.fail()

    if WORLD.get("more"):
        def test_more(request):
            keep(request)

    def test_without_a_link():
        pass
"""
CONTRACT = "--resilience-contract=contract.json"
HUNG = {"outcome": "rescued", "mechanism": "", "after": None}


def run(inner: Inner, *args: str, **world: object) -> pytest.RunResult:
    (inner.pytester.path / "world.json").write_text(json.dumps(world))
    return inner.run(SUITE, CONTRACT, *args)


@pytest.fixture
def recorded(inner: Inner) -> Inner:
    """An inner suite whose contract has been recorded."""
    result = run(inner, "--resilience-record")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["recorded: 2 created, 0 entries as before (contract contract.json)"]
    )
    return inner


def contract_of(inner: Inner) -> str:
    return (inner.pytester.path / "contract.json").read_text()


def entries_of(inner: Inner) -> list[str]:
    return [each["test"].partition("::")[2] for each in json.loads(contract_of(inner))["entries"]]


def test_a_run_that_was_not_asked_says_nothing(inner: Inner) -> None:
    result = inner.run(SUITE + "\n    def test_fails():\n        assert False\n")
    result.assert_outcomes(passed=3, failed=1)
    text = result.stdout.str()
    assert "TCP resilience" not in text
    assert "--resilience-record" not in text


def test_what_is_as_before_passes(recorded: Inner) -> None:
    before = contract_of(recorded)
    result = run(recorded, a={"after": 3.3})
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["*= TCP resilience =*", "passed: 2 entries as before (contract contract.json)"]
    )
    assert run(recorded, "--resilience-record", a={"after": 3.3}).ret == 0
    assert contract_of(recorded) == before


def test_what_changed_fails_though_every_test_passed(recorded: Inner) -> None:
    result = run(recorded, a=HUNG)
    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "FAILED: 1 changed; 1 entry as before (contract contract.json)",
            "changed: *.py::test_client[[]a[]] [[]detects_break[]]",
            "    outcome    noticed -> rescued",
            "if this is how it is meant to be, accept it with:",
            "pytest * --resilience-contract=contract.json --resilience-record=update",
        ]
    )


def test_each_kind_is_recorded_by_its_own_word(recorded: Inner) -> None:
    world = {"a": HUNG, "b": "silent", "more": True}
    result = run(recorded, **world)
    result.stdout.fnmatch_lines(["FAILED: 1 changed, 1 new, 1 missing; 0 entries as before*"])
    result.stdout.fnmatch_lines(["* --resilience-record=create,update,prune"])
    assert run(recorded, "--resilience-record=create", **world).ret == 1
    assert entries_of(recorded) == ["test_client[a]", "test_client[b]", "test_more"]
    assert run(recorded, "--resilience-record=update", **world).ret == 1
    assert '"rescued"' in contract_of(recorded)
    assert run(recorded, "--resilience-record=prune", **world).ret == 0
    assert entries_of(recorded) == ["test_client[a]", "test_more"]
    assert run(recorded, **world).ret == 0


def test_what_was_left_out_is_told_and_never_pruned(recorded: Inner) -> None:
    before = contract_of(recorded)
    for args, world, why in (
        (("-k", "not b"), {}, "its test was deselected"),
        ((), {"b": "skip"}, "its test was skipped"),
    ):
        result = run(recorded, "--resilience-record=prune", *args, **world)
        assert result.ret == 0
        result.stdout.fnmatch_lines([f"deselected: 1 not compared, {why}"])
        assert contract_of(recorded) == before
    result = run(recorded, "-k", "not b", "--resilience-policy=deselected=fail")
    assert result.ret == 1


def test_a_run_that_stopped_has_not_reached_the_rest(recorded: Inner) -> None:
    before = contract_of(recorded)
    failing = {"a": {**HUNG, "passed": False, "blame": "client"}}
    result = run(recorded, "-x", "--resilience-record=prune", **failing)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "FAILED: 1 changed, 1 missing, 1 not recorded; *",
            "not recorded: *: the run ended before it*",
        ]
    )
    assert contract_of(recorded) == before


def test_a_failed_client_may_be_recorded_and_its_test_fails_all_the_same(inner: Inner) -> None:
    failing = {"a": {**HUNG, "passed": False, "blame": "client"}}
    result = run(inner, "--resilience-record", **failing)
    result.assert_outcomes(passed=2, failed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["recorded: 2 created*"])


def test_what_is_not_the_clients_doing_is_not_recorded(inner: Inner) -> None:
    failing = {"a": {**HUNG, "passed": False, "blame": "harness", "summary": "the engine died"}}
    result = run(inner, "--resilience-record", **failing)
    result.stdout.fnmatch_lines(["not recorded: *the harness was at fault*: the engine died"])
    assert entries_of(inner) == ["test_client[b]"]


@pytest.mark.parametrize("name", ["without", "nothing_of_that_name"])
def test_nothing_compared_is_a_failure(recorded: Inner, name: str) -> None:
    """Also where pytest itself would say that no tests ran."""
    result = run(recorded, "-k", name)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["FAILED: nothing was compared; 0 entries as before, 2 deselected*"]
    )


def test_runs_that_execute_nothing_are_not_judged(recorded: Inner) -> None:
    for option in ("--collect-only", "--setup-plan", "--setup-only"):
        result = run(recorded, option)
        assert result.ret == 0
        assert "TCP resilience" not in result.stdout.str()


def test_a_file_that_cannot_be_collected_proves_nothing_gone(recorded: Inner) -> None:
    before = contract_of(recorded)
    recorded.pytester.makepyfile(test_broken="import nothing_of_that_name")
    result = run(
        recorded, "--resilience-record=create,prune", "--continue-on-collection-errors", b="silent"
    )
    result.stdout.fnmatch_lines(["problem: test_broken.py could not be collected"])
    assert contract_of(recorded) == before
    result = run(recorded, "--resilience-record")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["problem: the run was interrupted, so nothing was recorded"])


def test_an_interrupt_records_nothing(recorded: Inner) -> None:
    before = contract_of(recorded)
    source = SUITE + "\n    def test_zz():\n        raise KeyboardInterrupt\n"
    (recorded.pytester.path / "world.json").write_text(json.dumps({"a": HUNG}))
    result = recorded.run_subprocess(source, CONTRACT, "--resilience-record")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["problem: the run was interrupted, so nothing was recorded"])
    assert contract_of(recorded) == before


def test_two_tests_that_write_one_entry_are_named(inner: Inner) -> None:
    source = SUITE + (
        "\n    def test_twice(request):\n"
        "        keep(request, entry='x', client='first')\n"
        "        journal = journal_of(request.node)\n"
        "        journal._counts.clear()\n"
        "        keep(request, entry='x', client='second')\n"
    )
    result = inner.run(source, CONTRACT, "--resilience-record")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "problem: 2 records have the same name, *::test_twice *: first and *; second and *",
            "not recorded: *::test_twice [[]x[]]: more than one record has this name",
        ]
    )
    assert entries_of(inner) == ["test_client[a]", "test_client[b]"]


def test_a_record_that_cannot_be_written_fails_the_run_clearly(inner: Inner) -> None:
    source = SUITE + (
        "\n    def test_odd(request):\n        keep(request, cause=object(), entry='odd')\n"
    )
    result = inner.run(source, CONTRACT, "--resilience-record")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["problem: *::test_odd [[]odd[]]: cause cannot be written as JSON*"]
    )


# --- the command --------------------------------------------------------------------------


@pytest.mark.parametrize("module", [True, False], ids=["python -m pytest", "pytest"])
def test_the_last_line_accepts_the_change_when_it_is_pasted(recorded: Inner, module: bool) -> None:
    here, script = recorded.pytester.path, Path(sys.executable).with_name("pytest")
    if not (module or script.exists()):
        pytest.skip(f"there is no {script}")
    (here / "world.json").write_text(json.dumps({"a": HUNG, "more": True}))
    program = [sys.executable, "-m", "pytest"] if module else [str(script)]
    asked = [*program, CONTRACT, "-k", "client or more", *LEAN]
    result = subprocess.run(asked, cwd=here, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stdout
    lines = result.stdout.splitlines()
    before = lines.index("if this is how it is meant to be, accept it with:")
    command = lines[before + 1]
    assert "-k 'client or more'" in command
    # Nothing of ours comes after it; what comes is pytest's own last line.
    assert "passed" in lines[before + 2]
    assert subprocess.run(command, shell=True, cwd=here, check=False).returncode == 0
    assert run(recorded, a=HUNG, more=True).ret == 0


def test_reports_show_the_comparison_and_are_named_before_the_last_line(recorded: Inner) -> None:
    result = run(recorded, "--resilience-report=a.md", a=HUNG)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "FAILED: 1 changed; *",
            "changed: *",
            "report: */a.md",
            "if this is how it is meant to be, accept it with:",
            "pytest *--resilience-report=a.md --resilience-record=update",
        ]
    )
    assert result.stdout.str().count("report: ") == 1
    assert "noticed before, rescued now" in (recorded.pytester.path / "a.md").read_text()


# --- where it comes from ------------------------------------------------------------------


def test_an_ini_file_names_the_contract_relative_to_itself(recorded: Inner) -> None:
    recorded.pytester.makeini("[pytest]\nresilience_contract = contract.json\n")
    (recorded.pytester.path / "below").mkdir()
    path = next(recorded.pytester.path.glob("test_*.py"))
    previous = os.getcwd()
    os.chdir(recorded.pytester.path / "below")
    try:
        result = recorded.pytester.runpytest_inprocess(*STRICT, str(path))
    finally:
        os.chdir(previous)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["passed: 2 entries as before*"])


def test_a_run_can_do_without_the_contract_of_the_ini_file(recorded: Inner) -> None:
    recorded.pytester.makeini("[pytest]\nresilience_contract = contract.json\n")
    args = (*STRICT, "-k", "without_a_link")
    assert recorded.pytester.runpytest_inprocess(*args).ret == 1
    result = recorded.pytester.runpytest_inprocess(*args, "-o", "resilience_contract=")
    assert result.ret == 0
    assert "TCP resilience" not in result.stdout.str()


# --- before any test runs -----------------------------------------------------------------


def refused(inner: Inner, *args: str) -> str:
    result = inner.run(SUITE, *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "passed" not in result.stdout.str()
    return result.stderr.str()


def test_a_contract_that_cannot_be_used_ends_the_run_before_it_begins(inner: Inner) -> None:
    path = inner.pytester.path / "contract.json"
    assert "there is no contract" in refused(inner, CONTRACT)
    for text, message in (
        ("", "the file is empty"),
        ('{"schema": "pytest', "no JSON, or only the beginning of it"),
        ("{\n<<<<<<< HEAD\n", "line 2 is a conflict marker"),
        ('{"schema": "pytest-tcpresilience/contract", "version": 99}', "its version is 99"),
    ):
        path.write_text(text)
        assert message in refused(inner, CONTRACT)
        assert message in refused(inner, CONTRACT, "--resilience-record")
        assert path.read_text() == text
    path.unlink()
    path.mkdir()
    assert "Is a directory" in refused(inner, CONTRACT)
    assert "it is a directory" in refused(inner, CONTRACT, "--resilience-record")


def test_another_projects_contract(recorded: Inner) -> None:
    path = recorded.pytester.path / "contract.json"
    text = path.read_text()
    path.write_text(text.replace('"project": ""', '"project": "bank"'))
    (recorded.pytester.path / "pyproject.toml").write_text('[project]\nname = "shop"\n')
    message = refused(recorded, CONTRACT)
    assert "is the contract of another project" in message
    assert "it is of 'bank'" in message
    path.write_text(text.replace('"test": "', '"test": "elsewhere/'))
    assert "none of its 1 test files is there" in refused(recorded, CONTRACT)


def test_recording_without_a_contract(inner: Inner) -> None:
    assert "--resilience-record has nothing to write to" in refused(inner, "--resilience-record")


def test_a_word_behind_the_option_that_is_none_of_its_own(inner: Inner) -> None:
    message = refused(inner, CONTRACT, "--resilience-record", "tests/")
    assert "'tests/' is nothing that can be recorded" in message


def test_a_policy_that_is_none(inner: Inner) -> None:
    assert "'new=never' is no policy" in refused(inner, CONTRACT, "--resilience-policy=new=never")
