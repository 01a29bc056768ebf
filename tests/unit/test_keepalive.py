"""Keepalive: its limits, and the way to and from a socket."""

from __future__ import annotations

import math
import pickle
import socket
from typing import Any

import pytest

from pytest_tcpresilience import Keepalive, UsageError
from pytest_tcpresilience.tcp import keepalive as keepalive_module


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("idle", 0),
        ("idle", -1),
        ("idle", 32768),
        ("idle", True),
        ("idle", "7"),
        ("interval", 0),
        ("interval", 32768),
        ("interval", None),
        ("probes", 0),
        ("probes", 128),
    ],
)
def test_a_number_out_of_range_is_refused(name: str, value: object) -> None:
    numbers: dict[str, Any] = {"idle": 1, "interval": 1, "probes": 1, name: value}
    with pytest.raises(UsageError, match=f"Keepalive: {name}={value!r} cannot be set") as caught:
        Keepalive(**numbers)
    assert "a value outside that range" in str(caught.value)


@pytest.mark.parametrize("name", ["idle", "interval", "probes"])
def test_a_fraction_is_refused_with_the_trap_behind_it(name: str) -> None:
    """Clients round half a second to 0, which the kernel takes as an error."""
    numbers: dict[str, Any] = {"idle": 1, "interval": 1, "probes": 1, name: 1.5}
    with pytest.raises(UsageError, match=f"{name}=1.5 cannot be set") as caught:
        Keepalive(**numbers)
    assert "less than one second usually end with 0" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "limit", "unit"),
    [("idle", 32767, "seconds"), ("interval", 32767, "seconds"), ("probes", 127, "probes")],
)
def test_the_refusal_names_the_range(name: str, limit: int, unit: str) -> None:
    numbers: dict[str, Any] = {"idle": 1, "interval": 1, "probes": 1, name: limit + 1}
    with pytest.raises(UsageError, match=f"whole number of {unit} from 1 to {limit}"):
        Keepalive(**numbers)


def test_the_limits_are_the_kernels() -> None:
    largest = Keepalive(idle=32767, interval=32767, probes=127)
    with socket.socket() as sock:
        largest.apply(sock)
        assert Keepalive.from_socket(sock) == largest
        with pytest.raises(OSError, match="Invalid argument"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 32768)


@pytest.mark.parametrize(
    "value", [-1, -0.001, 0.0009, math.nan, math.inf, True, "5", None, 2**31 / 1000]
)
def test_a_bad_user_timeout_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"user_timeout=.* cannot be set") as caught:
        Keepalive(1, 1, 1, user_timeout=value)
    assert "whole milliseconds" in str(caught.value)


@pytest.mark.parametrize(("value", "milliseconds"), [(0, 0), (0.001, 1), (1.5, 1500), (5, 5000)])
def test_a_user_timeout_is_kept_in_milliseconds(value: float, milliseconds: int) -> None:
    assert Keepalive(1, 1, 1, user_timeout=value).user_timeout_ms == milliseconds


@pytest.mark.parametrize(
    "keepalive",
    [
        pytest.param(Keepalive(7, 8, 9), id="no-user-timeout"),
        pytest.param(Keepalive(7, 8, 9, user_timeout=12.345), id="user-timeout"),
        pytest.param(Keepalive(7, 8, 9, enabled=False), id="off"),
    ],
)
def test_what_is_applied_is_what_is_read(keepalive: Keepalive) -> None:
    with socket.socket() as sock:
        keepalive.apply(sock)
        assert Keepalive.from_socket(sock) == keepalive


def test_a_new_socket_has_linux_defaults() -> None:
    with socket.socket() as sock:
        assert Keepalive.from_socket(sock) == Keepalive.linux_defaults(enabled=False)
    assert Keepalive.linux_defaults() == Keepalive(7200, 75, 9, enabled=True)


def test_the_options_are_the_triples_that_http_clients_take() -> None:
    assert Keepalive(7, 8, 9).socket_options() == [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 7),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 8),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 9),
    ]
    with_timeout = Keepalive(7, 8, 9, user_timeout=1.5, enabled=False).socket_options()
    assert with_timeout[0] == (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
    assert with_timeout[-1] == (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1500)


def _closed() -> socket.socket:
    sock = socket.socket()
    sock.close()
    return sock


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        pytest.param(_closed, "OSError: .*Bad file descriptor", id="closed"),
        pytest.param(lambda: "socket", "AttributeError", id="no-socket"),
    ],
)
def test_a_socket_that_cannot_be_read(make: Any, cause: str) -> None:
    given = make()
    name = type(given).__name__
    with pytest.raises(UsageError, match=f"from_socket: cannot read {name}") as caught:
        Keepalive.from_socket(given)
    assert caught.match(cause)


def test_a_udp_socket_has_no_keepalive() -> None:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sock,
        pytest.raises(UsageError, match="an open TCP socket"),
    ):
        Keepalive.from_socket(sock)


@pytest.mark.parametrize(
    ("keepalive", "text"),
    [
        (Keepalive(7, 8, 9), "keepalive 7/8/9"),
        (Keepalive(7, 8, 9, user_timeout=1.5), "keepalive 7/8/9, user timeout 1.5 s"),
        (Keepalive(7, 8, 9, enabled=False), "keepalive off"),
    ],
)
def test_how_it_reads(keepalive: Keepalive, text: str) -> None:
    assert str(keepalive) == text


def test_it_is_a_value() -> None:
    keepalive = Keepalive(7, 8, 9, user_timeout=1.5)
    assert pickle.loads(pickle.dumps(keepalive)) == keepalive
    assert len({keepalive, Keepalive(7, 8, 9, user_timeout=1.5)}) == 1


def test_a_platform_without_a_user_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive_module, "TCP_USER_TIMEOUT", None)
    with pytest.raises(UsageError, match="this platform has no TCP_USER_TIMEOUT"):
        Keepalive(1, 1, 1, user_timeout=1.0).socket_options()
    with socket.socket() as sock:
        Keepalive(1, 1, 1).apply(sock)
        assert Keepalive.from_socket(sock) == Keepalive(1, 1, 1)
