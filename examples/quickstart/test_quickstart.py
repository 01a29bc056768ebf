"""What a urllib3 client does when its connection dies.

The client is a real one and so is the server. Only the link between them can be cut.
Each long poll waits for 30 s, so what ends it earlier is the fault.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from pytest_tcpresilience import ExpectationFailed, Keepalive, Link, detects_break

KEEPALIVE = Keepalive(idle=1, interval=1, probes=3)
# Where the number of probes is not the point, one of them saves two seconds.
QUICK = Keepalive(idle=1, interval=1, probes=1)
AT_ONCE = 0.5
LONG_POLL = "/wait?seconds=30"
# What urllib3 makes of the kernel's ETIMEDOUT. In Python that errno is a TimeoutError, as a
# socket's own timeout is, and urllib3 takes the one for the other, even with timeout=None.
# `detection.mechanism` tells them apart.
GAVE_UP = ReadTimeoutError


def http_client(link: Link, keepalive: Keepalive | None) -> HTTPConnectionPool:
    """A client that waits for ever, unless keepalive tells it that the server is gone."""
    options = [*HTTPConnection.default_socket_options]  # TCP_NODELAY
    if keepalive is not None:
        options += keepalive.socket_options()
    return HTTPConnectionPool(
        link.host, link.port, socket_options=options, retries=False, timeout=None
    )


@pytest.fixture
def client(link: Link) -> Iterator[HTTPConnectionPool]:
    with http_client(link, KEEPALIVE) as pool:
        yield pool


def connections(client: HTTPConnectionPool) -> int:
    """How many TCP connections the server has accepted."""
    return int(client.request("GET", "/connections").data)


def test_a_silent_drop_is_noticed_within_the_keepalive_window(
    link: Link, client: HTTPConnectionPool
) -> None:
    """The cable is pulled in the middle of a long poll."""
    with detects_break(link, within=KEEPALIVE, raises=GAVE_UP) as detection:
        link.silent_drop(after=0.2)
        client.request("GET", LONG_POLL)
    assert detection.mechanism == "keepalive"


def test_a_silent_drop_in_the_middle_of_idling(link: Link, client: HTTPConnectionPool) -> None:
    """The cable is pulled once nothing has crossed the link for 0.3 s."""
    with detects_break(link, within=KEEPALIVE, raises=GAVE_UP) as detection:
        link.silent_drop(when_idle=0.3)
        client.request("GET", LONG_POLL)
    assert detection.mechanism == "keepalive"


def test_without_keepalive_nobody_notices(link: Link) -> None:
    """The same client without keepalive would wait for ever; the message says why."""
    link.silent_drop(when_idle=0.3)
    with (
        http_client(link, keepalive=None) as client,
        pytest.raises(ExpectationFailed) as failure,
        detects_break(link, within=2),
    ):
        client.request("GET", LONG_POLL)
    print(failure.value)
    assert "SO_KEEPALIVE is off" in str(failure.value)


def test_a_reset_is_noticed_at_once(link: Link, client: HTTPConnectionPool) -> None:
    """The server crashes while the client is waiting for it."""
    with detects_break(link, within=AT_ONCE, raises=ProtocolError) as detection:
        link.reset(when_idle=0.3)
        client.request("GET", LONG_POLL)
    assert detection.mechanism == "reset"


def test_a_hang_up_is_noticed_at_once(link: Link, client: HTTPConnectionPool) -> None:
    """The server closes the connection while the client is waiting for it."""
    with detects_break(link, within=AT_ONCE, raises=ProtocolError) as detection:
        link.hang_up(when_idle=0.3)
        client.request("GET", LONG_POLL)
    assert detection.mechanism == "fin"


@pytest.mark.parametrize("fault", ["reset", "hang_up"])
def test_the_pool_replaces_a_dead_connection(
    link: Link, client: HTTPConnectionPool, fault: str
) -> None:
    """A pooled connection dies unused: the next request succeeds on a new one."""
    client.request("GET", "/hello")
    getattr(link, fault)()
    assert client.request("GET", "/hello").status == 200
    assert connections(client) == 2


def test_keepalive_does_not_notice_a_stalled_server(link: Link) -> None:
    """The server's process is frozen, and its kernel goes on answering the probes."""
    with http_client(link, QUICK) as client:
        client.request("GET", "/hello")
        link.stall()
        with (
            pytest.raises(ExpectationFailed, match="this was a stall"),
            detects_break(link, within=QUICK),
        ):
            client.request("GET", "/hello")


def test_a_read_timeout_notices_a_stalled_server(link: Link, client: HTTPConnectionPool) -> None:
    """What keepalive cannot see takes a timer of the client's own."""
    client.request("GET", "/hello")
    with detects_break(link, within=1.0, raises=ReadTimeoutError) as detection:
        link.stall()
        client.request("GET", "/hello", timeout=0.5)
    assert detection.mechanism == "own_timeout"


def test_a_proxy_that_times_out(link: Link, client: HTTPConnectionPool) -> None:
    """Nothing comes for a second, and then the proxy closes the connection."""
    client.request("GET", "/hello")
    with detects_break(link, within=1.0 + AT_ONCE, raises=ProtocolError) as detection:
        link.time_out(after=1.0)
        client.request("GET", "/hello")
    assert detection.mechanism == "fin"
    assert detection.after >= 1.0


def test_a_cable_that_is_plugged_in_again(link: Link, client: HTTPConnectionPool) -> None:
    """A drop shorter than the keepalive window costs nothing: the connection goes on."""
    with ThreadPoolExecutor() as background:
        answer = background.submit(client.request, "GET", "/wait?seconds=1")
        drop = link.silent_drop(when_idle=0.3)
        drop.wait_until_hit()
        time.sleep(1.0)  # the server answers meanwhile, into the silence
        assert not answer.done()
        drop.lift()
        assert answer.result().data == b"waited"
    assert connections(client) == 1
