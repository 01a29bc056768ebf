"""``python -m pytest_tcpresilience report``."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_tcpresilience.cli import main
from pytest_tcpresilience.report import contract as contracts
from pytest_tcpresilience.report import writing
from pytest_tcpresilience.report.document import Document, read
from tests.gates import contract, document, hung, record

A, B = "a.py::t", "b.py::t"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def keep(name: str, run: Document) -> str:
    Path(name).write_text(json.dumps(run.to_json()))
    return name


@pytest.mark.usefixtures("here")
def test_shards_become_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    shards = [keep("1.json", document(record(A))), keep("2.json", document(record(B)))]
    assert main(["report", *shards, "--write", "all.json"]) == 0
    assert read(Path("all.json")).records == (record(A), record(B))
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("here")
def test_shards_are_held_to_one_contract(capsys: pytest.CaptureFixture[str]) -> None:
    shards = [keep("1.json", document(record(A))), keep("2.json", document(record(B)))]
    contracts.write(contract(record(A), record(B)), Path("c.json"))
    assert main(["report", *shards, "--contract", "c.json"]) == 0
    assert capsys.readouterr().out == "passed: 2 entries as before (contract c.json)\n"
    # One of them alone is half a run, and says so.
    assert main(["report", shards[0], "--contract", "c.json"]) == 1
    assert "missing: b.py::t [detects_break]" in capsys.readouterr().out
    policy = ["--policy", "missing=warn"]
    assert main(["report", shards[0], "--contract", "c.json", *policy]) == 0


@pytest.mark.usefixtures("here")
def test_the_command_that_it_ends_with_accepts_the_change(
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep("a run.json", document(hung(A)))
    contracts.write(contract(record(A)), Path("c.json"))
    asked = ["report", "a run.json", "--contract", "c.json", "--record", "create"]
    assert main(asked) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    program, *rest = shlex.split(last)
    assert (program, rest[:2]) == ("python", ["-m", "pytest_tcpresilience"])
    assert subprocess.run([sys.executable, *rest], check=False).returncode == 0
    assert contracts.read(Path("c.json")) == contract(hung(A))


@pytest.mark.usefixtures("here")
def test_a_first_contract_out_of_shards() -> None:
    keep("1.json", document(record(A), project="shop"))
    assert main(["report", "1.json", "--contract", "c.json", "--record", "create"]) == 0
    assert contracts.read(Path("c.json")) == contract(record(A), project="shop")


@pytest.mark.usefixtures("here")
def test_problems_fail_without_a_contract_too(capsys: pytest.CaptureFixture[str]) -> None:
    keep("1.json", document(record()))
    keep("2.json", document(hung()))
    assert main(["report", "1.json", "2.json", "--write", "all.json"]) == 1
    assert "problem: 1.json and 2.json contradict each other" in capsys.readouterr().err
    assert len(read(Path("all.json")).records) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.json"], "none.json cannot be read"),
        (["run.json", "--contract", "none.json"], "there is no contract none.json"),
        (["run.json", "--record", "update"], "--record has nothing to write to"),
        (["run.json", "--contract", "c", "--policy", "x"], "--policy: 'x' is no policy"),
        (["run.json", "--contract", "c", "--record", "x"], "--record: 'x' is nothing that can"),
        (["run.json", "other.json"], "these documents are of different projects"),
        (["run.json", "--write", "none/all.json"], "--write: none/all.json cannot be written"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_cannot_be_done(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keep("run.json", document(record(), project="shop"))
    keep("other.json", document(record(), project="bank"))
    assert main(["report", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_a_report_that_cannot_be_written_leaves_the_contract_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep("run.json", document(record(A)))
    recording = ["--contract", "c.json", "--record", "create", "--write", "all.json"]

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device", "all.json")

    monkeypatch.setattr(writing, "write", full)
    assert main(["report", "run.json", *recording]) == 2
    assert "all.json: No space left on device" in capsys.readouterr().err
    assert not Path("c.json").exists()


@pytest.mark.usefixtures("here")
def test_pages_show_the_comparison_and_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    keep("run.json", document(hung(A)))
    contracts.write(contract(record(A)), Path("c.json"))
    pages = ["--write", "a.html", "--write", "a.md"]
    assert main(["report", "run.json", "--contract", "c.json", *pages]) == 1
    assert {"report: a.html", "report: a.md"} <= set(capsys.readouterr().out.splitlines())
    for name in ("a.html", "a.md"):
        assert "noticed before, rescued now" in Path(name).read_text()
