"""What a server says of its version, and which one will do."""

from __future__ import annotations

import pytest

from pytest_tcpresilience import UsageError
from pytest_tcpresilience.control.toxiproxy import NEWEST_KNOWN, check_version, read_version

URL = "http://127.0.0.1:8474"


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        (b'{"version": "2.12.0"}', "2.12.0"),
        (b'{"version": "git"}', "git"),
        (b'{"version":"2.12.0","engine":"pytest-tcpresilience 0.1.0"}', "2.12.0"),
        (b"2.1.4", "2.1.4"),
        (b"v2.1.4\n", "v2.1.4"),
    ],
)
def test_a_version_is_read(answer: bytes, version: str) -> None:
    assert read_version(answer) == version


@pytest.mark.parametrize("answer", [b"", b"<html>", b"{}", b'{"version": 2}', b"{", b"\xff", b"ok"])
def test_what_no_toxiproxy_says(answer: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        read_version(answer)


@pytest.mark.parametrize("version", ["2.0.0", "v2.1.4", "2.5.0", "2.12.0", "git"])
def test_a_known_version_will_do(version: str) -> None:
    assert check_version(version, URL) is None


@pytest.mark.parametrize("version", ["1.2.1", "0.9.0", "v1.9"])
def test_an_old_one_is_refused(version: str) -> None:
    with pytest.raises(UsageError, match=f"the Toxiproxy at {URL} is too old") as caught:
        check_version(version, URL)
    assert caught.value.happened == f"it is version {version}"
    assert "2.0" in caught.value.expected


@pytest.mark.parametrize("version", [f"{NEWEST_KNOWN[0]}.{NEWEST_KNOWN[1] + 1}.0", "3.0.0"])
def test_an_unknown_newer_one_is_warned_of(version: str) -> None:
    warning = check_version(version, URL)
    assert warning == f"the Toxiproxy at {URL} is version {version}; tested is up to 2.12"
