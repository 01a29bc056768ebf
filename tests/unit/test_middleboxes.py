"""Middleboxes as data."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest

from pytest_tcpresilience import UsageError
from pytest_tcpresilience.tcp.middleboxes import (
    EVICTION_MODES,
    EVICTIONS,
    MIDDLEBOXES,
    Middlebox,
    middlebox_named,
)
from pytest_tcpresilience.tcp.provenance import Confidence


@pytest.mark.parametrize("mode", EVICTION_MODES)
def test_every_mode_of_eviction_is_one(mode: str) -> None:
    assert Middlebox(350, then=mode).then == mode


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf, True, "350", None, 0.0009])
def test_what_is_no_time_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="is no time"):
        Middlebox(wrong)


def test_an_unknown_mode_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="none of the choices") as caught:
        Middlebox(350, then="rst")
    assert '"reset_both"' in str(caught.value)


def test_it_says_what_it_is() -> None:
    assert str(Middlebox(350, "reset", "AWS NLB")) == ("AWS NLB (forgets after 350 s, then reset)")


# --- presets -----------------------------------------------------------------------------

# What the documents say: seconds, and what comes after.
KNOWN = {
    "aws-nlb": (350, "reset"),
    "aws-nlb-tls": (350, "reset"),
    "aws-nat-gateway": (350, "reset"),
    "aws-network-firewall": (350, "drop"),
    "aws-security-group": (432_000, "drop"),
    "aws-alb": (60, "fin"),
    "azure-lb": (240, "drop"),
    "azure-lb-tcp-reset": (240, "reset_both"),
    "azure-nat-gateway": (240, "reset"),
    "gcp-firewall": (600, "drop_inbound"),
    "gcp-cloud-nat": (1200, "drop"),
    "cloudflare": (400, "fin"),
    "docker-swarm": (900, "drop"),
    "kube-proxy-ipvs": (900, "drop"),
    "linux-conntrack": (432_000, "drop"),
    "cisco-asa": (3600, "drop"),
    "palo-alto": (3600, "drop"),
    "fortigate": (3600, "drop"),
    "juniper-srx": (1800, "drop"),
    "rfc5382-nat": (7440, "drop"),
    "haproxy": (50, "fin"),
    "nginx-stream": (600, "fin"),
    "nginx-http": (75, "fin"),
    "envoy": (3600, "fin"),
    "pgbouncer": (600, "fin"),
}


def test_the_presets_are_what_the_documents_say() -> None:
    assert {key: (box.idle_timeout, box.then) for key, box in MIDDLEBOXES.items()} == KNOWN


@pytest.mark.parametrize("name", MIDDLEBOXES)
def test_a_preset_is_an_attribute_and_has_sources(name: str) -> None:
    box = middlebox_named(name)
    attribute = name.upper().replace("-", "_")
    assert getattr(Middlebox, attribute) is box
    assert attribute in Middlebox.__annotations__
    assert middlebox_named(attribute) is box
    assert box.source is not None
    assert box.source.where
    assert box.eviction_source is not None
    assert box.proxy is (box.then == "fin")
    assert all(Confidence(mark) for mark in (box.source.confidence, box.eviction_source.confidence))


def test_no_preset_is_declared_that_does_not_exist() -> None:
    declared = {name for name in Middlebox.__annotations__ if name.isupper()}
    assert declared == {name.upper().replace("-", "_") for name in MIDDLEBOXES}


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ("aws-nbl", "did you mean 'aws-nlb'"),
        ("Cisco ASA!", "did you mean 'cisco-asa'"),
        ("zzzz", "pass one of them"),
        (7, "pass one of them"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(wrong: Any, advice: str) -> None:
    with pytest.raises(UsageError, match=f"middlebox={wrong!r} is not known") as caught:
        middlebox_named(wrong)
    assert advice in str(caught.value)
    assert "azure-lb-tcp-reset" in str(caught.value)


def test_a_scaled_box_forgets_in_the_same_way_and_says_so() -> None:
    box = Middlebox.AWS_NLB.scaled(2)
    assert (box.idle_timeout, box.then, box.adjustable) == (2.0, "reset", None)
    assert str(box) == "AWS NLB, scaled from 350 s (forgets after 2 s, then reset)"
    assert Middlebox.AWS_NLB.idle_timeout == 350


@pytest.mark.parametrize("wrong", [0, -1, math.nan, True, "1"])
def test_a_box_is_not_scaled_to_what_is_no_time(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"Middlebox.scaled: seconds=.* is no time"):
        Middlebox.AWS_NLB.scaled(wrong)


def test_an_owner_sets_the_timeout_inside_the_range() -> None:
    assert Middlebox.AWS_NLB.with_idle_timeout(6000).idle_timeout == 6000
    with pytest.raises(UsageError, match=r"idle_timeout=6001 is not in adjustable=\(60, 6000\)"):
        Middlebox.AWS_NLB.with_idle_timeout(6001)
    with pytest.raises(UsageError, match="AWS NAT gateway: the idle timeout cannot be set"):
        Middlebox.AWS_NAT_GATEWAY.with_idle_timeout(400)


@pytest.mark.parametrize("wrong", [(400, 500), (0, 500), (300, math.inf)])
def test_a_range_without_the_timeout_is_refused(wrong: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="is not in adjustable="):
        Middlebox(350, adjustable=wrong)


def test_each_mode_of_eviction_says_who_hears() -> None:
    assert tuple(EVICTIONS) == EVICTION_MODES
    assert {mode for mode, told in EVICTIONS.items() if told.at_once} == {"reset_both", "fin"}
    assert Middlebox.AWS_NLB.eviction.hears == "whoever sends next"


def test_a_session_that_asks_for_no_box_does_not_pay_for_the_tables() -> None:
    tables = "pytest_tcpresilience.tcp.presets", "pytest_tcpresilience.tcp.stacks", "difflib"
    code = (
        "import sys, pytest_tcpresilience.plugin as _, pytest_tcpresilience as p; "
        f"print([name for name in {tables!r} if name in sys.modules]); "
        "print(p.Middlebox.AWS_NLB.idle_timeout)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["[]", "350"]
