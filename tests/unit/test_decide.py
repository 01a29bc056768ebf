"""What becomes of a chunk under stream toxics: one by one, together, and in mid-stream."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_tcpresilience.engine.shaping import (
    CATCH_UP_S,
    LEAST_HELD_BYTES,
    MOST_HELD_BYTES,
    PIECE_S,
    Chunk,
    Close,
    Drop,
    Flow,
    Forward,
    Verdict,
    Wait,
    advance,
    decide,
    delay_s,
    most_held,
    stamp,
)
from pytest_tcpresilience.engine.toxics import Toxic, create, update


def toxic(kind: str, **attributes: int) -> Toxic:
    name = "-".join([kind, *(str(value) for value in attributes.values())])
    return create({"type": kind, "name": name, "attributes": attributes})


LATENCY = toxic("latency", latency=100)
JITTER = toxic("latency", latency=100, jitter=50)
WILD = toxic("latency", latency=10, jitter=500)
TIMEOUT = toxic("timeout")
RESET_PEER = toxic("reset_peer")
NARROW = toxic("bandwidth", rate=1)  # 1000 bytes/s: pieces of 100 bytes
WIDE = toxic("bandwidth", rate=1000)
SHUT = toxic("bandwidth", rate=0)
SLICER = toxic("slicer", average_size=10, delay=2000)  # 10 bytes each 2 ms
FINE = toxic("slicer", average_size=3, size_variation=2)
LIMIT = toxic("limit_data", bytes=25)
SLOW = toxic("slow_close", delay=300)

AT = 10.0
FRESH = Flow()


def forward(count: int, passed_at: float = AT, *, close: bool = False, **passed: int) -> Forward:
    named = {name.replace("_25", "-25").replace("_9", "-9"): n for name, n in passed.items()}
    return Forward(count, Flow(passed_at, named), close)


@pytest.mark.parametrize(
    ("toxics", "luck", "delay"),
    [
        pytest.param((), 1.0, 0.0, id="none"),
        pytest.param((LATENCY,), 1.0, 0.1, id="one"),
        pytest.param((LATENCY, LATENCY), 0.0, 0.2, id="they-add-up"),
        pytest.param((JITTER,), -1.0, 0.05, id="least"),
        pytest.param((JITTER,), 1.0, 0.15, id="most"),
        pytest.param((WILD, LATENCY), -1.0, 0.1, id="never-negative"),
        pytest.param((TIMEOUT, LATENCY), 0.0, 0.1, id="others-add-nothing"),
    ],
)
def test_delays(toxics: Sequence[Toxic], luck: float, delay: float) -> None:
    assert delay_s(toxics, luck) == pytest.approx(delay)


@pytest.mark.parametrize(
    ("toxics", "size", "now", "verdict"),
    [
        pytest.param((), 1, AT, forward(1), id="nothing-in-the-way"),
        pytest.param((), 0, AT, Forward(0, FRESH), id="the-end-passes"),
        pytest.param((LATENCY,), 1, AT, Wait(10.1), id="held"),
        pytest.param((LATENCY,), 1, 10.1, forward(1, 10.1), id="held-long-enough"),
        pytest.param((LATENCY,), 0, AT, Wait(10.1), id="the-end-is-held-too"),
        pytest.param((TIMEOUT,), 1, AT, Drop(), id="timeout-drops"),
        pytest.param((RESET_PEER,), 1, AT, Wait(math.inf), id="reset-peer-holds"),
        pytest.param((TIMEOUT,), 0, AT, Wait(math.inf), id="timeout-holds-the-end"),
        pytest.param((NARROW,), 50, AT, Wait(10.05), id="a-piece-takes-its-time"),
        pytest.param((NARROW,), 500, AT, Wait(10.1), id="a-piece-takes-at-most-100-ms"),
        pytest.param((NARROW,), 500, 10.1, forward(100, 10.1), id="a-piece-is-100-ms-worth"),
        pytest.param((NARROW,), 500, 10.15, forward(100, 10.1), id="being-late-is-made-up-for"),
        pytest.param((NARROW, WIDE), 500, AT, Wait(10.1), id="the-lowest-rate-counts"),
        pytest.param((SHUT,), 1, 99.0, Wait(math.inf), id="rate-0-holds-data"),
        pytest.param((SHUT,), 0, AT, Forward(0, FRESH), id="rate-0-lets-the-end-through"),
        pytest.param((SLICER,), 25, AT, forward(10), id="a-slice"),
        pytest.param((SLICER,), 7, AT, forward(7), id="less-than-a-slice"),
        pytest.param((SLICER, FINE), 25, AT, forward(3), id="the-smallest-slice-counts"),
        pytest.param((toxic("slicer"),), 25, AT, forward(25), id="slices-of-0-are-none"),
        pytest.param((LIMIT,), 24, AT, forward(24, limit_data_25=24), id="below-the-limit"),
        pytest.param(
            (LIMIT,), 25, AT, forward(25, close=True, limit_data_25=25), id="just-the-limit"
        ),
        pytest.param(
            (LIMIT,), 99, AT, forward(25, close=True, limit_data_25=25), id="above-the-limit"
        ),
        pytest.param(
            (LIMIT, toxic("limit_data", bytes=9)),
            99,
            AT,
            forward(9, close=True, limit_data_25=9, limit_data_9=9),
            id="the-first-limit-counts",
        ),
        pytest.param((toxic("limit_data"),), 1, AT, Close(), id="a-limit-of-0"),
        pytest.param((LIMIT,), 0, AT, Forward(0, FRESH), id="the-end-before-the-limit"),
        pytest.param((SLOW,), 1, AT, forward(1), id="slow-close-lets-data-through"),
        pytest.param((SLOW,), 0, AT, Wait(10.3), id="slow-close-holds-the-end"),
        pytest.param((SLOW,), 0, 10.3, Forward(0, FRESH), id="slow-close-is-over"),
        pytest.param((SLOW, SLOW), 0, AT, Wait(10.6), id="slow-closes-add-up"),
    ],
)
def test_what_becomes_of_a_chunk(
    toxics: Sequence[Toxic], size: int, now: float, verdict: Verdict
) -> None:
    assert decide(toxics, Chunk(b"x" * size, at=AT), FRESH, now) == verdict


@pytest.mark.parametrize(
    ("toxics", "size", "flow", "now", "verdict"),
    [
        pytest.param((NARROW,), 500, Flow(10.1), 10.1, Wait(10.2), id="the-pipe-is-taken"),
        pytest.param((NARROW,), 500, Flow(10.1), 10.2, forward(100, 10.2), id="the-pipe-is-free"),
        pytest.param((SLICER,), 25, Flow(10.1), 10.1, Wait(10.102), id="a-pause"),
        pytest.param((SLICER,), 25, Flow(10.1), 10.102, forward(10, 10.102), id="after-a-pause"),
        pytest.param((), 25, Flow(10.1), 10.1, forward(25, 10.1), id="pauses-go-with-the-slicer"),
        pytest.param((SLOW,), 0, Flow(10.5), 10.5, Wait(10.8), id="from-when-all-data-has-passed"),
        pytest.param(
            (LIMIT,),
            99,
            Flow(AT, {"limit_data-25": 20}),
            AT,
            forward(5, close=True, limit_data_25=25),
            id="a-limit-counts-on",
        ),
        pytest.param((LIMIT,), 9, Flow(AT, {"limit_data-25": 30}), AT, Close(), id="limit-lowered"),
        pytest.param(
            (LIMIT,), 9, Flow(AT, {"other": 30}), AT, forward(9, limit_data_25=9), id="its-own"
        ),
    ],
)
def test_what_lasts_from_piece_to_piece(
    toxics: Sequence[Toxic], size: int, flow: Flow, now: float, verdict: Verdict
) -> None:
    assert decide(toxics, Chunk(b"x" * size, at=AT), flow, now) == verdict


@pytest.mark.parametrize(
    ("toxics", "size", "now", "verdict"),
    [
        pytest.param((LATENCY, TIMEOUT), 1, AT, Drop(), id="timeout-before-latency"),
        pytest.param((RESET_PEER, TIMEOUT), 1, AT, Drop(), id="timeout-before-reset-peer"),
        pytest.param((LIMIT, RESET_PEER), 1, AT, Wait(math.inf), id="reset-peer-before-the-rest"),
        pytest.param((NARROW, LATENCY), 50, AT, Wait(10.15), id="latency-before-bandwidth"),
        pytest.param((SLICER, LATENCY), 50, AT, Wait(10.1), id="latency-before-slicer"),
        pytest.param((NARROW, SLICER), 50, AT, Wait(10.01), id="slicer-before-bandwidth"),
        pytest.param(
            (toxic("limit_data"), LATENCY), 1, AT, Wait(10.1), id="latency-before-limit-data"
        ),
        pytest.param((LIMIT, SHUT), 99, AT, Wait(math.inf), id="bandwidth-before-limit-data"),
        pytest.param((LIMIT, SLICER), 99, AT, forward(10, limit_data_25=10), id="slicer-and-limit"),
        pytest.param((LIMIT, NARROW), 99, AT, Wait(10.025), id="no-longer-than-what-may-pass"),
        pytest.param((SLOW, LATENCY), 0, AT, Wait(10.4), id="latency-before-slow-close"),
        pytest.param((SLOW, LIMIT), 0, AT, Wait(10.3), id="limit-data-before-slow-close"),
    ],
)
@pytest.mark.parametrize("turned", [False, True], ids=["so", "turned"])
def test_the_order_does_not_depend_on_who_came_first(
    toxics: Sequence[Toxic], size: int, now: float, verdict: Verdict, turned: bool
) -> None:
    given_ = toxics[::-1] if turned else toxics
    assert decide(given_, Chunk(b"x" * size, at=AT), FRESH, now) == verdict


@pytest.mark.parametrize(("cut", "size"), [(-1.0, 1), (-0.5, 2), (0.0, 3), (0.5, 4), (1.0, 5)])
def test_slices_vary(cut: float, size: int) -> None:
    assert decide([FINE], Chunk(b"x" * 25, AT, cut=cut), FRESH, AT) == forward(size)
    tiny = toxic("slicer", average_size=1, size_variation=9)
    verdict = decide([tiny], Chunk(b"x" * 25, AT, cut=min(cut, 0.0)), FRESH, AT)
    assert verdict == forward(1)


def test_a_removed_limit_is_forgotten() -> None:
    flow = Flow(AT, {"a": 1, "b": 2})
    assert flow.without("a") == Flow(AT, {"b": 2})
    assert flow.without("c") == flow


def test_a_chunk_is_stamped_once() -> None:
    chunk = stamp(b"x", 10.0, random.Random(1))
    assert (chunk.data, chunk.at) == (b"x", 10.0)
    assert chunk == stamp(b"x", 10.0, random.Random(1))
    lucks = [stamp(b"x", 0.0, random.Random(seed)).luck for seed in range(50)]
    assert -1 <= min(lucks) < -0.5 < 0.5 < max(lucks) <= 1


def test_each_piece_is_cut_anew_and_keeps_its_delay() -> None:
    source = random.Random(1)
    whole = stamp(b"abcdef", AT, source)
    rest = advance(whole, 2, source)
    assert (bytes(whole.piece(2)), rest.left, bytes(rest.piece(9))) == (b"ab", 4, b"cdef")
    assert (rest.at, rest.luck) == (whole.at, whole.luck)
    assert rest.cut != whole.cut


@pytest.mark.parametrize(
    ("toxics", "held"),
    [
        pytest.param((), MOST_HELD_BYTES, id="none"),
        pytest.param((LATENCY, FINE), MOST_HELD_BYTES, id="no-narrow-pipe"),
        pytest.param((SHUT, LATENCY), LEAST_HELD_BYTES, id="shut"),
        pytest.param((WIDE,), LEAST_HELD_BYTES, id="narrow"),
        pytest.param((WIDE, LATENCY), LEAST_HELD_BYTES + 100_000, id="what-latency-holds"),
        pytest.param((SLICER, LATENCY), LEAST_HELD_BYTES + 500, id="a-slicer-is-narrow"),
        pytest.param(
            (toxic("bandwidth", rate=10**9), LATENCY), MOST_HELD_BYTES, id="never-more-than-most"
        ),
    ],
)
def test_how_much_may_be_held(toxics: Sequence[Toxic], held: int) -> None:
    assert most_held(toxics) == held


# --- whole streams -----------------------------------------------------------------------

KEEPING = [LATENCY, JITTER, WILD, NARROW, WIDE, SHUT, SLICER, FINE, SLOW, RESET_PEER]
KEEPING_SETS = st.lists(st.sampled_from(KEEPING), max_size=4, unique_by=id)
CHUNKS = st.lists(st.binary(min_size=1, max_size=400), max_size=6)


def carry(
    chunks: Sequence[bytes], changes: Sequence[Sequence[Toxic]], seed: int = 0
) -> tuple[bytes, bool, float]:
    """What a pump does, without its sockets and in virtual time.

    :param changes: the toxics in force, each set from the third step after the last one.
    :returns: what came out, whether the connection was closed early, and how long it took.
    """
    source = random.Random(seed)
    queue = [stamp(data, AT, source) for data in [*chunks, b""]]
    flow, now, out, step = FRESH, AT, bytearray(), 0
    while queue:
        step += 1
        verdict = decide(changes[min(step // 3, len(changes) - 1)], queue[0], flow, now)
        if isinstance(verdict, Wait):
            # A change of the toxics wakes a pump before its time.
            now = max(now, min(verdict.until, now + 1.0))
        elif isinstance(verdict, Close):
            return bytes(out), True, now - AT
        elif isinstance(verdict, Forward):
            head, flow = queue[0], verdict.flow
            out += head.piece(verdict.count)
            queue[:1] = [advance(head, verdict.count, source)] * (verdict.count < head.left)
            if verdict.close:
                return bytes(out), True, now - AT
        else:
            raise AssertionError(f"{verdict} in a stream without timeout")
    return bytes(out), False, now - AT


@settings(deadline=None)  # thousands of decisions, on a machine that may be busy
@given(CHUNKS, st.lists(KEEPING_SETS, max_size=6), st.integers(0, 99))
def test_no_toxic_that_keeps_data_loses_doubles_or_overtakes_a_byte(
    chunks: list[bytes], changes: list[list[Toxic]], seed: int
) -> None:
    out, closed, _ = carry(chunks, [*changes, []], seed)
    assert (out, closed) == (b"".join(chunks), False)


@settings(deadline=None)
@given(
    CHUNKS,
    st.integers(0, 500),
    st.lists(st.sampled_from([LATENCY, JITTER, WIDE, SLICER, FINE, SLOW]), unique_by=id),
    st.integers(0, 99),
)
def test_limit_data_passes_exactly_so_many(
    chunks: list[bytes], limit: int, others: list[Toxic], seed: int
) -> None:
    sent = b"".join(chunks)
    out, closed, _ = carry(chunks, [[toxic("limit_data", bytes=limit), *others]], seed)
    assert out == sent[:limit]
    assert closed is (len(sent) >= max(limit, 1))


@settings(deadline=None)
@given(st.integers(1, 4000), st.sampled_from([(), (FINE,), (LATENCY,), (FINE, LATENCY)]))
def test_bandwidth_keeps_its_rate(size: int, others: tuple[Toxic, ...]) -> None:
    _, _, took = carry([b"x" * size], [[NARROW, *others]])
    # Latency delays the whole and adds nothing to each piece.
    assert took == pytest.approx(size / 1000 + delay_s(others, 0), abs=1e-6)


@settings(deadline=None)
@given(st.integers(1, 60))
def test_a_slicer_pauses_between_pieces(size: int) -> None:
    _, _, took = carry([b"x" * size], [[SLICER]])
    assert took == pytest.approx(0.002 * ((size - 1) // 10), abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.sampled_from([t for t in KEEPING if t not in (SHUT, RESET_PEER)])), st.data())
def test_a_wait_ends_in_sending(toxics: list[Toxic], data: st.DataObject) -> None:
    at, luck = data.draw(st.floats(0, 1e6)), data.draw(st.floats(-1, 1))
    chunk = Chunk(data.draw(st.binary(max_size=300)), at, luck)
    now = at + data.draw(st.floats(0, 10))
    first = decide(toxics, chunk, FRESH, now)
    if isinstance(first, Wait):
        assert first.until > now
        assert isinstance(decide(toxics, chunk, FRESH, first.until), Forward)
    else:
        assert isinstance(first, Forward)


@settings(deadline=None)
@given(st.floats(0, 1e6), st.floats(0, 1e4))
def test_a_pipe_makes_up_for_no_more_than_two_pieces(at: float, late: float) -> None:
    """Also when it was looked at long after: a stream that was held is no flood."""
    chunk, flow, now, count = Chunk(b"x" * 5000, at), FRESH, at + late, 0
    while isinstance(verdict := decide([NARROW], replace(chunk, taken=count), flow, now), Forward):
        flow = verdict.flow
        count += verdict.count
    assert count <= 1000 * CATCH_UP_S
    assert PIECE_S < CATCH_UP_S


def test_a_limit_that_is_raised_lets_more_through() -> None:
    lower = toxic("limit_data", bytes=25)
    higher = update(lower, {"attributes": {"bytes": 50}})
    verdict = decide([lower], Chunk(b"x" * 20, AT), FRESH, AT)
    assert isinstance(verdict, Forward)
    assert decide([higher], Chunk(b"x" * 99, AT), verdict.flow, AT) == Forward(
        30, Flow(AT, {"limit_data-25": 50}), close=True
    )
