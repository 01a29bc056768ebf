"""Unplug, plug in again: a big transfer in each direction arrives whole."""

from __future__ import annotations

import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_tcpresilience.link import Link
from tests.contract.conftest import Connector, LinkMaker
from tests.contract.peers import WAIT_S, RawServer

TOTAL = 400_000_000
# A block of random bytes, over and over. Its length has no factor in common with any buffer,
# so that a piece that is lost, doubled or moved cannot fall on its own likeness.
BLOCK = random.Random(148).randbytes(1_000_003)
TWICE = BLOCK + BLOCK
CUT_S = 0.3


class Transfer:
    """One direction. The last tenth waits for ``last``, so that it cannot end too soon."""

    def __init__(self, source: socket.socket, sink: socket.socket, last: threading.Event) -> None:
        self.received = 0
        self.reading = threading.Event()
        self.reading.set()
        self._source, self._sink, self._last = source, sink, last

    def send(self) -> None:
        self._source.settimeout(2 * WAIT_S)
        sent, view = 0, memoryview(BLOCK)
        while sent < TOTAL:
            if sent >= TOTAL * 9 // 10:
                assert self._last.wait(2 * WAIT_S)
            piece = view[: min(len(BLOCK), TOTAL - sent)]
            self._source.sendall(piece)
            sent += len(piece)

    def receive(self) -> None:
        self._sink.settimeout(2 * WAIT_S)
        buffer = bytearray(len(BLOCK))
        while self.received < TOTAL:
            assert self.reading.wait(2 * WAIT_S)
            count = self._sink.recv_into(buffer)
            begin = self.received % len(BLOCK)
            assert count > 0
            assert buffer[:count] == TWICE[begin : begin + count], f"after {self.received} bytes"
            self.received += count


def fill(link: Link, ways: list[Transfer]) -> None:
    """Nobody reads, until all buffers are full and the engine waits in the middle of a write."""
    for way in ways:
        way.reading.clear()
    before = None
    while (now := link.connections[0].last_byte_at) != before:
        before = now
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["silent_drop", "stall"])
def test_lifting_loses_no_byte_of_400_mb_in_either_direction(
    make_link: LinkMaker,
    connect: Connector,
    server4: RawServer,
    side_by_side: ThreadPoolExecutor,
    name: str,
) -> None:
    link = make_link(server4.address)
    pair = connect(link, server4)
    last = threading.Event()
    ways = [Transfer(*ends, last) for ends in (pair.ends, pair.ends[::-1])]
    running = [side_by_side.submit(job) for way in ways for job in (way.send, way.receive)]

    for quarter in (1, 2, 3):
        while min(way.received for way in ways) < TOTAL * quarter // 4:
            time.sleep(0.001)
            assert not any(each.done() for each in running), [each.exception() for each in running]
        if quarter == 2:
            fill(link, ways)
        fault = getattr(link, name)()
        assert len(fault.hits) == 1
        for way in ways:
            way.reading.set()
        before = [way.received for way in ways]
        time.sleep(CUT_S)
        # What was on its way into a receiver's buffers still comes; then nothing does.
        assert max(way.received - then for way, then in zip(ways, before, strict=True)) < TOTAL / 8
        fault.lift()
    last.set()
    for each in running:
        each.result()
    assert [way.received for way in ways] == [TOTAL] * 2
    (shown,) = link.connections
    assert (shown.bytes_to_server, shown.bytes_to_client) == (TOTAL + 4, TOTAL + 4)
    assert [each.lifted_at is not None for each in shown.faults] == [True] * 3
