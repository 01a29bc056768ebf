"""What is kept of a connection: its ending, its faults, its probes, and counted bytes."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock, call

import pytest

from pytest_tcpresilience.engine import probes, record
from pytest_tcpresilience.engine.arming import Arming
from pytest_tcpresilience.engine.connection import Connection
from pytest_tcpresilience.engine.meters import Meters
from pytest_tcpresilience.engine.record import Ending, Record
from pytest_tcpresilience.engine.schedule import Schedule
from pytest_tcpresilience.engine.toxics import Toxic, create
from pytest_tcpresilience.kernel import counts
from pytest_tcpresilience.kernel.counts import Counts


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (errno.ECONNRESET, "reset"),
        (errno.EPIPE, "reset"),
        (errno.ETIMEDOUT, "timeout"),
        (errno.EHOSTUNREACH, "timeout"),
        (errno.ENETUNREACH, "timeout"),
    ],
)
def test_a_socket_that_broke(code: int, how: str) -> None:
    ending = record.by_peer("upstream", OSError(code, os.strerror(code)))
    assert ending.document() == {"by": "upstream", "how": how, "errno": errno.errorcode[code]}


def test_an_error_without_a_number_is_told_in_its_words() -> None:
    assert record.by_peer("client", OSError("odd")).code == "odd"


@pytest.mark.parametrize(
    ("reason", "by"),
    [
        ("silent_drop", "fault"),
        ("limit_data", "fault"),
        ("rescue", "engine"),
        ("proxy_ended", "engine"),
        ("internal_error", "engine"),
        ("upstream_failed", "upstream"),
    ],
)
def test_who_is_behind_a_reason(reason: str, by: str) -> None:
    ending = record.for_reason(reason, "reset")
    assert ending.document() == {"by": by, "how": "reset", "reason": reason}


def test_a_fin_needs_no_more_words() -> None:
    assert record.by_peer("client") == Ending("client", "fin")
    assert record.by_peer("client").document() == {"by": "client", "how": "fin"}


def test_a_record_shows_its_faults() -> None:
    kept = Record()
    kept.struck("stall-1", "stall", armed_at=1.0, hit_at=2.0)
    kept.lifted("another")
    (shown,) = kept.document()["faults"]
    assert shown == {
        "toxic": "stall-1",
        "type": "stall",
        "armed_at": 1.0,
        "hit_at": 2.0,
        "lifted_at": None,
    }
    kept.lifted("stall-1")
    assert kept.document()["faults"][0]["lifted_at"] > 2.0
    assert kept.document()["closed"] is None


# --- probes ------------------------------------------------------------------------------

QUIET = Counts(
    state=counts.TCP_ESTABLISHED, unacknowledged=0, acknowledged=5, received=7, segments_in=9
)


@pytest.mark.parametrize(
    ("before", "changes", "seen"),
    [
        pytest.param(QUIET, {}, 0, id="nothing"),
        pytest.param(QUIET, {"segments_in": 11}, 2, id="two"),
        pytest.param(None, {"segments_in": 11}, 0, id="the-first-look"),
        pytest.param(QUIET, {"segments_in": 11, "received": 8}, 0, id="data"),
        pytest.param(QUIET, {"segments_in": 11, "acknowledged": 6}, 0, id="an-acknowledgement"),
        pytest.param(
            QUIET._replace(unacknowledged=1), {"segments_in": 11}, 0, id="one-was-to-be-expected"
        ),
        pytest.param(QUIET, {"segments_in": 11, "state": 8}, 0, id="a-fin"),
    ],
)
def test_what_counts_as_a_probe(before: Counts | None, changes: dict[str, Any], seen: int) -> None:
    assert probes.between(before, QUIET._replace(**changes)) == seen


def test_the_layout_of_tcp_info() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted:
            before = counts.read(accepted)
            accepted.sendall(b"12345")
            assert client.recv(5) == b"12345"
            client.sendall(b"1234567")  # which acknowledges, too
            assert accepted.recv(7) == b"1234567"
            after = counts.read(accepted)
    assert before is not None
    assert after is not None
    assert (after.state, after.unacknowledged) == (counts.TCP_ESTABLISHED, 0)
    assert after.acknowledged - before.acknowledged == 5
    assert after.received - before.received == 7
    assert after.segments_in - before.segments_in in (1, 2)


def test_a_closed_socket_has_no_counts() -> None:
    sock = socket.socket()
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        counts.read(sock)


def test_a_platform_without_tcp_info(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_INFO")
    with socket.socket() as sock:
        assert counts.read(sock) is None


# --- counting ----------------------------------------------------------------------------


def stall(name: str, after_bytes: int, connection: int = 0) -> Toxic:
    attributes = {"after_bytes": after_bytes, "connection": connection}
    return create({"name": name, "type": "stall", "attributes": attributes})


def test_the_least_room_counts() -> None:
    meters = Meters()
    assert meters.room(1, 100) == 100
    wide = meters.start(stall("wide", 50), Schedule(after_bytes=50))
    narrow = meters.start(stall("narrow", 20, connection=2), Schedule(after_bytes=20))
    assert (meters.room(1, 100), meters.room(2, 100), meters.room(2, 5)) == (50, 20, 5)
    assert [list(meters.on(number)) for number in (1, 2)] == [[wide], [wide, narrow]]
    for meter in meters.on(2):
        meter.add(20)
    assert (meters.room(1, 100), meters.room(2, 100)) == (30, 0)
    assert (wide.full.is_set(), narrow.full.is_set()) == (False, True)
    meters.stop(narrow)
    meters.stop(narrow)  # a second time is nothing
    assert meters.room(2, 100) == 30


def test_with_the_last_byte_all_that_it_concerns_is_held() -> None:
    """In the same moment: no other task has run, and no pump has to ask in vain."""
    one, two, other = (SimpleNamespace(hold=Mock(), release=Mock()) for _ in range(3))
    proxy = Mock(connections={1: one, 2: two, 3: other})
    proxy.targets.return_value = [one, two]
    arming = Arming(proxy)
    meter = arming.meters.start(stall("t", 5), Schedule(after_bytes=5))
    arming.crossed(1, 4)
    assert not one.hold.called
    arming.joined(cast(Connection, SimpleNamespace(number=4, hold=other.hold)))
    assert not other.hold.called
    arming.crossed(2, 1)
    assert [each.hold.call_args for each in (one, two)] == [call(meter.token)] * 2
    arming.joined(cast(Connection, SimpleNamespace(number=4, hold=other.hold)))
    assert other.hold.call_args == call(meter.token)


def test_what_a_toxic_aims_at() -> None:
    everywhere = stall("t", 1)
    assert everywhere.aims_at(1)
    assert [replace(everywhere, connection=2).aims_at(each) for each in (1, 2)] == [False, True]
