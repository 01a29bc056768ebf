"""An upstream's address, and the times that a fault takes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pytest_tcpresilience import UsageError
from pytest_tcpresilience.fault import seconds
from pytest_tcpresilience.tcp.addresses import join_address
from pytest_tcpresilience.upstream import DEFAULT_PORTS, Upstream


@pytest.mark.parametrize(
    ("given", "host", "port"),
    [
        ("localhost:6379", "localhost", 6379),
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("[::1]:65535", "::1", 65535),
        (("localhost", 6379), "localhost", 6379),
        (("::1", 80), "::1", 80),
        (("fe80::1%lo", 80), "fe80::1%lo", 80),
        ("redis://localhost:6380/0", "localhost", 6380),
        ("redis://localhost/0", "localhost", 6379),
        ("https://user:pw@example.test/path?q=1#f", "example.test", 443),
        ("http://[::1]:8080/", "::1", 8080),
        ("unheard-of://localhost:9", "localhost", 9),
    ],
    ids=str,
)
def test_what_an_upstream_may_be(given: Any, host: str, port: int) -> None:
    upstream = Upstream.parse(given)
    assert (upstream.host, upstream.port) == (host, port)
    assert (upstream.parts is not None) is ("://" in given)


@pytest.mark.parametrize(("scheme", "port"), DEFAULT_PORTS.items())
def test_default_ports(scheme: str, port: int) -> None:
    assert Upstream.parse(f"{scheme}://localhost").port == port


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "no port"),
        ("localhost", "no port"),
        ("localhost:", "no port"),
        (":80", "None is no host name"),
        ("localhost:http", "Port could not be cast"),
        ("localhost:0", "0 is no port from 1 to 65535"),
        ("localhost:65536", "Port out of range"),
        ("localhost:-1", "Port could not be cast"),
        ("::1:80", "Port could not be cast"),
        ("[::1:80", "Invalid IPv6 URL"),
        ("[nonsense]:80", "nonsense"),
        ("localhost:80/path", "more than a host and a port"),
        ("user@localhost:80", "more than a host and a port"),
        ("local host:80", "is no host name or address"),
        ("redis://", "None is no host name"),
        ("redis://localhost:0/0", "0 is no port from 1 to 65535"),
        ("redis://localhost:99999", "Port out of range"),
        ("unheard-of://localhost", "no port, and none is known for unheard-of://"),
        (("localhost", "80"), "'80' is no port"),
        (("localhost", 0), "0 is no port"),
        (("localhost", 65536), "65536 is no port"),
        (("localhost", True), "True is no port"),
        (("localhost", 80.0), "80.0 is no port"),
        (("", 80), "'' is no host name"),
        ((None, 80), "None is no host name"),
        (("a/b", 80), "'a/b' is no host name"),
        (("[::1]", 80), r"\[::1\]"),
        (("localhost", 80, 0), "a tuple is no address"),
        (("localhost",), "a tuple is no address"),
        (80, "a int is no address"),
        (None, "a NoneType is no address"),
    ],
    ids=str,
)
def test_a_malformed_upstream(given: Any, reason: str) -> None:
    with pytest.raises(UsageError, match="malformed upstream") as caught:
        Upstream.parse(given)
    assert repr(given) in caught.value.summary
    assert caught.match(f"happened: .*{reason}")
    assert '"host:port"' in caught.value.expected


@pytest.mark.parametrize(("host", "address"), [("localhost", "localhost:80"), ("::1", "[::1]:80")])
def test_an_address_in_one_string(host: str, address: str) -> None:
    assert join_address(host, 80) == address
    assert Upstream(host, 80).address == address
    assert Upstream.parse(address) == Upstream(host, 80)


@pytest.mark.parametrize(
    ("value", "milliseconds"), [(None, 0), (0.001, 1), (0.25, 250), (2, 2000), (1.0006, 1001)]
)
def test_times_are_whole_milliseconds(value: float | None, milliseconds: int) -> None:
    assert seconds("after", value) == milliseconds


@pytest.mark.parametrize("value", [0, 0.0009, -1, math.nan, math.inf, True, "1"])
def test_what_is_no_time(value: Any) -> None:
    with pytest.raises(UsageError, match=r"when_idle=.* is no time") as caught:
        seconds("when_idle", value)
    assert caught.value.expected == "when_idle in seconds, at least 0.001"
    assert "leave when_idle out" in caught.value.advice
