"""Which engine a session uses: where that comes from, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_tcpresilience import UsageError
from pytest_tcpresilience.engine_choice import CHOICES, EngineChoice, choose_engine, ports_of

DEFAULTS = EngineChoice()


def choose(**flags: str) -> EngineChoice:
    return choose_engine({}, {}, flags)


def test_each_field_is_one_option() -> None:
    assert {option.name: option.default for option in CHOICES} == vars(DEFAULTS)
    assert all(option.help and option.metavar for option in CHOICES)


def test_the_names_of_an_option() -> None:
    option = next(option for option in CHOICES if option.name == "toxiproxy_ports")
    assert option.flag == "--resilience-toxiproxy-ports"
    assert option.ini == "resilience_toxiproxy_ports"
    assert option.variable == "RESILIENCE_TOXIPROXY_PORTS"


@pytest.mark.parametrize(
    ("ini", "environment", "flags", "engine"),
    [
        ({}, {}, {}, "embedded"),
        ({"resilience_engine": "toxiproxy"}, {}, {}, "toxiproxy"),
        (
            {"resilience_engine": "toxiproxy"},
            {"RESILIENCE_ENGINE": "http://h:8474"},
            {},
            "http://h:8474",
        ),
        ({}, {"RESILIENCE_ENGINE": "toxiproxy"}, {"engine": "embedded"}, "embedded"),
        ({"resilience_engine": ""}, {"RESILIENCE_ENGINE": ""}, {"engine": None}, "embedded"),
    ],
)
def test_the_nearest_source_wins(
    ini: dict[str, Any], environment: dict[str, str], flags: dict[str, Any], engine: str
) -> None:
    assert choose_engine(ini, environment, flags).engine == engine


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("embedded", None),
        ("toxiproxy", None),
        ("http://localhost:8474", "http://localhost:8474"),
        ("http://[::1]:8474/", "http://[::1]:8474"),
        (" http://toxiproxy:8474 ", "http://toxiproxy:8474"),
    ],
)
def test_an_engine_may_have_a_url(text: str, url: str | None) -> None:
    assert choose(engine=text).url == url


@pytest.mark.parametrize(
    "text",
    [
        "toxyproxy",
        "https://h:8474",
        "http://h",
        "http://:8474",
        "http://h:84740",
        "http://h:8474/api",
        "http://h:8474?x=1",
        "http://[::1",
        "h:8474",
    ],
)
def test_what_is_no_engine(text: str) -> None:
    with pytest.raises(UsageError, match=r"--resilience-engine: .* cannot be used") as caught:
        choose(engine=text)
    assert caught.value.expected == '"embedded", "toxiproxy", or "http://host:port"'
    assert caught.value.advice == "correct --resilience-engine"


@pytest.mark.parametrize("text", ["a b", "h:80", "[::1]", "http://h", "u@h"])
@pytest.mark.parametrize("name", ["toxiproxy_listen", "toxiproxy_host", "upstream_host", "listen"])
def test_what_is_no_host(name: str, text: str) -> None:
    with pytest.raises(UsageError, match="cannot be used") as caught:
        choose(**{name: text})
    assert caught.value.expected == "a host name or an address, without a port"


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "db.internal", "host.docker.internal"])
def test_what_is_a_host(text: str) -> None:
    assert choose(link_host=text).link_host == text


def test_a_port_range() -> None:
    assert list(ports_of("8666-8668")) == [8666, 8667, 8668]
    assert list(ports_of("8666-8666")) == [8666]
    assert list(ports_of("")) == []
    assert choose(toxiproxy_ports="8666-8690").toxiproxy_ports == "8666-8690"


@pytest.mark.parametrize("text", ["8666", "8668-8666", "0-5", "1-65536", "a-b", "1-2-3", "-5"])
def test_what_is_no_port_range(text: str) -> None:
    with pytest.raises(UsageError, match="--resilience-toxiproxy-ports") as caught:
        choose(toxiproxy_ports=text)
    assert "8666-8690" in caught.value.expected


def test_a_bad_value_is_traced_to_its_source() -> None:
    with pytest.raises(UsageError, match=r"^ini option resilience_engine: 'x' cannot be used"):
        choose_engine({"resilience_engine": "x"}, {}, {})
    with pytest.raises(UsageError, match=r"^environment variable RESILIENCE_ENGINE: 'x'"):
        choose_engine({}, {"RESILIENCE_ENGINE": "x"}, {})
