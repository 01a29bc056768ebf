"""What settings are worth: the rules one by one, what is unknown, and how many read."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tcpresilience.evidence.judgements import MOST_KINDS, cures, describe, judge
from pytest_tcpresilience.evidence.promises import (
    RULES,
    Promise,
    idle_death_s,
    write_death_s,
)
from pytest_tcpresilience.evidence.readings import KeepaliveReading, by_timer
from pytest_tcpresilience.evidence.remedies import suitable, whole_s
from pytest_tcpresilience.kernel.sockdiag import SocketState
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.middleboxes import Middlebox

ENDS = ("10.0.0.1", 50000), ("10.0.0.2", 5432)
NLB = Middlebox(idle_timeout=350, then="reset", name="aws-nlb")
MINUTE = Promise(within=60)
OFF = Keepalive(30, 10, 3, enabled=False)


def reading(settings: Keepalive, **more: Any) -> KeepaliveReading:
    return KeepaliveReading(
        *ENDS,
        pid=7,
        process="app",
        enabled=settings.enabled,
        idle=settings.idle,
        interval=settings.interval,
        probes=settings.probes,
        user_timeout=settings.user_timeout,
        **more,
    )


def partial(**known: Any) -> KeepaliveReading:
    return KeepaliveReading(*ENDS, partial="out of reach", **known)


CASES = {
    "firm": (reading(Keepalive(20, 10, 3)), MINUTE, []),
    "off": (reading(Keepalive.linux_defaults(enabled=False)), MINUTE, ["off"]),
    "off_by_timer": (partial(enabled=False), MINUTE, ["off"]),
    "off_though_set": (reading(OFF), MINUTE, ["off_though_set"]),
    "off_and_a_box": (reading(OFF), Promise(behind=NLB), ["off_though_set"]),
    "off_and_nothing_promised": (reading(OFF), Promise(), ["off_though_set"]),
    "off_where_only_writes_matter": (
        reading(Keepalive(30, 10, 3, 20.0, enabled=False)),
        Promise(writes_within=30),
        [],
    ),
    "defaults": (reading(Keepalive.linux_defaults()), MINUTE, ["idle_too_slow"]),
    "nominal_is_not_enough": (reading(Keepalive(30, 10, 3)), MINUTE, ["idle_too_slow"]),
    "interval_counts_after_an_answer": (
        reading(Keepalive(5, 25, 1)),
        Promise(within=45),
        ["idle_too_slow", "interval_above_idle"],
    ),
    "timer_too_late": (
        partial(enabled=True, next_probe_in=60.0),
        MINUTE,
        ["idle_too_slow_at_least"],
    ),
    "timer_proves_nothing": (partial(enabled=True, next_probe_in=20.0), MINUTE, []),
    "writes_unbounded": (
        reading(Keepalive(20, 10, 3)),
        Promise(writes_within=60),
        ["writes_unbounded"],
    ),
    "writes_bounded_by_the_system": (
        reading(Keepalive(20, 10, 3)),
        Promise(writes_within=60, retries2=5),
        [],
    ),
    "writes_too_slow": (
        reading(Keepalive(20, 10, 4, user_timeout=55.0)),
        Promise(writes_within=60),
        ["writes_too_slow"],
    ),
    "writes_in_time": (
        reading(Keepalive(20, 10, 3, user_timeout=50.0)),
        Promise(writes_within=60),
        [],
    ),
    "box_forgets": (reading(Keepalive(340, 10, 3)), Promise(behind=NLB), ["box_forgets"]),
    "box_remembers": (reading(Keepalive(300, 10, 3)), Promise(behind=NLB), []),
    "box_forgets_by_interval": (
        reading(Keepalive(10, 400, 3)),
        Promise(behind=NLB),
        ["box_forgets", "interval_above_idle"],
    ),
    "box_forgets_by_timer": (
        partial(enabled=True, next_probe_in=350.0),
        Promise(behind=NLB),
        ["box_forgets_at_least"],
    ),
    "box_counts_bytes": (
        reading(Keepalive(10, 10, 3)),
        Promise(behind=Middlebox(60, name="alb", proxy=True)),
        ["box_counts_bytes"],
    ),
    "half_set": (reading(Keepalive(7200, 1, 3)), Promise(within=9000), ["half_set"]),
    "half_set_on_a_tuned_system": (
        reading(Keepalive(60, 1, 3)),
        Promise(within=90, defaults=Keepalive(60, 75, 9)),
        ["half_set"],
    ),
    "user_timeout_below_idle": (
        reading(Keepalive(20, 10, 3, user_timeout=5.0)),
        MINUTE,
        ["user_timeout_below_idle"],
    ),
    "count_replaced": (
        reading(Keepalive(10, 5, 2, user_timeout=40.0)),
        MINUTE,
        ["count_replaced"],
    ),
    "user_timeout_that_agrees": (
        reading(Keepalive(20, 10, 3, user_timeout=50.0)),
        MINUTE,
        [],
    ),
}


@pytest.mark.parametrize(("seen", "promise", "rules"), CASES.values(), ids=CASES)
def test_the_rules_that_settings_break(
    seen: KeepaliveReading, promise: Promise, rules: list[str]
) -> None:
    judgement = judge(seen, promise)
    assert [finding.rule for finding in judgement.findings] == rules
    for finding in judgement.findings:
        assert "{" not in finding.why + finding.cure


def test_every_rule_has_a_case() -> None:
    assert {rule for *_, rules in CASES.values() for rule in rules} == {r.name for r in RULES}


NOTES = {"half_set", "user_timeout_below_idle", "count_replaced", "interval_above_idle"}


def test_what_is_useless_is_not_a_failure() -> None:
    assert {rule.name for rule in RULES if not rule.fails} == NOTES


# --- sentences ----------------------------------------------------------------------------

SENTENCES = {
    "off_though_set": "SO_KEEPALIVE is off, so TCP_KEEPIDLE=30, TCP_KEEPINTVL=10 and "
    "TCP_KEEPCNT=3 have no effect: an idle connection is never found dead",
    "defaults": "with the system's defaults an idle death is noticed after 2 h 11 min 15 s, and "
    "after up to 2 h 27 min 40 s as the kernel's timers are late; 60.0 s is promised",
    "nominal_is_not_enough": "with these an idle death is noticed after 60.0 s, and after up to "
    "67.7 s as the kernel's timers are late; 60.0 s is promised",
    "timer_too_late": "the next keepalive probe is due in 60.0 s, so an idle death is noticed "
    "after 61.0 s at the soonest; 60.0 s is promised",
    "writes_unbounded": "TCP_USER_TIMEOUT is off: data that nobody acknowledges is repeated for "
    "15 min 39 s (tcp_retries2 = 15), and keepalive does not run meanwhile",
    "writes_too_slow": "with TCP_USER_TIMEOUT at 55 s a death with unacknowledged data is noticed "
    "after 55.4 s, and after up to 62.5 s as the kernel's timers are late; 60.0 s is promised",
    "box_forgets": "an idle connection carries a probe each 5 min 40 s, up to 6 min 23 s as the "
    "kernel's timers are late, and aws-nlb forgets it after 5 min 50 s",
    "box_forgets_by_timer": "the next keepalive probe is due in 5 min 50 s, and aws-nlb forgets "
    "an idle connection after 5 min 50 s",
    "box_counts_bytes": "alb ends TCP itself and counts the application's bytes: no keepalive "
    "probe keeps a connection through it alive",
    "half_set": "TCP_KEEPIDLE is the system's 7200 s, though TCP_KEEPINTVL=1 and TCP_KEEPCNT=3 "
    "are not the system's: so ends a client that asks for less than a second, which becomes 0, "
    "which the kernel refuses",
    "user_timeout_below_idle": "TCP_USER_TIMEOUT (5 s) is shorter than TCP_KEEPIDLE (20 s): it "
    "takes the place of TCP_KEEPCNT=3, and one lost probe ends a healthy connection",
    "count_replaced": "TCP_USER_TIMEOUT (40 s) takes the place of TCP_KEEPCNT=2: the kernel gives "
    "up after 6 unanswered, which is later",
}


@pytest.mark.parametrize(("case", "sentence"), SENTENCES.items(), ids=SENTENCES)
def test_how_it_is_said(case: str, sentence: str) -> None:
    seen, promise, _ = CASES[case]
    assert judge(seen, promise).findings[0].why == sentence


def test_a_cure_names_settings() -> None:
    seen, promise, _ = CASES["defaults"]
    assert cures([judge(seen, promise)]) == "set TCP_KEEPIDLE=13, TCP_KEEPINTVL=13, TCP_KEEPCNT=3"


def test_a_cure_for_a_client_with_a_user_timeout_sets_that_too() -> None:
    seen = reading(Keepalive(30, 30, 9, user_timeout=300.0))
    assert cures([judge(seen, MINUTE)]) == (
        "set TCP_KEEPIDLE=13, TCP_KEEPINTVL=13, TCP_KEEPCNT=3, TCP_USER_TIMEOUT=52000 "
        "(milliseconds)"
    )


@pytest.mark.parametrize(
    ("promise", "says"),
    [
        (Promise(within=1), "TCP_KEEPCNT=1, and promise no less than 2.5 s"),
        (Promise(writes_within=0.5), "no TCP_USER_TIMEOUT is as fast as that"),
        (Promise(within=0.1, writes_within=0.5), "no TCP_USER_TIMEOUT is as fast as that"),
        (Promise(writes_within=30), "set TCP_USER_TIMEOUT=26100 (milliseconds)"),
    ],
)
def test_where_no_setting_is_fast_enough(promise: Promise, says: str) -> None:
    assert says in cures([judge(reading(Keepalive.linux_defaults()), promise)])


times = st.none() | st.floats(min_value=3, max_value=100_000)


@given(within=times, writes=times, box=st.none() | st.floats(min_value=3, max_value=100_000))
def test_the_advice_keeps_the_promise(
    within: float | None, writes: float | None, box: float | None
) -> None:
    behind = None if box is None else Middlebox(box)
    promise = Promise(within, writes, behind)
    fit = suitable(promise)
    if fit is None:
        assert min(x for x in (within, writes, box) if x is not None) < 4
        return
    whole = Keepalive(fit.idle, fit.interval, fit.probes, user_timeout=float(whole_s(fit)))
    assert judge(reading(whole), promise).findings == ()
    assert judge(reading(whole), promise).verdict == "holds"


# --- how long -----------------------------------------------------------------------------


def test_how_long_it_takes() -> None:
    assert idle_death_s(reading(OFF)) == math.inf
    assert idle_death_s(partial(enabled=False)) == math.inf
    assert idle_death_s(partial(enabled=True, next_probe_in=3.0)) is None
    assert idle_death_s(reading(Keepalive.linux_defaults())) == 7875
    assert write_death_s(partial()) is None
    assert write_death_s(reading(OFF)) == pytest.approx(938.66)
    assert write_death_s(reading(OFF, rto=1.0)) == pytest.approx(968)
    assert write_death_s(reading(Keepalive(1, 1, 1, user_timeout=5))) == pytest.approx(5.42)


@pytest.mark.parametrize(
    ("retries2", "measured"),
    [(1, 1.66), (2, 3.33), (3, 6.82), (4, 6.82), (5, 13.43), (15, 938.66)],
)
def test_the_measured_limits_of_writes(retries2: int, measured: float) -> None:
    assert write_death_s(reading(OFF), retries2) == pytest.approx(measured, rel=0.02)


# --- what is not known --------------------------------------------------------------------

EVERYTHING = Promise(within=60, writes_within=60, behind=NLB)


def unknown(seen: KeepaliveReading, promise: Promise) -> list[str]:
    return [what.removeprefix("whether ")[:20] for what in judge(seen, promise).unknown]


def test_what_is_not_known() -> None:
    idle, data, box = "an idle death is not", "a death with unackno", "an idle connection i"
    assert unknown(reading(OFF), EVERYTHING) == []
    assert unknown(partial(), EVERYTHING) == [idle, data, box]
    assert unknown(partial(), Promise()) == ["keepalive is on"]
    assert unknown(partial(enabled=True, next_probe_in=9.0), Promise()) == []
    assert unknown(partial(enabled=True, next_probe_in=9.0), EVERYTHING) == [idle, data, box]
    # What is proven is known.
    assert unknown(partial(enabled=True, next_probe_in=90.0), EVERYTHING) == [data, box]
    assert unknown(partial(enabled=True, next_probe_in=400.0), EVERYTHING) == [data]
    assert unknown(partial(enabled=False), EVERYTHING) == [data]


def test_the_verdict_is_the_worst() -> None:
    assert judge(reading(Keepalive(20, 10, 3)), MINUTE).verdict == "holds"
    assert judge(partial(), MINUTE).verdict == "unknown"
    assert judge(partial(enabled=False), EVERYTHING).verdict == "fails"


@pytest.mark.parametrize(
    ("timer", "enabled", "due"),
    [
        ("keepalive", True, 1.5),
        ("off", False, None),
        ("retransmit", None, None),
        ("persist", None, None),
    ],
)
def test_what_a_timer_tells(timer: str, enabled: bool | None, due: float | None) -> None:
    seen = SocketState("established", timer, 1.5, 0, 0, 0, 0, 1)
    found = by_timer(partial(), seen)
    assert (found.enabled, found.next_probe_in, found.complete) == (enabled, due, False)


# --- many ---------------------------------------------------------------------------------


def test_connections_that_are_alike_are_named_once() -> None:
    alike = [judge(reading(OFF, connection=number), MINUTE) for number in (1, 2, 3)]
    other = judge(reading(Keepalive.linux_defaults(), connection=4), MINUTE)
    lines = describe([*alike, other]).splitlines()
    assert lines[0] == (
        "connection 1, 10.0.0.1:50000 to 10.0.0.2:5432 and 2 like it, process 7 (app): "
        "keepalive off"
    )
    assert lines[2].endswith("process 7 (app): keepalive 7200/75/9")
    assert len(lines) == 4
    assert len(cures([*alike, other]).split("; ")) == 2


def test_many_kinds_are_not_all_named() -> None:
    kinds = [judge(reading(Keepalive(1000 + n, 1, 1)), MINUTE) for n in range(MOST_KINDS + 2)]
    lines = describe(kinds).splitlines()
    assert lines[-1] == "and 2 other kinds"
    assert len(lines) == 2 * MOST_KINDS + 1


def test_a_promise_in_words() -> None:
    assert str(Promise()) == "a death noticed at all"
    assert str(EVERYTHING).endswith("behind aws-nlb (forgets after 350 s, then reset)")
