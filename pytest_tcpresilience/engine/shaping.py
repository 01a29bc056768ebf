"""What becomes of the bytes of one direction under stream toxics.

Pure: no socket, no clock, no trio. :func:`decide` says what becomes of the chunk at the
head of a direction's queue. What must last longer than a chunk is in a :class:`Flow`,
which goes in and comes out. The catalogue of toxics is :mod:`.toxics`.

Stream toxics combine in this order, whatever the order in which they were added:

1. ``timeout`` drops the data, and holds the end of the stream.
2. ``reset_peer`` holds both until it resets.
3. ``latency``: a chunk is due so long after it came. Several add up. Because it counts
   from the coming, it does not limit the throughput.
4. ``slicer`` cuts what is due into pieces, with a pause between two. The smallest piece
   and the longest pause count.
5. ``bandwidth``: a piece passes once its time in the pipe is over, and enters the pipe
   when the one before has left it. The lowest rate counts, and 0 holds all data.
6. ``limit_data`` counts what passes, shortens the piece that would be too long, and
   closes. The limit that is reached first counts.
7. ``slow_close`` holds the end of the stream, from when all data has passed. Several
   add up.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from pytest_tcpresilience.engine.toxics import Toxic

# Toxiproxy's: a slow pipe delivers ten times a second, and not once for each chunk.
PIECE_S = 0.100
# By so much a pipe that was looked at too late makes up for it. More than a piece's
# time, so that a piece that could have gone can go.
CATCH_UP_S = 2 * PIECE_S
# What a toxic may hold back before the sender feels it. A delay of 1 s at 100 MB/s fills
# more than this; the sender is then slowed, as by a full pipe.
MOST_HELD_BYTES = 16 * 1024 * 1024
# Where a toxic makes the pipe narrow: as much as a kernel's buffer, so that a sender
# feels the rate and not the engine's patience.
LEAST_HELD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Chunk:
    """Bytes with the moment they arrived; no bytes mean the end of the stream.

    :param luck: uniform in [-1, 1], drawn once, so that jitter does not change while
        the chunk waits.
    :param cut: likewise, drawn for each piece that a slicer takes from the chunk.
    :param taken: bytes at the front that have been forwarded already.
    """

    data: bytes
    at: float
    luck: float = 0.0
    cut: float = 0.0
    taken: int = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.taken

    def piece(self, count: int) -> memoryview:
        """The next ``count`` bytes."""
        return memoryview(self.data)[self.taken : self.taken + count]


@dataclass(frozen=True)
class Flow:
    """What one direction of a connection remembers from piece to piece.

    :param passed_at: when the piece before was through.
    :param passed: bytes that have passed under each ``limit_data``, by its name.
    """

    passed_at: float = -math.inf
    passed: Mapping[str, int] = field(default_factory=dict)

    def without(self, name: str) -> Flow:
        """A toxic was removed; one of the same name that comes later starts from 0."""
        return replace(self, passed={k: v for k, v in self.passed.items() if k != name})


@dataclass(frozen=True)
class Forward:
    """Send the next ``count`` bytes now, or the end of the stream if there are none.

    :param flow: takes the place of the one that was given.
    :param close: close the connection after that.
    """

    count: int
    flow: Flow
    close: bool = False


@dataclass(frozen=True)
class Drop:
    """Forget it."""


@dataclass(frozen=True)
class Close:
    """Close the connection; nothing more may pass."""


@dataclass(frozen=True)
class Wait:
    """Look again at ``until``, or when the toxics change."""

    until: float


Verdict = Forward | Drop | Close | Wait


def stamp(data: bytes, now: float, source: random.Random) -> Chunk:
    return Chunk(data, now, source.uniform(-1.0, 1.0), source.uniform(-1.0, 1.0))


def advance(chunk: Chunk, count: int, source: random.Random) -> Chunk:
    """The chunk without its next ``count`` bytes."""
    return replace(chunk, taken=chunk.taken + count, cut=source.uniform(-1.0, 1.0))


def _each(toxics: Iterable[Toxic], kind: str, attribute: str) -> list[int]:
    return [toxic.attributes[attribute] for toxic in toxics if toxic.type == kind]


def delay_s(toxics: Iterable[Toxic], luck: float) -> float:
    """The sum of all latency toxics for a chunk, never negative, in seconds."""
    total = 0.0
    for toxic in toxics:
        if toxic.type == "latency":
            milliseconds = toxic.attributes["latency"] + luck * toxic.attributes["jitter"]
            total += max(milliseconds, 0.0) / 1000
    return total


def most_held(toxics: Iterable[Toxic]) -> int:
    """Bytes that may wait in a direction's queue before its sender is held up.

    Behind a narrow pipe that is what is in flight through its latency, and a little
    more; else a toxic that lets nothing through would swallow megabytes first.
    """
    active = tuple(toxics)
    rates = [rate * 1000.0 for rate in _each(active, "bandwidth", "rate")]
    for toxic in active:
        if toxic.type == "slicer" and toxic.attributes["average_size"]:
            pause_s = toxic.attributes["delay"] / 1e6
            rates += [toxic.attributes["average_size"] / pause_s] if pause_s else []
    if not rates:
        return MOST_HELD_BYTES
    return int(min(LEAST_HELD_BYTES + min(rates) * delay_s(active, 1.0), MOST_HELD_BYTES))


def _slice(toxic: Toxic, cut: float) -> float:
    average = toxic.attributes["average_size"]
    if not average:
        return math.inf
    return max(1, round(average + cut * toxic.attributes["size_variation"]))


def decide(toxics: Iterable[Toxic], chunk: Chunk, flow: Flow, now: float) -> Verdict:
    """What becomes of the chunk at the head of a direction's queue.

    :param toxics: the stream toxics that act on this connection and direction.
    """
    active = tuple(toxics)
    kinds = {toxic.type for toxic in active}
    if "timeout" in kinds and chunk.data:
        return Drop()
    if kinds & {"timeout", "reset_peer"}:
        return Wait(math.inf)
    due = chunk.at + delay_s(active, chunk.luck)
    if chunk.data:
        return _decide_data(active, chunk, flow, now, due)
    closes = max(due, flow.passed_at) + sum(_each(active, "slow_close", "delay")) / 1000
    return Forward(0, flow) if closes <= now else Wait(closes)


def _decide_data(
    active: tuple[Toxic, ...], chunk: Chunk, flow: Flow, now: float, due: float
) -> Verdict:
    rate = min(_each(active, "bandwidth", "rate"), default=None)
    if rate == 0:
        return Wait(math.inf)
    limits = {
        toxic.name: toxic.attributes["bytes"] - flow.passed.get(toxic.name, 0)
        for toxic in active
        if toxic.type == "limit_data"
    }
    room = min(limits.values(), default=math.inf)
    if room <= 0:
        return Close() if due <= now else Wait(due)
    slices = [_slice(toxic, chunk.cut) for toxic in active if toxic.type == "slicer"]
    count = int(min(chunk.left, room, rate * 1000 * PIECE_S if rate else math.inf, *slices))
    leaves = max(due, flow.passed_at + max(_each(active, "slicer", "delay"), default=0) / 1e6)
    if rate:
        leaves = max(leaves, now - CATCH_UP_S) + count / (rate * 1000)
    if leaves > now:
        return Wait(leaves)
    passed = {name: flow.passed.get(name, 0) + count for name in limits}
    # A pipe is free when its piece has left it, a pause begins when the piece goes.
    return Forward(count, Flow(leaves if rate else now, passed), close=count >= room)
