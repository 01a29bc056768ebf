"""A timeline as the steps of a diagram, and where they stand."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_tcpresilience.evidence.kinds import KINDS
from pytest_tcpresilience.records.record import Happening
from pytest_tcpresilience.report.drawing import LIFELINES, MOST_LINES, WIDTH, draw
from pytest_tcpresilience.report.ladder import FOLD_FROM, ROWS, Loss, Side, Step, steps_of
from tests.reports import happened, hostile_document, record, unanswered

C, L, S = Side.CLIENT, Side.LINK, Side.SERVER
RST = "ConnectionResetError: [Errno 104] Connection reset by peer"
REFUSED = "ConnectionRefusedError: [Errno 111] Connection refused"
GONE: dict[str, Any] = {
    "state": "established",
    "timer": "keepalive",
    "unacknowledged": 0,
    "overdue": 0.002,
}


def steps(*events: Happening, **fields: int) -> tuple[Step, ...]:
    return steps_of(record(timeline=events, **fields))


def hit(
    at: float = 0.0, type_: str = "silent_drop", connection: int = 1, **fields: str
) -> Happening:
    given: dict[str, Any] = {"toxic": f"{type_}-1", "type": type_, "idle_for": 0.3, **fields}
    return happened(at, "fault_hit", connection=connection, **given)


def test_every_kind_of_event_has_a_row() -> None:
    assert set(ROWS) == set(KINDS)


def test_a_kind_of_a_later_version_is_told_in_its_own_words() -> None:
    (step,) = steps(Happening(1.0, "quantum_leap", "it leapt", 1, {}))
    assert (step.source, step.target, step.text) == (L, None, "it leapt")


@pytest.mark.parametrize(
    ("event", "source", "target", "text"),
    [
        (happened(0, "opened", client=["127.0.0.1", 9]), C, L, "SYN: opened (inferred)"),
        (happened(0, "connected"), L, S, "SYN: connected (inferred)"),
        (happened(0, "first_byte", direction="to_server"), C, L, "first byte"),
        (happened(0, "first_byte", direction="to_client"), S, L, "first byte"),
        (happened(0, "probe_seen", seen=1, probes=3), C, L, "keepalive probe 3, answered"),
        (happened(0, "probe_seen", seen=2, probes=3), C, L, "2 keepalive probes, answered"),
        (unanswered(0, 2), C, L, "keepalive probe 2 unanswered"),
        (unanswered(0, 1, "retransmit"), C, L, "retransmission 1 unanswered"),
        (unanswered(0, 1, "persist"), C, L, "window probe 1 unanswered"),
        (happened(0, "closed", by="client", how="fin"), C, L, "FIN"),
        (happened(0, "closed", by="upstream", how="fin"), S, L, "FIN"),
        (
            happened(0, "closed", by="upstream", how="reset", errno="ECONNRESET"),
            S,
            L,
            "RST (ECONNRESET)",
        ),
        (happened(0, "closed", by="fault", how="fin", reason="hang_up"), L, C, "FIN (hang up)"),
        (happened(0, "closed", by="engine", how="reset", reason="rescue"), L, C, "RST (rescue)"),
        (
            happened(0, "closed", by="client", how="timeout", errno="ETIMEDOUT"),
            L,
            None,
            "closed, no answer from the client any more (ETIMEDOUT)",
        ),
        (hit(), L, None, "silent_drop hit, 0.30 s after the last byte"),
        (
            happened(0, "client_gone", unanswered=3, **GONE),
            C,
            None,
            "the client's kernel gave the connection up (timer: keepalive, 3 unanswered)",
        ),
        (happened(0, "marked"), C, None, "detection.mark() was called"),
        (happened(0, "ghost"), S, None, "the server still holds this connection"),
        (
            happened(0, "request", data="b'x'", on=2),
            S,
            None,
            "the server got b'x' on its connection 2",
        ),
    ],
)
def test_a_step(event: Happening, source: Side, target: Side | None, text: str) -> None:
    (step,) = steps(event)
    assert (step.source, step.target, step.words) == (source, target, text)


@pytest.mark.parametrize(
    ("fields", "loss"),
    [
        ({}, Loss.SEGMENT),
        ({"direction": "to_server"}, Loss.SEGMENT),
        ({"direction": "to_client"}, Loss.ANSWER),
        ({"type_": "evict_drop_inbound"}, Loss.ANSWER),
        ({"type_": "middlebox", "then": "drop_inbound"}, Loss.ANSWER),
    ],
)
def test_which_way_a_segment_went_missing_is_what_the_fault_says(
    fields: dict[str, Any], loss: Loss
) -> None:
    assert steps(hit(**fields), unanswered(1, 1))[1].loss is loss


@pytest.mark.parametrize(
    ("fields", "tone"),
    [
        ({"unanswered": 3}, "verdict"),
        ({"unanswered": 3, "overdue": -0.5}, ""),
        ({"unanswered": 0}, ""),
    ],
    ids=["given-up", "not-due", "nothing-unanswered"],
)
def test_only_the_kernels_verdict_is_drawn_as_one(fields: dict[str, Any], tone: str) -> None:
    (note,) = steps(happened(0, "client_gone", **{**GONE, **fields}))
    assert note.tone == tone


def test_a_reset_that_no_event_has_told_is_inferred_from_the_exception() -> None:
    arrow, note = steps(hit(type_="evict_reset"), happened(1, "error", error=RST))[1:]
    assert (arrow.source, arrow.target, arrow.words) == (L, C, "RST (inferred)")
    assert (note.target, note.tone) == (None, "verdict")


def test_a_reset_that_was_told_is_not_told_again() -> None:
    closed = happened(0, "closed", by="fault", how="reset", reason="reset")
    found = steps(hit(type_="reset"), closed, happened(0, "error", error=RST))
    assert [step.words for step in found if "RST" in step.text] == ["RST (reset)"]


def test_a_refusal_is_an_arrow_there_and_back() -> None:
    refusing = hit(type_="refuse_connections", connection=0)
    there, back = steps(refusing, happened(1, "tried", error=REFUSED, connection=0))[1:3]
    assert (there.source, there.target, there.words) == (C, L, "SYN (inferred)")
    assert (back.source, back.target, back.words) == (L, C, "RST: refused (inferred)")


def test_an_upstream_that_cannot_be_reached() -> None:
    syn, note = steps(happened(0, "upstream_failed", error="ECONNREFUSED"))
    assert (syn.source, syn.target, syn.loss, syn.inferred) == (L, S, Loss.SEGMENT, True)
    assert (note.source, note.target) == (S, None)


def test_the_sum_of_hits_that_were_told_one_by_one_is_left_out() -> None:
    active = happened(0, "fault_active", toxic="silent_drop-1", type="silent_drop", connections=1)
    assert len(steps(hit(), active)) == 1
    assert len(steps(active)) == 1


def test_connections_have_numbers_when_there_are_several() -> None:
    events = [happened(n, "connected", connection=n) for n in (1, 2)]
    assert [step.text for step in steps(*events)] == ["1: SYN: connected", "2: SYN: connected"]
    assert steps(events[0])[0].text == "SYN: connected"


# --- folding ------------------------------------------------------------------------------


def test_alike_probes_are_folded() -> None:
    events = [happened(n * 1.02, "probe_seen", seen=1, probes=n) for n in range(1, 8)]
    (step,) = steps(*events)
    assert step.text == "7 keepalive probes, each answered, 1.02 s apart"
    assert (step.at, step.until, step.count) == (1.02, 7 * 1.02, 7)


def test_a_few_are_not_folded() -> None:
    events = [unanswered(n, n) for n in range(1, FOLD_FROM)]
    assert len(steps(*events)) == FOLD_FROM - 1


def test_a_growing_interval_is_told_as_such() -> None:
    events = [unanswered(2.0**n, n, "retransmit") for n in range(6)]
    (step,) = steps(*events)
    assert step.text == "6 retransmissions, none answered, 1.00 s to 16.00 s apart"


def test_probes_between_two_looks_have_no_spacing() -> None:
    events = [happened(n, "probe_seen", seen=3, probes=3 * n) for n in range(1, 7)]
    assert steps(*events)[0].text == "18 keepalive probes, each answered"


def test_probes_of_different_connections_are_not_mixed() -> None:
    events = [unanswered(n, n, connection=1 + n % 2) for n in range(10)]
    assert len(steps(*events)) == 10


def test_what_comes_between_ends_a_fold() -> None:
    events = [unanswered(n, n) for n in range(FOLD_FROM)]
    found = steps(*events, happened(50, "marked"), *events)
    assert [step.count for step in found] == [FOLD_FROM, 1, FOLD_FROM]


def test_the_middle_of_a_long_ladder_goes_and_says_so() -> None:
    events = [happened(n, "marked") for n in range(50)]
    found = steps_of(record(timeline=tuple(events)), most=10)
    assert len(found) == 11
    assert found[5].text == "… 40 more steps …"
    assert [step.at for step in found[6:]] == [45, 46, 47, 48, 49]


def test_events_that_were_not_kept_are_told() -> None:
    found = steps(*[happened(n, "marked") for n in range(4)], left_out=7)
    assert [step.text for step in found][2] == "… 7 events not kept …"
    assert len(found) == 5


# --- the drawing --------------------------------------------------------------------------


def test_marks_go_down_and_stay_on_the_page() -> None:
    for each in hostile_document().records:
        drawing = draw(steps_of(each))
        heights = [mark.y for mark in drawing.marks]
        assert heights == sorted(heights)
        assert all(0 < y < drawing.height for y in heights)
        for mark in drawing.marks:
            assert len(mark.lines) <= MOST_LINES
            if mark.box is not None:
                assert mark.box.x >= 92  # right of the times
                assert mark.box.x + mark.box.width <= WIDTH


def test_more_time_takes_more_room() -> None:
    def gap(seconds: float) -> float:
        first, second = draw(steps(happened(0, "marked"), happened(seconds, "marked"))).marks
        return second.y - first.y

    assert gap(0.001) < gap(0.5) < gap(10)


def test_a_lost_segment_ends_before_its_lifeline_in_a_cross() -> None:
    mark = draw(steps(hit(), unanswered(1, 1))).marks[1]
    assert mark.head_x < mark.end_x == mark.cross_x == LIFELINES[L]
    assert mark.back_y is None


def test_a_lost_answer_has_its_cross_on_the_way_back() -> None:
    mark = draw(steps(hit(direction="to_client"), unanswered(1, 1))).marks[1]
    assert mark.head_x == LIFELINES[L]
    assert mark.back_y is not None
    assert mark.back_y > mark.y
    assert mark.cross_x is not None
    assert mark.x < mark.cross_x < mark.end_x


@pytest.mark.parametrize(
    ("events", "bands"),
    [
        ([hit()], 1),
        ([hit(), happened(1, "toxic_removed", toxic="silent_drop-1", type="silent_drop")], 1),
        ([hit(type_="reset")], 0),  # acts once, and is over
        ([], 0),
    ],
)
def test_a_fault_is_in_force_until_it_is_lifted(events: list[Happening], bands: int) -> None:
    drawing = draw(steps(*events, happened(2, "watch_ended")))
    assert len(drawing.bands) == bands
    if len(events) == 2:
        assert drawing.bands[0].bottom == drawing.marks[1].y


def test_a_long_word_is_broken_and_a_wide_one_sooner() -> None:
    def lines(text: str) -> tuple[str, ...]:
        return draw([Step(0, text, L)]).marks[0].lines

    assert [len(line) for line in lines("x" * 40)] == [35, 5]
    assert [len(line) for line in lines("日" * 20)] == [17, 3]
    assert lines("two words") == ("two words",)
    assert lines("x" * 160)[-1].endswith("…")
