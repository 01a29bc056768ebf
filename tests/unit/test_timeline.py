"""Events on one clock, and how they read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import pytest_tcpresilience
from pytest_tcpresilience.evidence.kinds import KINDS
from pytest_tcpresilience.evidence.timeline import SENTENCES, Event, merge, render

PACKAGE = Path(pytest_tcpresilience.__file__).parent
CLOSED_BY_RESCUE = "closed by the engine, rescue (RST)"
LOOK = {"state": "established", "unanswered": 0, "unacknowledged": 0, "expires": 0.5}

# One row at least for each kind: fields, and the line that a reader sees.
LINES: list[tuple[str, dict[str, Any], str]] = [
    ("opened", {"connection": 1, "client": ["::1", 9]}, "connection 1: opened by ::1 port 9"),
    ("connected", {"connection": 2}, "connection 2: upstream answered"),
    ("upstream_failed", {"error": "refused"}, "upstream failed: refused; the client was reset"),
    ("accept_failed", {"error": "EMFILE"}, "the engine cannot accept: EMFILE"),
    ("internal_error", {"error": "oh"}, "the engine made a mistake: oh"),
    ("closed", {"how": "fin", "by": "client"}, "closed by the client (FIN)"),
    (
        "closed",
        {"how": "reset", "by": "upstream", "errno": "ECONNRESET"},
        "closed by the upstream (ECONNRESET)",
    ),
    (
        "closed",
        {"how": "timeout", "by": "client", "errno": "ETIMEDOUT"},
        "closed, no answer from the client any more (ETIMEDOUT)",
    ),
    (
        "closed",
        {"how": "reset", "by": "fault", "reason": "evict_reset_both"},
        "closed by the fault, evict reset both (RST)",
    ),
    ("closed", {"how": "reset", "by": "engine", "reason": "rescue"}, CLOSED_BY_RESCUE),
    ("first_byte", {"direction": "to_server"}, "first byte from the client"),
    ("first_byte", {"direction": "to_client"}, "first byte from the upstream"),
    ("probe_seen", {"seen": 1, "probes": 3}, "keepalive probe 3 of the client was answered"),
    ("enabled", {}, "the link takes connections"),
    ("disabled", {}, "the link ends its connections and refuses new ones"),
    ("toxic_added", {"type": "stall"}, "stall armed"),
    ("toxic_removed", {"type": "stall"}, "stall lifted"),
    (
        "fault_hit",
        {"connection": 1, "type": "stall", "idle_for": 1.5},
        "connection 1: stall hit, 1.50 s after the last byte",
    ),
    (
        "fault_hit",
        {"connection": 0, "type": "refuse_connections", "idle_for": 0.0},
        "refuse_connections acts on whoever connects",
    ),
    (
        "fault_hit",
        {"connection": 1, "type": "silent_drop", "idle_for": 1.5, "direction": "both"},
        "connection 1: silent_drop hit, 1.50 s after the last byte",
    ),
    (
        "fault_hit",
        {"connection": 1, "type": "silent_drop", "idle_for": 1.5, "direction": "to_client"},
        "connection 1: silent_drop (to_client) hit, 1.50 s after the last byte",
    ),
    (
        "fault_hit",
        {"connection": 1, "type": "middlebox", "idle_for": 1.5, "then": "fin"},
        "connection 1: middlebox forgot the flow (fin), 1.50 s after the last byte",
    ),
    ("fault_active", {"type": "stall", "connections": 0}, "stall acts on 0 connection(s)"),
    (
        "fault_active",
        {"type": "lose_close", "connections": 0},
        "lose_close waits for each connection's own moment",
    ),
    (
        "client_socket",
        {**LOOK, "timer": "off"},
        "client's socket is established: no timer runs (SO_KEEPALIVE is off)",
    ),
    (
        "client_socket",
        {**LOOK, "timer": "keepalive"},
        "client's socket is established: keepalive timer, fires in 0.50 s",
    ),
    (
        "client_socket",
        {**LOOK, "timer": "retransmit", "unacknowledged": 7},
        "client's socket is established: 7 bytes unacknowledged, retransmission timer",
    ),
    (
        "client_socket",
        {**LOOK, "timer": "persist"},
        "client's socket is established: the peer's window is 0, 0 bytes wait, persist timer",
    ),
    (
        "client_socket",
        {**LOOK, "timer": "time-wait"},
        "client's socket is established: time-wait timer",
    ),
    (
        "client_socket",
        {**LOOK, "state": "close-wait", "timer": "off"},
        "client's socket is close-wait: FIN received",
    ),
    ("client_closed", {}, "the application closed the client's socket"),
    ("ghost", {"connection": 1}, "connection 1: the server still holds this connection"),
    ("client_unanswered", {"timer": "keepalive", "unanswered": 2}, "keepalive 2 went unanswered"),
    (
        "client_gone",
        {**LOOK, "timer": "keepalive", "unanswered": 2, "overdue": 0.0},
        "the client's kernel gave the connection up (timer: keepalive, 2 unanswered)",
    ),
    (
        "client_gone",
        {**LOOK, "timer": "keepalive", "unanswered": 2, "overdue": -0.02},
        "the client's socket is gone: it was reset, or the client closed it",
    ),
    (
        "client_gone",
        {**LOOK, "timer": "keepalive"},
        "the client's socket is gone: it was reset, or the client closed it",
    ),
    ("witness_unavailable", {"error": "no"}, "the client's socket cannot be followed: no"),
    ("rescue_reset", {}, "rescue: RST on all connections of the link"),
    ("rescue_refuse", {}, "rescue: RST again, and new connections refused"),
    ("rescue_interrupt", {}, "rescue: the block was interrupted"),
    ("watch_ended", {}, "the block ended"),
    ("error", {"error": "OSError"}, "the block raised OSError"),
    ("marked", {}, "detection.mark() was called"),
    ("tried", {"error": "OSError"}, "the operation failed: OSError"),
    ("succeeded", {}, "the operation succeeded"),
    ("request", {"data": "b'x'", "on": 2}, "the server got b'x' on its connection 2"),
]


@pytest.mark.parametrize(("kind", "fields", "line"), LINES)
def test_how_an_event_reads(kind: str, fields: dict[str, Any], line: str) -> None:
    assert Event(1, 0.0, kind, fields).describe() == line


def test_every_kind_is_read_here() -> None:
    assert {kind for kind, _, _ in LINES} == SENTENCES.keys()


def test_every_kind_has_a_row_and_a_sentence() -> None:
    assert list(SENTENCES.keys() ^ KINDS.keys()) == []
    assert all(kind.happened for kind in KINDS.values())


# How each room writes an event.
WRITTEN = {"engine": r'events\.add\(\s*"(\w+)"', "expectations": r'Event\(0, [^"]*"(\w+)"'}
# Of two that it chooses between, the pattern sees neither.
CHOSEN = {"rescue_refuse", "rescue_reset", "client_socket", "client_unanswered"}
CHOSEN |= {"client_gone", "client_closed"}
CHOSEN |= {"accept_failed", "upstream_failed"}


@pytest.mark.parametrize("room", WRITTEN)
def test_what_the_source_writes_is_in_the_table(room: str) -> None:
    """Each kind, by whoever writes it, and none besides."""
    source = "".join(path.read_text() for path in (PACKAGE / room).glob("*.py"))
    chosen = {kind for kind in CHOSEN if f'"{kind}"' in source and room == "engine"}
    written = set(re.findall(WRITTEN[room], source)) | chosen
    assert written == {kind for kind, row in KINDS.items() if row.own is (room != "engine")}


def test_an_unknown_kind_is_shown_as_it_is() -> None:
    assert Event(1, 0.0, "novelty", {"a": 1}).describe() == "novelty {'a': 1}"


def test_from_json() -> None:
    event = Event.from_json({"seq": 3, "at": 1.5, "kind": "opened", "connection": 2})
    assert event == Event(3, 1.5, "opened", {"connection": 2})
    assert event["connection"] == 2
    assert event.get("absent") is None
    assert event.get("absent", 7) == 7
    with pytest.raises(KeyError, match="absent"):
        event["absent"]


def test_merge_is_by_time_and_then_by_number() -> None:
    engine = [Event(1, 1.0, "a"), Event(2, 3.0, "c"), Event(3, 3.0, "d")]
    own = [Event(0, 2.0, "b"), Event(0, 4.0, "e")]
    assert [event.kind for event in merge(own, engine)] == ["a", "b", "c", "d", "e"]
    assert [event.kind for event in merge(reversed(engine))] == ["a", "c", "d"]
    assert merge() == ()


def test_times_are_relative_to_the_origin() -> None:
    events = [Event(1, 9.5, "connected"), Event(2, 112.25, "watch_ended")]
    assert render(events, 10.0) == ("   -0.500 s  upstream answered\n +102.250 s  the block ended")


@pytest.mark.parametrize("most", [4, 5])
def test_the_middle_goes_when_there_are_many(most: int) -> None:
    events = [Event(seq, float(seq), "error", {"error": f"E{seq}"}) for seq in range(10)]
    lines = render(events, 0.0, most=most).splitlines()
    assert [line.split()[-1] for line in lines if "raised" in line] == ["E0", "E1", "E8", "E9"]
    assert lines[2].strip() == "… 6 more (pytest -vv shows them) …"


def test_all_can_be_shown() -> None:
    events = [Event(seq, float(seq), "connected") for seq in range(100)]
    assert len(render(events, 0.0, most=None).splitlines()) == 100


def test_nothing_goes_when_there_are_few() -> None:
    events = [Event(seq, float(seq), "connected") for seq in range(25)]
    assert len(render(events, 0.0).splitlines()) == 25
    assert "more" not in render(events, 0.0)
