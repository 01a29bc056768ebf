"""The contract as a file: the same behaviour gives the same bytes, and bad input is told."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.records.record import Failure, Promised, Reason
from pytest_tcpresilience.report import contract as contracts
from pytest_tcpresilience.report.contract import Contract, Entry
from tests.gates import contract, hung, record

PATH = Path("contract.json")
CLOSED = Reason("closed_by_client", "the application closed the socket", "keep it open")


def refused(text: str) -> str:
    with pytest.raises(UsageError) as refusal:
        contracts.parse(text, PATH)
    assert refusal.value.summary == "the contract contract.json cannot be used"
    assert refusal.value.advice
    return refusal.value.happened


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(contract(record()).text()), **values})


def entry_with(**values: Any) -> str:
    document = json.loads(contract(record()).text())
    document["entries"][0].update(values)
    return json.dumps(document)


def test_what_is_written_is_read_again() -> None:
    made = contract(
        record(),
        hung("tests/test_other.py::test_it"),
        record(entry="recovers", recovery=0.2, attempts=3, promised=None),
        project="shop",
    )
    assert contracts.parse(made.text(), PATH) == made
    assert contracts.parse(made.text(), PATH).text() == made.text()


def test_the_file_is_for_people() -> None:
    text = contract(record("b::t"), record("a::t"), record("a::t", entry="a"), project="zoë").text()
    document = json.loads(text)
    assert list(document) == ["schema", "version", "project", "entries"]
    assert [(each["test"], each["entry"]) for each in document["entries"]] == [
        ("a::t", "a"),
        ("a::t", "detects_break"),
        ("b::t", "detects_break"),
    ]
    assert '\n  "project": "zoë",\n' in text
    assert text.endswith("}\n")
    # What is empty takes no line.
    assert "recovery" not in text
    assert "errno" in text


def test_two_runs_of_the_same_code_write_the_same_bytes() -> None:
    """On a quiet machine and on a busy one; with other ports, hosts, kernels and links."""
    first = record(link="link-1", versions={"kernel": "6.1"}, promised=Promised(2.68, 3.0, 3.535))
    second = record(
        link="link-7",
        versions={"kernel": "6.18"},
        upstream="127.0.0.1:4711",
        promised=Promised(2.91, 3.0, 3.535),
        after=3.49,
        error=Failure("TimeoutError", "another text", "ETIMEDOUT"),
    )
    assert contract(first).text() == contract(second).text()
    own: dict[str, Any] = {"mechanism": "own_timeout", "settings": None}
    assert contract(record(after=0.5, **own)).text() == contract(record(after=0.71, **own)).text()


@pytest.mark.parametrize(
    ("attempts", "text"), [(None, ""), (0, "0"), (1, "1"), (2, "several"), (9, "several")]
)
def test_how_many_attempts_is_told_as_far_as_it_is_no_luck(attempts: int, text: str) -> None:
    assert Entry.of(record(attempts=attempts)).attempts == text


def test_the_error_of_a_client_that_was_woken_is_not_its_own() -> None:
    for woken in (hung(), hung(outcome="unaware", passed=True, blame="")):
        assert Entry.of(woken).error == Entry.of(woken).errno == ""
    assert Entry.of(record()).error == "TimeoutError"


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({"mechanism": "keepalive"}, True),
        ({"mechanism": "user_timeout", "after": 0.5}, True),
        ({"mechanism": "own_timeout", "after": 5.0}, True),
        ({"mechanism": "own_timeout", "after": 0.1}, False),
        ({"mechanism": "reset", "after": 0.001, "effect": "reset"}, False),
        ({"mechanism": "reset", "after": 1.001, "effect": "evict_reset"}, True),
        ({"outcome": "rescued", "mechanism": "", "after": None}, True),
        ({"outcome": "rescued", "mechanism": "", "after": None, "cause": CLOSED}, False),
        ({"outcome": "unaware", "mechanism": "", "after": None}, False),
        ({"outcome": "fine", "mechanism": "", "after": None, "effect": ""}, True),
    ],
)
def test_settings_are_kept_where_they_play_a_part(changed: dict[str, Any], kept: bool) -> None:
    """Whether a socket that is closed at once could still be read is different each time."""
    entry = Entry.of(record(**{"effect": "silent_drop", **changed}))
    assert (entry.settings is not None) is kept


# --- bad input ----------------------------------------------------------------------------


def test_an_empty_file() -> None:
    assert refused("") == refused(" \n") == "the file is empty"


def test_half_a_file() -> None:
    text = contract(record()).text()
    assert refused(text[: len(text) // 2]).startswith("no JSON, or only the beginning of it: ")


def test_nested_without_end() -> None:
    assert "no JSON" in refused("[" * 100_000)


@pytest.mark.parametrize("marker", ["<<<<<<< HEAD", "=======", ">>>>>>> topic", "||||||| base"])
def test_a_conflict_of_version_control(marker: str) -> None:
    lines = contract(record()).text().splitlines()
    lines.insert(3, marker)
    assert refused("\n".join(lines)) == f"line 4 is a conflict marker of version control: {marker}"


def test_a_newer_version() -> None:
    assert "its version is 2, and this pytest-tcpresilience reads up to 1" in refused(
        changed(version=2)
    )


@pytest.mark.parametrize("version", [None, "1", True, 0])
def test_no_version_at_all(version: object) -> None:
    assert refused(changed(version=version)) == f"its version is {version!r}"


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"schema": "another"}'])
def test_another_file(text: str) -> None:
    assert refused(text) == "its schema is not 'pytest-tcpresilience/contract'"


def test_no_entries() -> None:
    assert refused(changed(entries={})) == "it has no list of entries"


def test_two_entries_of_one_name() -> None:
    document = json.loads(contract(record()).text())
    document["entries"] *= 2
    assert refused(json.dumps(document)) == (
        "two of its entries are tests/test_pool.py::test_idle [detects_break]"
    )


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"test": ""}, "ValueError: it has no test"),
        ({"outcome": None}, "ValueError: outcome is None and no text"),
        ({"settings": {"enabled": True}}, "KeyError: 'idle'"),
        ({"settings": 3}, "TypeError: "),
        ({"promised": {"nominal": 1}}, "KeyError: 'latest'"),
        ({"after": {"earliest": "soon"}}, "ValueError: 'soon' is no time"),
        ({"after": []}, "TypeError: "),
        ({"libraries": []}, "AttributeError: "),
    ],
)
def test_an_entry_that_is_none(values: dict[str, Any], why: str) -> None:
    assert refused(entry_with(**values)).startswith(f"entry 1: {why}")
    settings = {"enabled": True, "idle": 1.5, "interval": 1, "probes": 1, "user_timeout_ms": 0}
    assert "idle is 1.5 and no whole number" in refused(entry_with(settings=settings))


def test_a_field_of_a_later_version_is_passed_over() -> None:
    document = json.loads(contract(record()).text())
    document["entries"][0]["colour"] = "green"
    document["entries"][0]["settings"]["pacing"] = 1
    assert contracts.parse(json.dumps(document), PATH) == contract(record())


def test_no_file_and_no_directory_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the tests with --resilience-record"):
        contracts.read(tmp_path / "contract.json")
    with pytest.raises(UsageError, match="Is a directory"):
        contracts.read(tmp_path)
    (tmp_path / "file").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UsageError, match="no UTF-8"):
        contracts.read(tmp_path / "file")
    with pytest.raises(UsageError, match="Not a directory"):
        contracts.read(tmp_path / "file" / "contract.json")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_args: object, **_kwargs: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)  # root may read everything
    with pytest.raises(UsageError, match="Permission denied"):
        contracts.read(tmp_path / "contract.json")


# --- whose it is --------------------------------------------------------------------------


def test_another_projects() -> None:
    with pytest.raises(UsageError, match="the contract of another project") as refusal:
        contracts.check_project(contract(project="shop"), PATH, "bank")
    assert "'shop'" in refusal.value.happened
    for known, here in (("shop", "shop"), ("", "bank"), ("shop", "")):
        contracts.check_project(contract(project=known), PATH, here)


def test_none_of_its_tests_is_here(tmp_path: Path) -> None:
    made = contract(record(), record("tests/test_other.py::test_it"))
    with pytest.raises(UsageError, match="none of its 2 test files is there") as refusal:
        contracts.check_root(made, PATH, tmp_path)
    assert "tests/test_other.py" in refusal.value.happened
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_pool.py").touch()
    contracts.check_root(made, PATH, tmp_path)
    contracts.check_root(Contract(), PATH, tmp_path)  # nothing to tell it by


# --- writing ------------------------------------------------------------------------------


def test_a_contract_is_written_as_a_file_of_the_usual_rights(tmp_path: Path) -> None:
    path = tmp_path / "contract.json"
    mask = os.umask(0o027)
    try:
        contracts.write(contract(record()), path)
    finally:
        os.umask(mask)
    assert contracts.read(path) == contract(record())
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o600)
    contracts.write(contract(hung()), path)
    assert contracts.read(path) == contract(hung())
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["contract.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    path, target = tmp_path / "contract.json", tmp_path / "there" / "real.json"
    target.touch()
    path.symlink_to(target)
    contracts.write(contract(record()), path)
    assert path.is_symlink()
    assert contracts.read(target) == contract(record())


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "contract.json"
    contracts.write(contract(record()), path)

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        contracts.write(contract(hung()), path)
    assert contracts.read(path) == contract(record())
    assert os.listdir(tmp_path) == ["contract.json"]


def test_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="it is a directory"):
        contracts.check_writable(tmp_path)
    with pytest.raises(UsageError, match=r"there is no directory .*/none"):
        contracts.check_writable(tmp_path / "none" / "contract.json")
    contracts.check_writable(tmp_path / "contract.json")
    monkeypatch.setattr(os, "access", lambda *_args: False)  # root may write everywhere
    with pytest.raises(UsageError, match="cannot be written to"):
        contracts.check_writable(tmp_path / "contract.json")


def test_entries_of_a_contract_are_by_key() -> None:
    made = contract(record())
    assert list(made.entries) == [record().key]
    assert replace(made, entries={}).text().endswith('"entries": []\n}\n')
