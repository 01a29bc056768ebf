"""The whole API against what a Toxiproxy server answered to the same requests.

The recording is the contract; where a real server is installed, it is checked as well.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_tcpresilience.control import Engine
from tests.contract import recorded
from tests.contract.peers import WAIT_S
from tests.contract.recorded import RealServer, Row

ROWS = recorded.load()
DOCS = Path(__file__).resolve().parents[2] / "docs" / "engine-api.md"


def _id(row: Row) -> str:
    return f"{row['method']} {row['path']} {row.get('data', '')}"[:80]


def documented_differences() -> set[str]:
    """The first column of the page's table."""
    table = DOCS.read_text().partition("## Differences to Toxiproxy")[2]
    return {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")}


@pytest.fixture(scope="module")
def answers() -> Iterator[list[Row]]:
    """An empty engine's answers: what is listed depends on what else there is."""
    engine = Engine(WAIT_S)
    try:
        yield recorded.replay(engine.port, ROWS, {"Authorization": f"Bearer {engine._secret}"})
    finally:
        engine.stop()


@pytest.mark.parametrize("number", range(len(ROWS)), ids=[_id(row) for row in ROWS])
def test_the_answer_is_toxiproxys_or_a_documented_difference(
    answers: list[Row], number: int
) -> None:
    row, ours = ROWS[number], recorded.canonical(answers[number])
    theirs = recorded.canonical(row["answer"])
    if "ours" not in row:
        assert ours == theirs
        return
    assert ours == recorded.canonical(row["ours"])
    assert ours != theirs, "no difference any more: take the row's own answer out"
    assert row["why"] in documented_differences()


def test_no_answer_is_an_error_of_the_server(answers: list[Row]) -> None:
    assert {each["status"] for each in answers} == {200, 201, 204, 400, 403, 404, 405, 409}


def test_the_recording_is_what_an_installed_toxiproxy_answers() -> None:
    program = shutil.which("toxiproxy-server")
    if program is None:
        pytest.skip("no toxiproxy-server on the path")
    server = RealServer(program)
    try:
        again = recorded.replay(server.port, ROWS, {})
    finally:
        server.close()
    for row, answer in zip(ROWS, again, strict=True):
        assert recorded.canonical(answer) == recorded.canonical(row["answer"]), _id(row)
