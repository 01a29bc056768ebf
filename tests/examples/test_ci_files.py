"""``examples/ci``: the files are YAML, and what they run are commands and options that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_tcpresilience import cli
from tests.docs_reference import recorded

HERE = Path(__file__).resolve().parents[2] / "examples" / "ci"
GITHUB = yaml.safe_load((HERE / ".github" / "workflows" / "resilience.yml").read_text())
GITLAB = yaml.safe_load((HERE / ".gitlab-ci.yml").read_text())
STEP = HERE.parent / "tutorial" / "5_gate" / ".github" / "workflows" / "tests.yml"
TUTORIAL = yaml.safe_load(STEP.read_text())
FILES = pytest.mark.parametrize("jobs", [GITHUB["jobs"], GITLAB], ids=["github", "gitlab"])


def scripts(value: Any) -> Iterator[str]:
    """All that is handed to a shell."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name in ("script", "before_script") or (name == "run" and isinstance(each, str)):
                yield from [each] if isinstance(each, str) else each
            else:
                yield from scripts(each)
    elif isinstance(value, list):
        for each in value:
            yield from scripts(each)


def commands(jobs: Any, *beginning: str) -> list[list[str]]:
    """The commands that begin so, with every variable's place taken by a word."""
    plain = [re.sub(r"\$\{\{.*?\}\}|\$\w+", "value", script) for script in scripts(jobs)]
    words = [shlex.split(script) for script in plain]
    return [each for each in words if each[: len(beginning)] == list(beginning)]


@pytest.mark.parametrize(
    "jobs", [GITHUB["jobs"], GITLAB, TUTORIAL["jobs"]], ids=["github", "gitlab", "tutorial"]
)
def test_the_options_of_the_tests_exist(jobs: Any) -> None:
    (command,) = commands(jobs, "pytest")
    given = [word.partition("=")[0] for word in command if word.startswith("--resilience")]
    assert given
    assert set(given) <= recorded().flags.keys()


@FILES
def test_the_gate_is_a_command_that_exists(jobs: Any) -> None:
    (command,) = commands(jobs, "python", "-m", "pytest_tcpresilience")
    parsed = cli._parser().parse_args(command[3:])
    assert parsed.command == "report"
    assert parsed.contract


@FILES
def test_every_shard_is_in_the_gate(jobs: Any) -> None:
    """A pattern would not miss a shard that never ran."""
    (command,) = commands(jobs, "python", "-m", "pytest_tcpresilience")
    merged = [Path(name).stem for name in cli._parser().parse_args(command[3:]).documents]
    (shards,) = {tuple(each) for each in found(jobs, "shard")}
    assert merged == list(shards)


@FILES
def test_the_same_versions_are_tested_and_gated(jobs: Any) -> None:
    versions = [tuple(each) for each in found(jobs, "python")]
    assert len(versions) == 2
    assert len(set(versions)) == 1
    assert "3.10" in versions[0]  # as a text: 3.10 without quotes is 3.1


def found(value: Any, name: str) -> Iterator[list[str]]:
    """The lists of this name in the matrices of all jobs, in either case."""
    if isinstance(value, dict):
        for key, each in value.items():
            if str(key).lower() == name and isinstance(each, list):
                yield each
            else:
                yield from found(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from found(each, name)


def test_nothing_is_privileged() -> None:
    assert GITHUB["permissions"] == {"contents": "read"}
    text = str(GITHUB) + str(GITLAB)
    assert not re.search(r"sudo|privileged: |services|secrets\.|docker run", text)


def test_records_are_kept_when_tests_fail() -> None:
    assert GITLAB["resilience"]["artifacts"]["when"] == "always"
    kept = [s for s in GITHUB["jobs"]["tests"]["steps"] if "upload-artifact" in s.get("uses", "")]
    assert [step["if"] for step in kept] == ["${{ !cancelled() }}"]
