"""The catalogue of toxic types, and what each does to a chunk of bytes.

Pure: no socket, no clock, no trio. Two kinds of toxic share Toxiproxy's API:

* *stream* toxics are Toxiproxy's own. They act on chunks of one direction, and
  :func:`decide` says what becomes of the next chunk.
* *link* toxics are ours and lie below the byte stream. They act on connections, both
  directions at once; :mod:`.connection` carries them out. ``stream`` and ``toxicity``
  are accepted for them and have no effect.

How several stream toxics combine: one that closes comes first, then one that drops,
then one that holds, and delays add up.

Attributes keep Toxiproxy's units, which is milliseconds where nothing else is said.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pytest_tcpresilience.engine.errors import (
    ApiError,
    bad_body,
    invalid_stream,
    invalid_toxic_type,
)

Stream = Literal["upstream", "downstream"]
STREAMS: tuple[Stream, ...] = ("upstream", "downstream")

_SCHEDULE = {"when_idle": 0, "after": 0}


@dataclass(frozen=True)
class ToxicType:
    """One row of the catalogue.

    :param attributes: the attributes it takes, with their defaults.
    :param below: whether it is a link toxic, below the byte stream.
    :param needs: recipes of :mod:`pytest_tcpresilience.kernel.capabilities` without
        which it cannot be produced.
    :param once: whether it acts once, on the connections of that moment, and is spent.
    :param summary: what it does.
    """

    attributes: Mapping[str, int]
    summary: str
    below: bool = False
    needs: tuple[str, ...] = ()
    once: bool = False


TYPES: dict[str, ToxicType] = {
    "latency": ToxicType(
        {"latency": 0, "jitter": 0}, "delay each chunk by latency ± jitter ms, in order"
    ),
    "timeout": ToxicType(
        {"timeout": 0}, "drop all data; close after timeout ms, or never if 0; close when removed"
    ),
    "reset_peer": ToxicType({"timeout": 0}, "after timeout ms, reset both sides"),
    "silent_drop": ToxicType(
        _SCHEDULE,
        "no segment in either direction, on either side; new connections stay unanswered",
        below=True,
        needs=("settle", "silence", "heal", "silence_listener"),
    ),
    "stall": ToxicType(_SCHEDULE, "both peers look alive and no byte moves", below=True),
    "time_out": ToxicType(
        {"timeout": 0, "when_idle": 0}, "stall, then FIN after timeout ms", below=True
    ),
    "reset": ToxicType(_SCHEDULE, "RST to both sides now", below=True, needs=("reset",), once=True),
    "hang_up": ToxicType(
        _SCHEDULE, "FIN to both sides now", below=True, needs=("finish",), once=True
    ),
}


@dataclass(frozen=True)
class Toxic:
    """A toxic as the API holds it. ``attributes`` are complete."""

    name: str
    type: str
    stream: Stream
    toxicity: float
    attributes: Mapping[str, int]

    @property
    def kind(self) -> ToxicType:
        return TYPES[self.type]

    def document(self) -> dict[str, Any]:
        """As Toxiproxy writes it, in its order."""
        return {
            "attributes": dict(self.attributes),
            "name": self.name,
            "type": self.type,
            "stream": self.stream,
            "toxicity": 1 if self.toxicity == 1 else self.toxicity,
        }


def _number(value: object, where: str) -> float:
    # Python's json lets NaN and Infinity through, which this comparison refuses too.
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    raise bad_body(f"json: cannot unmarshal into field {where}: a number is wanted")


def _attributes(kind: ToxicType, given: object, base: Mapping[str, int]) -> dict[str, int]:
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise bad_body("json: attributes must be an object")
    merged = dict(base)
    # Toxiproxy ignores attributes that it does not know; so do we.
    for name in kind.attributes.keys() & given.keys():
        value = _number(given[name], f"attributes.{name}")
        if value < 0 or value != int(value):
            raise ApiError(f"attribute {name} must be a whole number of at least 0", 400)
        merged[name] = int(value)
    if merged.get("when_idle") and merged.get("after"):
        raise ApiError("a toxic is scheduled by when_idle or by after, not by both", 400)
    return merged


def _toxicity(body: Mapping[str, Any], default: float) -> float:
    value = _number(body.get("toxicity", default), "toxicity")
    return min(max(float(value), 0.0), 1.0)


def create(body: Mapping[str, Any]) -> Toxic:
    """A toxic from a request body, with Toxiproxy's defaults.

    :raises ApiError: as Toxiproxy answers.
    """
    kind_name = body.get("type", "")
    stream = body.get("stream") or "downstream"
    if stream not in STREAMS:
        raise invalid_stream()
    if not isinstance(kind_name, str) or kind_name not in TYPES:
        raise invalid_toxic_type()
    kind = TYPES[kind_name]
    name = body.get("name") or f"{kind_name}_{stream}"
    if not isinstance(name, str):
        raise bad_body("json: name must be a string")
    return Toxic(
        name=name,
        type=kind_name,
        stream=stream,
        toxicity=_toxicity(body, 1.0),
        attributes=_attributes(kind, body.get("attributes"), kind.attributes),
    )


def update(toxic: Toxic, body: Mapping[str, Any]) -> Toxic:
    """The same toxic with new attributes or toxicity; nothing else can change."""
    return Toxic(
        name=toxic.name,
        type=toxic.type,
        stream=toxic.stream,
        toxicity=_toxicity(body, toxic.toxicity),
        attributes=_attributes(toxic.kind, body.get("attributes"), toxic.attributes),
    )


# --- what becomes of a chunk -------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """Bytes with the moment they arrived; no bytes mean the end of the stream.

    :param luck: uniform in [-1, 1], drawn once, so that jitter does not change while
        the chunk waits.
    """

    data: bytes
    at: float
    luck: float = 0.0


@dataclass(frozen=True)
class Forward:
    """Send it now."""


@dataclass(frozen=True)
class Drop:
    """Forget it."""


@dataclass(frozen=True)
class Wait:
    """Look again at ``until``, or when the toxics change."""

    until: float


Verdict = Forward | Drop | Wait


def stamp(data: bytes, now: float, source: random.Random) -> Chunk:
    return Chunk(data, now, source.uniform(-1.0, 1.0))


def delay_s(toxics: Iterable[Toxic], luck: float) -> float:
    """The sum of all latency toxics for a chunk, never negative, in seconds."""
    total = 0.0
    for toxic in toxics:
        if toxic.type == "latency":
            milliseconds = toxic.attributes["latency"] + luck * toxic.attributes["jitter"]
            total += max(milliseconds, 0.0) / 1000
    return total


def decide(toxics: Iterable[Toxic], chunk: Chunk, now: float) -> Verdict:
    """What becomes of the chunk at the head of a direction's queue.

    :param toxics: the stream toxics that act on this connection and direction.
    """
    active = tuple(toxics)
    kinds = {toxic.type for toxic in active}
    if "timeout" in kinds and chunk.data:
        return Drop()
    if kinds & {"timeout", "reset_peer"}:
        return Wait(float("inf"))
    due = chunk.at + delay_s(active, chunk.luck)
    return Forward() if due <= now else Wait(due)
