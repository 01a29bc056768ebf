"""Who is let in to the engine's API: no browser, no rebound name, nobody without the secret."""

from __future__ import annotations

from base64 import b64encode

import pytest

from pytest_tcpresilience.engine.http import refuse

SECRET = "s3cret"
HOST = {"host": "127.0.0.1:8474"}


def _basic(text: str) -> str:
    return "Basic " + b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8474",
        "127.0.0.1",
        "[::1]:8474",
        "[::1]",
        "localhost:8474",
        "LOCALHOST",
        "10.1.2.3:1",
    ],
)
def test_addresses_and_localhost_are_let_in(host: str) -> None:
    assert refuse({"host": host}, None) is None


@pytest.mark.parametrize(
    "host",
    ["", "example.test", "example.test:8474", "localhost.example.test", "127.0.0.1.example.test"],
)
def test_a_name_is_refused(host: str) -> None:
    """A page can have its own name resolve to loopback."""
    refusal = refuse({"host": host}, None)
    assert refusal is not None
    assert (refusal.message, refusal.status) == ("Host not allowed: use the engine's address", 403)


@pytest.mark.parametrize("host", ["[::1", "[nonsense]", "[", "]", "::1", "a b", "1.1.1.1:[", "é"])
def test_a_malformed_host_is_refused_and_breaks_nothing(host: str) -> None:
    refusal = refuse({"host": host}, None)
    assert refusal is not None
    assert refusal.status == 403


def test_no_host_is_refused() -> None:
    refusal = refuse({}, None)
    assert refusal is not None
    assert refusal.status == 403


def test_browsers_are_refused_with_toxiproxys_words() -> None:
    browser = {**HOST, "user-agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    refusal = refuse({**browser, "authorization": f"Bearer {SECRET}"}, SECRET)
    assert refusal is not None
    assert (refusal.message, refusal.status) == ("User agent not allowed", 403)
    assert refuse({**HOST, "user-agent": "toxiproxy-cli"}, None) is None


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(f"Bearer {SECRET}", id="bearer"),
        pytest.param(f"bearer  {SECRET} ", id="bearer-loosely"),
        pytest.param(_basic(f"anybody:{SECRET}"), id="basic"),
        pytest.param(_basic(f":{SECRET}").replace("Basic", "basic"), id="basic-no-user"),
    ],
)
def test_who_knows_the_secret_is_let_in(authorization: str) -> None:
    assert refuse({**HOST, "authorization": authorization}, SECRET) is None


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param("", id="none"),
        pytest.param("Bearer", id="bearer-empty"),
        pytest.param("Bearer wrong", id="bearer-wrong"),
        pytest.param(f"Bearer {SECRET}x", id="bearer-longer"),
        pytest.param(f"Digest {SECRET}", id="other-scheme"),
        pytest.param(SECRET, id="no-scheme"),
        pytest.param(_basic("user:wrong"), id="basic-wrong"),
        pytest.param(_basic(SECRET), id="basic-no-colon"),
        pytest.param(_basic(f"{SECRET}:"), id="basic-as-user"),
        pytest.param("Basic !!!", id="basic-no-base64"),
        pytest.param("Basic é", id="basic-no-ascii"),
        pytest.param("Basic /w==", id="basic-no-utf8"),
        pytest.param("Bearer é", id="bearer-no-ascii"),
    ],
)
def test_who_does_not_is_asked_for_it(authorization: str) -> None:
    refusal = refuse({**HOST, "authorization": authorization}, SECRET)
    assert refusal is not None
    assert refusal.status == 401
    assert "the session's secret is wanted" in refusal.message


def test_without_a_secret_nobody_is_asked() -> None:
    assert refuse(HOST, None) is None
    asked = refuse(HOST, SECRET)
    assert asked is not None
    assert asked.status == 401
