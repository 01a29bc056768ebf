"""Options: where they come from, which of them wins, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_tcpresilience import UsageError
from pytest_tcpresilience.settings import OPTIONS, Settings, resolve, with_marker

DEFAULTS = Settings()


def test_each_setting_is_one_option() -> None:
    # The marker's own, and pytest's own -vv.
    others = {"wait": 0.0, "complete": False}
    assert {option.name: option.default for option in OPTIONS} | others == vars(DEFAULTS)
    assert all(option.help for option in OPTIONS)


def test_the_names_of_an_option() -> None:
    option = next(option for option in OPTIONS if option.name == "hit_timeout")
    assert option.flag == "--resilience-hit-timeout"
    assert option.ini == "resilience_hit_timeout"
    assert option.variable == "RESILIENCE_HIT_TIMEOUT"


INI = {"resilience_slack": "1"}
ENVIRONMENT = {"RESILIENCE_SLACK": "2"}
FLAGS = {"slack": "3"}


@pytest.mark.parametrize(
    ("ini", "environment", "flags", "slack"),
    [
        pytest.param({}, {}, {}, DEFAULTS.slack, id="default"),
        pytest.param(INI, {}, {}, 1.0, id="ini"),
        pytest.param(INI, ENVIRONMENT, {}, 2.0, id="environment-beats-ini"),
        pytest.param(INI, ENVIRONMENT, FLAGS, 3.0, id="flag-beats-environment"),
        pytest.param(INI, {}, FLAGS, 3.0, id="flag-beats-ini"),
        pytest.param({"resilience_slack": None}, {}, {"slack": None}, DEFAULTS.slack, id="none"),
        pytest.param({"resilience_slack": ""}, {"RESILIENCE_SLACK": ""}, {}, 0.5, id="empty"),
        pytest.param({"resilience_slack": 0.25}, {}, {}, 0.25, id="number"),
    ],
)
def test_the_nearest_source_wins(
    ini: dict[str, Any], environment: dict[str, str], flags: dict[str, Any], slack: float
) -> None:
    found = resolve(ini, environment, flags)
    assert found.slack == slack
    assert (found.hit_timeout, found.engine_timeout) == (
        DEFAULTS.hit_timeout,
        DEFAULTS.engine_timeout,
    )


def test_a_marker_beats_them_all() -> None:
    settings = resolve(INI, ENVIRONMENT, FLAGS)
    marked = with_marker(settings, (), {"slack": 4, "hit_timeout": 5.5})
    assert marked == Settings(slack=4.0, hit_timeout=5.5)
    assert settings.slack == 3.0


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf", 0, -0.5, True, [1]])
def test_what_is_no_time(value: Any) -> None:
    with pytest.raises(UsageError, match="is no time") as caught:
        resolve({}, {}, {"slack": value})
    assert caught.value.happened == f"got {value!r}"
    assert caught.value.expected == "seconds greater than 0"


@pytest.mark.parametrize(
    ("source", "origin"),
    [
        pytest.param({"ini": {"resilience_slack": "x"}}, "ini option resilience_slack", id="ini"),
        pytest.param(
            {"environment": {"RESILIENCE_SLACK": "x"}},
            "environment variable RESILIENCE_SLACK",
            id="environment",
        ),
        pytest.param({"flags": {"slack": "x"}}, "--resilience-slack", id="flag"),
    ],
)
def test_a_bad_value_is_traced_to_its_source(source: dict[str, Any], origin: str) -> None:
    with pytest.raises(UsageError, match=f"^{origin}: 'x' is no time") as caught:
        resolve(**{"ini": {}, "environment": {}, "flags": {}, **source})
    assert caught.value.advice == f"correct {origin}"


def test_a_bad_value_in_a_marker() -> None:
    with pytest.raises(UsageError, match=r"@pytest\.mark\.resilience\(slack=…\): 0 is no time"):
        with_marker(DEFAULTS, (), {"slack": 0})


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        pytest.param((1.0,), {}, "1.0", id="positional"),
        pytest.param((), {"slak": 1}, "slak", id="misspelt"),
        pytest.param((), {"long_wait": 1}, "long_wait", id="of-the-session"),
        pytest.param(("a",), {"slak": 1, "slack": 1}, "'a', slak", id="both"),
    ],
)
def test_a_marker_that_cannot_be_used(
    args: tuple[Any, ...], kwargs: dict[str, Any], named: str
) -> None:
    with pytest.raises(UsageError, match=rf"mark\.resilience: cannot use {named}") as caught:
        with_marker(DEFAULTS, args, kwargs)
    assert "slack, hit_timeout, engine_timeout, wait" in caught.value.expected


def test_only_a_test_waits() -> None:
    assert with_marker(DEFAULTS, (), {"wait": 30}).wait == 30.0
    assert "wait" not in [option.name for option in OPTIONS]
    with pytest.raises(UsageError, match=r"resilience\(wait=…\): 'long' is no time"):
        with_marker(DEFAULTS, (), {"wait": "long"})


@pytest.mark.parametrize(("wait", "long"), [(9.9, False), (10.0, True), (60, True)])
def test_a_long_wait_begins_at_the_options_value(wait: float, long: bool) -> None:
    assert with_marker(DEFAULTS, (), {"wait": wait}).waits_long is long
    shorter = resolve({}, {}, {"long_wait": "0.5"})
    assert with_marker(shorter, (), {"wait": wait}).waits_long
    assert not shorter.waits_long
