"""Times that two runs agree on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_tcpresilience.records.record import Happening, Record, Settings
from pytest_tcpresilience.report import bands
from pytest_tcpresilience.report.bands import Band
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.windows import within
from tests.gates import OFF, ON, hung, record

# What clients are configured with. Nothing is claimed of a timer that is a little shorter
# than a class's number: docs/contract.md.
TIMERS_S = (
    0.0,
    0.1,
    0.25,
    0.5,
    1,
    1.5,
    2,
    2.5,
    3,
    4,
    5,
    6,
    8,
    10,
    12,
    15,
    20,
    30,
    45,
    60,
    120,
    300,
)


@pytest.mark.parametrize("timer", TIMERS_S)
def test_a_timer_is_in_the_same_class_on_time_and_as_late_as_can_be(timer: float) -> None:
    early, late = timer - 0.020, timer * 1.125 + 0.160
    assert bands.class_of(max(early, 0.0)) == bands.class_of(timer) == bands.class_of(late)


@pytest.mark.parametrize(
    ("seconds", "band"),
    [
        (0.0, Band(0.0, 1.0)),
        (0.91, Band(0.0, 1.0)),
        (0.92, Band(1.0, 4.0)),
        (3.67, Band(1.0, 4.0)),
        (3.68, Band(4.0, 15.0)),
        (938.7, Band(900.0, None)),
    ],
)
def test_a_class_begins_a_little_below_its_number(seconds: float, band: Band) -> None:
    assert bands.class_of(seconds) == band


def test_a_keepalive_has_the_kernels_window_whenever_the_fault_came() -> None:
    keepalive = Keepalive(idle=1, interval=1, probes=2)
    assert bands.kernels_band("keepalive", ON) == Band(1.98, 3.54)
    for idle_for in (0.0, 0.3, 0.99, 5.0):
        window = within(keepalive, idle_for=idle_for)
        assert window.earliest >= 1.98
        assert window.latest <= 3.54


@pytest.mark.parametrize("after", [2.2, 2.7, 3.0, 3.4, 3.53])
def test_its_band_does_not_depend_on_what_was_measured(after: float) -> None:
    assert bands.noticed(record(after=after)) == Band(1.98, 3.54)


def test_a_keepalive_that_its_settings_do_not_explain_has_a_class() -> None:
    assert bands.noticed(record(after=9.0)) == Band(4.0, 15.0)
    assert bands.noticed(record(settings=None)) == Band(1.0, 4.0)
    assert bands.noticed(record(settings=OFF)) == Band(1.0, 4.0)


def test_settings_that_no_kernel_has_are_no_ground_for_a_band() -> None:
    assert bands.kernels_band("keepalive", Settings(True, 0, 1, 1, 0)) is None


def test_a_user_timeout_takes_the_place_of_the_probes() -> None:
    both = replace(ON, user_timeout_ms=5000)
    assert bands.kernels_band("keepalive", both) == Band(3.98, 5.79)


@pytest.mark.parametrize("after", [0.48, 0.9, 0.93, 1.1])
def test_a_user_timeout_counts_from_a_write_that_nobody_has_timed(after: float) -> None:
    """A timer of 0.5 s ends on either side of a border between classes."""
    ended = record(
        mechanism="user_timeout", after=after, settings=replace(OFF, user_timeout_ms=500)
    )
    assert bands.noticed(ended) == Band(0.0, 1.2)
    assert bands.kernels_band("user_timeout", OFF) is None
    assert bands.kernels_band("retransmission_limit", OFF) is None


def test_what_was_fast_forwarded_is_arithmetic() -> None:
    band = bands.noticed(record(after=3.02, nominal=7875.0))
    assert band == Band(7875.0, 7875.0)
    assert band.agrees(7875.0)
    assert not band.agrees(4275.0)
    assert not band.agrees(11475.0)


def test_there_is_no_time_of_what_did_not_happen_or_came_before_the_fault() -> None:
    assert bands.noticed(hung()) is None
    assert bands.noticed(record(after=-0.2)) is None
    assert bands.time_of(record(after=-0.2)) is None


@pytest.mark.parametrize(
    ("seconds", "same"), [(0.5, False), (0.985, True), (2.0, True), (4.6, True), (4.7, False)]
)
def test_a_later_time_agrees_as_far_as_a_timer_may_be_late(seconds: float, same: bool) -> None:
    assert Band(1.0, 4.0).agrees(seconds) is same


def test_a_kernels_timer_may_be_early_by_the_granularity_of_clocks() -> None:
    assert Band(1.98, 3.54).agrees(1.965)
    assert not Band(1.98, 3.54).agrees(1.95)


@pytest.mark.parametrize("seconds", [0.0, 0.3, 0.95, 1.0, 3.7, 4.0, 14.0, 59.0, 1000.0])
def test_every_time_agrees_with_its_own_class(seconds: float) -> None:
    assert bands.class_of(seconds).agrees(seconds)


@pytest.mark.parametrize(
    ("band", "text"),
    [
        (Band(0.0, 1.0), "less than 1 s"),
        (Band(1.98, 3.54), "1.98 s to 3.54 s"),
        (Band(900.0, None), "900 s or more"),
        (Band(7875.0, 7875.0), "7875 s"),
    ],
)
def test_bands_in_words_and_in_json(band: Band, text: str) -> None:
    assert str(band) == text
    assert Band.from_json(band.to_json()) == band


@pytest.mark.parametrize("number", [-1, True, "1", float("nan"), float("inf")])
def test_what_is_no_band(number: object) -> None:
    with pytest.raises(ValueError, match="is no time"):
        Band.from_json({"earliest": number})
    with pytest.raises(ValueError, match="is no time"):
        Band.from_json({"earliest": 0.0, "latest": number})


def evicted(after: float, idle_for: float = 0.05, **also: Any) -> Record:
    hit = Happening(0.0, "fault_hit", "", 1, {"idle_for": idle_for})
    return record(
        **{
            "after": after,
            "mechanism": "reset",
            "effect": "evict_reset",
            "timeline": (hit,),
            **also,
        }
    )


@pytest.mark.parametrize(
    ("after", "idle_for"),
    [(0.91, 0.09), (0.93, 0.07), (1.1, 0.0), (0.5, 0.5), (0.3, 5.0), (1.285, 0.0)],
)
def test_a_reset_that_answers_a_probe_has_one_band_whenever_the_fault_came(
    after: float, idle_for: float
) -> None:
    assert bands.noticed(evicted(after, idle_for)) == Band(0.0, 1.29)


@pytest.mark.parametrize(
    ("found", "band"),
    [
        (evicted(0.2), Band(0.0, 1.0)),  # a write was answered
        (evicted(2.0), Band(1.0, 4.0)),
        (evicted(0.95, settings=OFF), Band(1.0, 4.0)),
        (evicted(0.95, settings=None), Band(1.0, 4.0)),
        (evicted(0.95, settings=Settings(True, 0, 1, 1, 0)), Band(1.0, 4.0)),
        (evicted(0.95, effect="reset"), Band(1.0, 4.0)),
        (evicted(0.95, mechanism="application"), Band(1.0, 4.0)),
    ],
)
def test_any_other_reset_has_its_class(found: Record, band: Band) -> None:
    assert bands.noticed(found) == band
