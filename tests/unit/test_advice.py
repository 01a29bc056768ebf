"""The advisor: a client, its system, a middlebox, and what becomes of them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tcpresilience import Advice, Keepalive, Middlebox, UsageError, advise
from pytest_tcpresilience.evidence.causes import DEAD, RESET
from pytest_tcpresilience.evidence.verdict import Mechanism
from pytest_tcpresilience.tcp.advice_text import HEADINGS, duration, table
from pytest_tcpresilience.tcp.middleboxes import EVICTION_MODES, MIDDLEBOXES
from pytest_tcpresilience.tcp.stacks import AIX, STACKS, Linux, NetBSD, Solaris, stack_named

DEFAULTS = Keepalive.linux_defaults()
OFF = Keepalive.linux_defaults(enabled=False)


# --- held open, or not --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keepalive", "behind", "held", "why"),
    [
        (DEFAULTS, "aws-nlb", "no", "7200 s pass without a segment"),
        (Keepalive(300, 10, 6), "aws-nlb", "yes", "a probe each 300 s"),
        (Keepalive(311, 10, 6), "aws-nlb", "yes", "a probe each 311 s"),
        (Keepalive(312, 10, 6), "aws-nlb", "perhaps", "timers may be late: up to 351.06 s"),
        (Keepalive(349, 10, 6), "aws-nlb", "perhaps", "timers may be late"),
        (Keepalive(350, 10, 6), "aws-nlb", "no", "350 s pass without a segment"),
        # An answered probe on Linux waits for the longer of both.
        (Keepalive(60, 360, 2), "aws-nlb", "no", "360 s pass without a segment"),
        (OFF, "aws-nlb", "no", "no probes are sent"),
        (Keepalive(1, 1, 1), "haproxy", "no", "a proxy answers probes itself"),
    ],
)
def test_probes_hold_a_flow_open_if_they_come_in_time(
    keepalive: Keepalive, behind: str, held: str, why: str
) -> None:
    advice = advise(keepalive, behind=behind)
    assert advice.held == held
    assert why in advice.held_why
    assert (advice.forgotten is None) is (held == "yes")


def test_only_linux_waits_longer_after_an_answer() -> None:
    slow = Keepalive(60, 360, 2)
    assert advise(slow, stack="freebsd", behind="aws-nlb").held == "yes"


# --- what a client notices, by mode of eviction -------------------------------------------


def test_the_articles_firewall_answers_the_first_probe() -> None:
    """Trace B: idle for two hours, then the first probe meets RST."""
    firewall = Middlebox(3600, "reset", "firewall B")
    advice = advise("default", stack="aix", behind=firewall)
    assert advice.forgotten is not None
    assert (advice.forgotten.earliest, advice.forgotten.latest) == (3600, 3600)
    assert (advice.forgotten.mechanism, advice.forgotten.errno) == ("reset", "ECONNRESET")
    assert not advice.ok


def test_a_pulled_cable_is_noticed_by_the_count_of_aix() -> None:
    """Trace A: 795 s after the last segment."""
    silent = advise("default", stack=AIX(tcp_keepidle=240)).silent
    assert (silent.earliest, silent.latest) == (675, 795)
    assert (silent.mechanism, silent.errno) == ("keepalive", "ETIMEDOUT")


@pytest.mark.parametrize(
    ("then", "idle", "write"),
    [
        ("reset", (600, "reset", "ECONNRESET"), "reset"),
        ("drop", (600 + 3 * 75, "keepalive", "ETIMEDOUT"), "retransmission_limit"),
        ("drop_inbound", (math.inf, None, None), None),
        ("reset_both", (0, "reset", "ECONNRESET"), "reset"),
        ("fin", (0, "fin", None), "reset"),
    ],
)
def test_what_a_client_hears_of_a_forgotten_flow(
    then: str, idle: tuple[float, str | None, str | None], write: str | None
) -> None:
    advice = advise(Keepalive(900, 75, 3), behind=Middlebox(300, then))
    assert advice.forgotten is not None
    assert advice.forgotten_write is not None
    found = advice.forgotten
    assert (found.latest, found.mechanism, found.errno) == idle
    assert advice.forgotten_write.mechanism == write
    assert advice.ok is advice.behind.eviction.at_once if advice.behind else False


@pytest.mark.parametrize("then", EVICTION_MODES)
def test_without_keepalive_only_who_is_told_notices(then: str) -> None:
    advice = advise("off", behind=Middlebox(300, then))
    assert advice.forgotten is not None
    assert advice.forgotten.noticed is (then in ("reset_both", "fin"))
    assert not advice.silent.noticed
    assert advice.client.packets_per_hour == 0


@pytest.mark.parametrize(
    ("user_timeout", "mechanism", "after"),
    [(0, "retransmission_limit", 925.623), (5.0, "user_timeout", 5.201)],
)
def test_a_write_has_its_own_limit(user_timeout: float, mechanism: str, after: float) -> None:
    keepalive = Keepalive(1, 1, 3, user_timeout=user_timeout)
    writing = advise(keepalive).writing
    assert writing.mechanism == mechanism
    assert writing.latest == pytest.approx(after)
    assert advise(Keepalive(1, 1, 3, user_timeout=user_timeout, enabled=False)).writing == writing


def test_the_words_are_those_of_detections() -> None:
    notices = [
        notice
        for name in MIDDLEBOXES
        for advice in (advise(DEFAULTS, behind=name), advise(OFF, behind=name))
        for notice in (advice.forgotten, advice.forgotten_write, advice.silent, advice.writing)
        if notice is not None
    ]
    assert {notice.mechanism for notice in notices if notice.mechanism} <= set(Mechanism)
    import errno

    names = {errno.errorcode[code] for code in DEAD | RESET}
    assert {notice.errno for notice in notices if notice.errno} <= names
    assert all(math.isinf(notice.latest) is not notice.noticed for notice in notices)


def test_a_system_that_probes_for_ever_holds_flows_and_never_gives_up() -> None:
    advice = advise("default", stack=NetBSD(keepidle=200, keepcnt=0), behind="aws-nlb")
    assert advice.held == "yes"
    assert not advice.silent.noticed
    assert "it probes for ever" in advice.silent.why
    lost = advise("default", stack=NetBSD(keepcnt=0), behind=Middlebox(300, "drop"))
    assert lost.forgotten is not None
    assert not lost.forgotten.noticed


# --- the verdict --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keepalive", "behind", "within", "reason"),
    [
        (Keepalive(60, 10, 3), None, None, ""),
        (OFF, None, None, "a silent peer is never noticed: SO_KEEPALIVE is off"),
        (DEFAULTS, "aws-nlb", None, "the flow is not held open behind AWS NLB"),
        (Keepalive(340, 1, 1), "aws-nlb", None, "the flow may not be held open behind AWS NLB"),
        (DEFAULTS, "azure-lb-tcp-reset", None, ""),
        (OFF, "haproxy", None, ""),
        (Keepalive(60, 10, 3), "aws-nlb", 110, "a write to a silent peer is noticed up to 1041"),
        (Keepalive(60, 10, 3, user_timeout=90), "aws-nlb", 110, ""),
        (Keepalive(60, 10, 3, user_timeout=90), "aws-nlb", 100, "a silent peer is noticed up to"),
        (DEFAULTS, "aws-nlb", 7720, "a flow that AWS NLB forgot is noticed up to 7750"),
        (OFF, "aws-nlb", 8000, "a flow that AWS NLB forgot is never noticed"),
        (OFF, "haproxy", 2000, "a silent peer is never noticed"),
    ],
)
def test_the_verdict_and_what_stands_against(
    keepalive: Keepalive, behind: str | None, within: float | None, reason: str
) -> None:
    advice = advise(keepalive, behind=behind, within=within)
    assert advice.ok is (not reason)
    assert advice.ok is (not advice.reasons)
    assert advice.ok is (not advice.cures)
    if reason:
        assert advice.reasons[0].startswith(reason)


# --- cures --------------------------------------------------------------------------------


def test_both_cures_of_the_article_and_their_costs() -> None:
    advice = advise(DEFAULTS, behind="cisco-asa")
    client, box = advice.cures
    assert (client.where, client.possible) == ("client", True)
    assert client.keepalive == Keepalive(3199, 75, 9)
    assert client.change == "set TCP_KEEPIDLE 3199"
    assert client.packets_per_hour == pytest.approx(2 * 3600 / 3199)
    assert (box.where, box.possible, box.idle_timeout) == ("middlebox", True, 8101)
    assert "from 3600 s to 8101 s" in box.change
    assert box.packets_per_hour == 1.0


@pytest.mark.parametrize(
    ("keepalive", "behind", "why"),
    [
        (DEFAULTS, "aws-nlb", "but it can be set to 6000 s at most"),
        (DEFAULTS, "aws-nat-gateway", "but it cannot be set"),
        (OFF, "cisco-asa", "without keepalive no idle timeout is long enough"),
    ],
)
def test_a_box_that_cannot_be_cured_says_why(keepalive: Keepalive, behind: str, why: str) -> None:
    advice = advise(keepalive, behind=behind)
    box = advice.cures[1]
    assert not box.possible
    assert why in box.change
    assert f"middlebox: no: {box.change}" in str(advice)


def test_a_cure_that_is_not_enough_says_so() -> None:
    box = advise(DEFAULTS, behind="cisco-asa", within=60).cures[1]
    assert not box.possible
    assert "; not enough: a silent peer is noticed up to" in box.change
    short = advise("default", stack="openbsd", behind="cisco-asa", within=60).cures[0]
    assert not short.possible
    assert "; not enough: " in short.change
    # AIX has nothing that limits a write.
    write = advise(Keepalive(60, 10, 3), stack="aix", within=60).cures[0]
    assert not write.possible
    assert "; not enough: a write to a silent peer" in write.change


def test_a_cure_names_only_what_changes() -> None:
    (off,) = advise(OFF, within=60).cures
    assert off.change.startswith("set SO_KEEPALIVE on, TCP_KEEPIDLE ")
    (write,) = advise(Keepalive(5, 2, 3), within=30).cures
    assert write.change == "set TCP_USER_TIMEOUT 11 s"
    (single,) = advise("default", within=3).cures
    assert single.change.endswith("; one lost probe then ends a healthy connection")
    solaris = advise("default", stack="solaris", behind="aws-nlb").cures[0]
    assert solaris.change == "set TCP_KEEPIDLE 349, TCP_KEEPINTVL 1, TCP_KEEPCNT 15"


def test_no_keepalive_is_fast_enough_for_everything() -> None:
    (cure,) = advise(DEFAULTS, within=1).cures
    assert not cure.possible
    assert "no keepalive is fast enough" in cure.change
    tiny = advise(DEFAULTS, behind=Middlebox(0.5, "drop")).cures[0]
    assert "no keepalive is fast enough" in tiny.change


def test_a_system_without_options_is_cured_by_its_tunable() -> None:
    cure = advise("default", stack="hp-ux", behind="aws-nlb").cures[0]
    assert cure.possible
    assert cure.change == "set the system's tcp_keepalive_interval to 349000 (milliseconds)"
    off = advise("off", stack="openbsd", behind="aws-nlb").cures[0]
    assert off.change.startswith("set SO_KEEPALIVE on, and the system's net.inet.tcp.keepidle")
    low = advise("default", stack="hp-ux", behind=Middlebox(8, "drop")).cures[0]
    assert not low.possible
    assert low.change == "tcp_keepalive_interval cannot be as low as 7000"


def test_a_proxy_wants_a_heartbeat() -> None:
    advice = advise(OFF, behind="haproxy", within=60)
    first = advice.cures[0]
    assert first.where == "application"
    assert "a heartbeat each 25 s" in first.change
    assert first.packets_per_hour == 3 * 3600 / 25


SMALL = st.integers(1, 3000)


@given(
    st.sampled_from(["linux", "freebsd", "macos", "windows", "solaris", "aix", "netbsd"]),
    SMALL,
    SMALL,
    st.integers(1, 20),
    st.booleans(),
    st.floats(3, 5000),
    st.sampled_from(EVICTION_MODES),
    st.one_of(st.none(), st.floats(5, 5000)),
)
def test_a_cure_that_is_called_possible_cures(
    stack: str,
    idle: int,
    interval: int,
    probes: int,
    enabled: bool,
    limit: float,
    then: str,
    within: float | None,
) -> None:
    box = Middlebox(limit, then, adjustable=(1, 7000))
    keepalive = Keepalive(idle, interval, probes, enabled=enabled)
    advice = advise(keepalive, stack=stack, behind=box, within=within)
    for cure in advice.cures:
        assert cure.packets_per_hour >= 0
        if cure.possible and cure.keepalive:
            assert advise(cure.keepalive, stack=stack, behind=box, within=within).ok
        if cure.possible and cure.idle_timeout:
            raised = box.with_idle_timeout(cure.idle_timeout)
            assert advise(keepalive, stack=stack, behind=raised, within=within).ok
    if stack_named(stack).user_timeout_option or within is None:
        assert advice.ok or advice.cures[0].possible


@given(st.sampled_from(sorted(STACKS)), st.sampled_from(sorted(MIDDLEBOXES)))
def test_a_longer_memory_never_hurts(stack: str, name: str) -> None:
    box = MIDDLEBOXES[name]
    order = ["no", "perhaps", "yes"]
    short = advise("default", stack=stack, behind=box.scaled(box.idle_timeout))
    longer = advise("default", stack=stack, behind=box.scaled(box.idle_timeout * 2))
    assert order.index(short.held or "") <= order.index(longer.held or "")


@given(SMALL, SMALL, st.integers(1, 20), st.one_of(st.just(0), st.integers(1, 3000)))
def test_silence_is_never_noticed_before_it_can_be(
    idle: int, interval: int, probes: int, user_timeout: int
) -> None:
    silent = advise(Keepalive(idle, interval, probes, user_timeout=user_timeout)).silent
    assert interval <= silent.earliest < silent.latest


# --- bad input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keepalive": "on"}, "keepalive='on' is none of the choices"),
        ({"keepalive": None}, "keepalive=None is none of the choices"),
        ({"stack": "linus"}, "stack='linus' is not known"),
        ({"behind": "aws"}, "middlebox='aws' is not known"),
        ({"within": 0}, "within=0 is no bound"),
        ({"within": math.nan}, "within=nan is no bound"),
        ({"within": "5"}, "within='5' is no bound"),
        ({"within": True}, "within=True is no bound"),
        ({"keepalive": Keepalive(1, 1, 1), "stack": "openbsd"}, "cannot set TCP_KEEPIDLE"),
        (
            {"keepalive": Keepalive(1, 1, 1, user_timeout=5, enabled=False), "stack": "aix"},
            "AIX has no user timeout",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        advise(**arguments)
    assert message in str(caught.value)


# --- how it reads -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.42 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7875, "2 h 11 min 15 s"),
        (86400, "24 h"),
        (math.inf, "never"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_page_says_all_of_it() -> None:
    text = str(advise(DEFAULTS, behind="docker-swarm", within=900))
    for line in (
        "Linux, keepalive 7200/75/9; behind Docker Swarm VIP (forgets after 900 s, then drop)",
        "  flow held open   no: 7200 s pass without a segment, and it forgets after 900 s",
        "  forgotten, idle  after 1 h 56 min 15 s by keepalive (ETIMEDOUT): its probes are dropped",
        "  dead peer, idle  after 11 min 15 s to 2 h 11 min 15 s by keepalive (ETIMEDOUT)",
        "  keepalive costs  1.0 packets per connection and hour while idle",
        "  verdict          not well within 900 s",
        "    because a flow that Docker Swarm VIP forgot is noticed up to",
        "    1. client: set TCP_KEEPIDLE ",
        "  doubt            RST where both ends are on the same host",
    ):
        assert line in text
    assert "by fin (end of stream)" in str(advise(OFF, behind="envoy"))
    assert "forgotten, write at once by reset" in str(advise(OFF, behind="envoy"))


def test_a_client_says_what_it_is() -> None:
    assert str(advise("default", stack="aix").client) == "AIX, keepalive 7200/75/9 (the system's)"
    timed = Keepalive(1, 2, 3, user_timeout=4.5, enabled=False)
    assert str(advise(timed).client) == "Linux, keepalive off, user timeout 4.5 s"


def test_a_table_has_a_line_for_each_box() -> None:
    lines = table([advise(DEFAULTS, behind=name) for name in MIDDLEBOXES]).splitlines()
    assert lines[0] == "Linux, keepalive 7200/75/9"
    assert lines[1].split("  ")[0] == HEADINGS[0]
    assert len(lines) == 2 + len(MIDDLEBOXES)
    (nlb,) = [line for line in lines if line.startswith("AWS NLB  ")]
    assert "5 min 50 s" in nlb
    assert nlb.endswith("not well  set TCP_KEEPIDLE 311")
    lost = table([advise("off", behind=Middlebox(0.5, "drop"))])
    assert lost.endswith("none of its own")


@pytest.mark.parametrize("name", [*MIDDLEBOXES, None])
@pytest.mark.parametrize("keepalive", ["default", "off"])
def test_plain_values_are_json(name: str | None, keepalive: str) -> None:
    advice = advise(keepalive, behind=name, within=30)
    plain = advice.as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["ok"] is advice.ok
    assert (plain["behind"] or {}).get("name") == (advice.behind and advice.behind.name)
    assert plain["silent"]["noticed"] is (keepalive == "default")


def test_advice_is_a_value() -> None:
    assert isinstance(advise(), Advice)
    assert advise(behind="aws-nlb") == advise("default", stack=Linux(), behind=Middlebox.AWS_NLB)
    assert advise("default", stack=Solaris()).client.packets_per_hour == 1.0
