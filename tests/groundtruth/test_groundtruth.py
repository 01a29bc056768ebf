"""Links show what real networks do: each row on a link, on a virtual one, and each cause of it in
the lab.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pytest_tcpresilience.control import Engine
from pytest_tcpresilience.errors import FaultUnavailable
from pytest_tcpresilience.faults import FAULTS
from pytest_tcpresilience.lab.lab import Lab
from pytest_tcpresilience.lab.segment import ACK, FIN, PSH, RST, SYN, Segment
from tests.groundtruth import judge, labs, links, on_virtual
from tests.groundtruth.ends import WAIT_S, Ended
from tests.groundtruth.scenarios import (
    CAUSES,
    DIFFERENCES,
    FAMILIES,
    IDLE,
    SCENARIOS,
    WRITES,
    Observed,
    Scenario,
    disagreement,
    family,
)
from tests.groundtruth.table import PAGE, page, run_labs, run_links

ALL = (*SCENARIOS, *DIFFERENCES)
PLAYABLE = [row for row in ALL if on_virtual.playable(row)]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(timeout_s=WAIT_S)
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def a_lab_can_be_made() -> None:
    try:
        Lab().close()
    except FaultUnavailable as error:
        pytest.skip(error.summary)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_link_shows_what_the_table_says(name: str, engine: Engine) -> None:
    rows = family(name)
    seen = run_links(rows, engine)
    wrong = {row.name: disagreement(row, seen[row.name]) for row in rows}
    assert {key: text for key, text in wrong.items() if text} == {}


@pytest.mark.usefixtures("a_lab_can_be_made")
@pytest.mark.parametrize("name", [*FAMILIES, "differences"])
def test_a_real_network_shows_what_the_table_says(name: str) -> None:
    rows = list(DIFFERENCES) if name == "differences" else family(name)
    by_name = {row.name: row for row in rows}
    wrong = {key: disagreement(by_name[key[0]], seen) for key, seen in run_labs(rows).items()}
    assert {key: text for key, text in wrong.items() if text} == {}


@pytest.mark.parametrize("row", PLAYABLE, ids=lambda row: row.name)
def test_virtual_time_shows_what_the_table_says(row: Scenario) -> None:
    assert disagreement(row, on_virtual.run(row), punctual=True) == ""


# --- the table itself -----------------------------------------------------------------------


def test_every_row_belongs_to_one_family_and_has_a_name_of_its_own() -> None:
    assert sorted(row.name for name in FAMILIES for row in family(name)) == sorted(
        row.name for row in SCENARIOS
    )
    assert len({row.name for row in ALL}) == len(ALL)


def test_every_cause_can_be_brought_about_and_has_words() -> None:
    used = {cause for row in ALL for cause in row.causes}
    assert used == labs.STRIKES.keys() == CAUSES.keys()
    assert {row.fault for row in SCENARIOS} == links.STRIKES.keys() <= FAULTS.keys()


def test_what_links_do_not_show_is_played_in_virtual_time_or_says_why_not() -> None:
    played, unplayed = on_virtual.ON_PATH.keys(), on_virtual.UNPLAYED.keys()
    assert {row.causes for row in DIFFERENCES} == {(each,) for each in played | unplayed}
    assert not played & unplayed


def test_every_difference_says_why() -> None:
    assert all(row.differs and not row.fault for row in DIFFERENCES)
    assert not any(row.differs for row in SCENARIOS)


COLUMNS = 7


def skeleton(text: str) -> list[list[str]]:
    """A page without what differs from run to run: its seconds, its evidence, its machine."""
    lines = []
    for line in text.splitlines():
        cells = line.strip("| ").split(" | ")
        if len(cells) == COLUMNS:
            kept = r"`\w+`:|not on a link|not in virtual time"
            cells[4:] = [" ".join(re.findall(kept, cell)) for cell in cells[4:]]
        if not line.startswith("Written on"):
            lines.append(cells)
    return lines


def test_the_page_has_every_row_and_no_other() -> None:
    written = PAGE.read_text(encoding="utf-8")
    on_links = {row.name: _as_promised(row) for row in SCENARIOS}
    in_labs = {(row.name, cause): _as_promised(row) for row in ALL for cause in row.causes}
    in_virtual = {row.name: _as_promised(row) for row in PLAYABLE}
    promised = page(on_links, in_labs, in_virtual, "any system")
    assert skeleton(written) == skeleton(promised), "write it: python -m tests.groundtruth --write"
    rows = [cells for cells in skeleton(written) if len(cells) == COLUMNS]
    assert len(rows) == len(ALL) + 4  # and the heads of two tables
    assert "**" not in written, "a row disagrees with its window: write the page again"


def _as_promised(row: Scenario) -> Observed:
    return Observed(row.mechanism, row.error, row.window.nominal, 0.0, "evidence")


# --- what it is judged by -------------------------------------------------------------------

ROW = SCENARIOS[0]


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [
        (Observed("keepalive", "ETIMEDOUT", 3.05), ""),
        (Observed("keepalive", "ETIMEDOUT", 2.9, idle_for=0.2), ""),
        (Observed("keepalive", "ETIMEDOUT", 2.9), "after 2.900 s"),
        (Observed("keepalive", "ETIMEDOUT", 3.6), "after 3.600 s"),
        (Observed("user_timeout", "ETIMEDOUT", 3.05), "mechanism user_timeout, not keepalive"),
        (Observed("keepalive", "EHOSTUNREACH", 3.05), "error EHOSTUNREACH, not ETIMEDOUT"),
    ],
)
def test_what_disagrees_with_a_row_is_named(seen: Observed, wrong: str) -> None:
    assert ROW.settings == IDLE
    found = disagreement(ROW, seen)
    assert found.startswith(wrong)
    assert bool(found) is bool(wrong)


def test_a_punctual_timer_has_no_leave_to_be_late() -> None:
    assert disagreement(ROW, Observed("keepalive", "ETIMEDOUT", 3.01), punctual=True) == ""
    late = disagreement(ROW, Observed("keepalive", "ETIMEDOUT", 3.05), punctual=True)
    assert late == "after 3.050 s, not between 2.98 s and 3.02 s"


CLIENT, SERVER = ("10.99.1.2", 1000), ("10.99.2.2", 2000)


def segment(at: float, flags: int, *, length: int = 0, came: bool = False) -> Segment:
    ends = (SERVER, CLIENT) if came else (CLIENT, SERVER)
    return Segment(at, *ends, flags, 5, 7, length, 100, 63 if came else 64, not came)


WRITER_ROW = next(row for row in SCENARIOS if row.does == WRITES and row.settings.user_timeout)
NO_LIMIT_ROW = next(row for row in ALL if row.retries2 == 2)


@pytest.mark.parametrize(
    ("ended", "segments", "row", "mechanism", "evidence"),
    [
        ("ETIMEDOUT", [segment(1, ACK), segment(2, ACK)], ROW, "keepalive", "2 probes unanswered"),
        ("ETIMEDOUT", [segment(1, ACK | PSH, length=4)], WRITER_ROW, "user_timeout",
         "1 transmission unanswered"),
        ("ETIMEDOUT", [segment(1, ACK | PSH, length=4)], NO_LIMIT_ROW, "retransmission_limit",
         "1 transmission unanswered"),
        ("EHOSTUNREACH", [segment(1, ACK | PSH, length=4)], WRITER_ROW, "user_timeout",
         "1 transmission unanswered"),
        ("ETIMEDOUT", [segment(1, SYN), segment(2, SYN)], ROW, "kernel_timeout",
         "2 SYNs unanswered"),
        ("ETIMEDOUT", [], ROW, "keepalive", "nothing could leave the host"),
        ("ETIMEDOUT", [], WRITER_ROW, "user_timeout", "nothing could leave the host"),
        ("ECONNRESET", [segment(1, ACK), segment(1, RST, came=True)], ROW, "reset",
         "RST came, ttl 63"),
        ("ECONNREFUSED", [segment(1, SYN), segment(1, RST, came=True)], ROW, "refused",
         "RST came, ttl 63"),
        ("EOF", [segment(1, FIN | ACK, came=True)], ROW, "fin", "FIN came, ttl 63"),
    ],
)  # fmt: skip
def test_the_mechanism_is_read_from_the_capture(
    ended: str, segments: list[Segment], row: Scenario, mechanism: str, evidence: str
) -> None:
    # What was before the fault is no evidence.
    earlier = [segment(0.1, RST | FIN, came=True), segment(0.2, ACK | PSH, length=9)]
    found = judge.mechanism_of(Ended(ended, 9.0), [*earlier, *segments], 0.5, row)
    assert found == (mechanism, evidence)


@pytest.mark.parametrize(
    ("ended", "segments", "complaint"),
    [
        ("ETIMEDOUT", [segment(1, ACK), segment(1, ACK, came=True)], "it was answered"),
        ("ETIMEDOUT", [segment(1, RST)], "had not probed"),
        ("ECONNRESET", [segment(1, ACK)], "no RST came"),
        ("EOF", [segment(1, ACK)], "no FIN came"),
    ],
)
def test_a_verdict_without_its_evidence_is_refused(
    ended: str, segments: list[Segment], complaint: str
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        judge.mechanism_of(Ended(ended, 9.0), segments, 0.5, ROW)
