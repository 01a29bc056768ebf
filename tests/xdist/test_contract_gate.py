"""With pytest-xdist the gate decides once, in the controller, and crashes are told as that."""

from __future__ import annotations

import json

import pytest

from tests.inner import Inner

pytest.importorskip("xdist")

SUITE = """
    import os
    from pathlib import Path

    import pytest

    from pytest_tcpresilience.records.record import Record
    from pytest_tcpresilience.report.taking import journal_of

    @pytest.mark.parametrize("number", range(6))
    def test_client(request, number):
        gate = request.config.pluginmanager.has_plugin("tcpresilience_gate")
        assert gate is not hasattr(request.config, "workerinput")
        if number == 3 and Path(__file__).with_name("crash").exists():
            os._exit(3)
        outcome = "rescued" if Path(__file__).with_name("hang").exists() else "noticed"
        journal_of(request.node).keep(
            Record(test="", entry="", expectation="detects_break", outcome=outcome, passed=True)
        )
"""
ARGS = ("-n2", "--resilience-contract=contract.json")


def test_the_same_contract_the_same_verdict_and_no_pruning_after_a_crash(inner: Inner) -> None:
    path = inner.pytester.path
    alone = inner.run(SUITE, "--resilience-contract=alone.json", "--resilience-record")
    assert alone.ret == 0
    result = inner.run_subprocess(SUITE, *ARGS, "--resilience-record")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["recorded: 6 created, 0 entries as before*"])
    written = (path / "contract.json").read_text()
    assert written == (path / "alone.json").read_text()

    (path / "hang").touch()
    result = inner.run_subprocess(SUITE, *ARGS, "-k", "not 5")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert text.count("TCP resilience =") == 1
    result.stdout.fnmatch_lines(["FAILED: 5 changed; 0 entries as before, 1 deselected (*"])
    result.stdout.fnmatch_lines(["deselected: 1 not compared, its test was deselected"])
    (path / "hang").unlink()

    (path / "crash").touch()
    result = inner.run_subprocess(SUITE, *ARGS, "--resilience-record=create,update,prune")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "FAILED: 1 missing, * problem*, 1 not recorded; 5 entries as before (*",
            "missing: *::test_client[[]3[]] [[]detects_break[]]: its process ended in the middle",
        ]
    )
    assert (path / "contract.json").read_text() == written
    assert len(json.loads(written)["entries"]) == 6
