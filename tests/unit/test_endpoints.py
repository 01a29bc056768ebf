"""Addresses as Toxiproxy writes them."""

from __future__ import annotations

import pytest

from pytest_tcpresilience.engine.endpoints import address_of, split_address
from pytest_tcpresilience.engine.errors import ApiError
from pytest_tcpresilience.tcp.addresses import join_address


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("localhost:80", "localhost", 80),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::1]:65535", "::1", 65535),
        (":8080", "", 8080),
    ],
)
def test_an_address(address: str, host: str, port: int) -> None:
    assert split_address(address, "listen") == (host, port)


@pytest.mark.parametrize("address", ["", "localhost", "localhost:", "localhost:http", "h:65536"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ApiError, match=f"listen '{address}': want host:port") as caught:
        split_address(address, "listen")
    assert caught.value.status == 400


@pytest.mark.parametrize("address", ["::1:80", "a:b:80"])
def test_too_many_colons(address: str) -> None:
    with pytest.raises(ApiError, match=f"upstream '{address}': too many colons, write"):
        split_address(address, "upstream")


@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_there_and_back(host: str) -> None:
    assert split_address(join_address(host, 80), "listen") == (host, 80)


def test_a_socket_name_without_flow_and_scope() -> None:
    assert address_of(("::1", 80, 0, 0)) == ("::1", 80)
