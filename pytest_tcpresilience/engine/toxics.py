"""The catalogue of toxic types, and what a request may say of one.

Pure: no socket, no clock, no trio. Two kinds of toxic share Toxiproxy's API:

* *stream* toxics are Toxiproxy's own. They act on chunks of one direction, as
  :mod:`.shaping` says.
* *link* toxics are ours and lie below the byte stream. They act on connections, both
  directions at once; :mod:`.connection` carries them out. ``stream`` and ``toxicity``
  are accepted for them and have no effect.

Attributes keep Toxiproxy's units, which is milliseconds where nothing else is said. Two
that are ours are common to many types, and shown only where they are given: ``connection``
aims a toxic at one connection, ``after_bytes`` schedules a link toxic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pytest_tcpresilience.engine.errors import (
    ApiError,
    bad_body,
    invalid_stream,
    invalid_toxic_type,
)
from pytest_tcpresilience.engine.fields import fields

Stream = Literal["upstream", "downstream"]
STREAMS: tuple[Stream, ...] = ("upstream", "downstream")

_SCHEDULE = {"when_idle": 0, "after": 0}
# Which end of a connection is told; the first is the default.
SIDES = ("both", "client", "server")
DIRECTIONS = ("both", "to_server", "to_client")
# What loses one direction only.
_ONE_WAY = ("settle", "deafen", "mute")


@dataclass(frozen=True)
class ToxicType:
    """One row of the catalogue.

    :param attributes: the numbers it takes, with their defaults.
    :param choices: the words it takes, each with what it may be; the default comes first.
    :param below: whether it is a link toxic, below the byte stream.
    :param needs: recipes of :mod:`pytest_tcpresilience.kernel.capabilities` without
        which it cannot be produced.
    :param also_needs: the same for some of the words that it takes.
    :param once: whether it acts once, on the connections of that moment, and is spent.
    :param listener: whether it acts on those who connect, and not on connections.
    :param per_flow: whether it takes hold of each connection when that connection's own
        time has come, so that each of its hits is news by itself.
    :param summary: what it does.
    """

    attributes: Mapping[str, int]
    summary: str
    below: bool = False
    needs: tuple[str, ...] = ()
    once: bool = False
    listener: bool = False
    per_flow: bool = False
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    also_needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def scheduled(self) -> bool:
        """Whether it takes a schedule."""
        return "when_idle" in self.attributes


TYPES: dict[str, ToxicType] = {
    "latency": ToxicType(
        {"latency": 0, "jitter": 0}, "delay each chunk by latency ± jitter ms, in order"
    ),
    "timeout": ToxicType(
        {"timeout": 0}, "drop all data; close after timeout ms, or never if 0; close when removed"
    ),
    "reset_peer": ToxicType({"timeout": 0}, "after timeout ms, reset both sides"),
    "bandwidth": ToxicType(
        {"rate": 0}, "let rate KB (1000 bytes) through per second; with 0 no data passes"
    ),
    "slicer": ToxicType(
        {"average_size": 0, "size_variation": 0, "delay": 0},
        "cut data into pieces of average_size ± size_variation bytes, delay µs apart",
    ),
    "slow_close": ToxicType({"delay": 0}, "hold the end of the stream back for delay ms"),
    "limit_data": ToxicType(
        {"bytes": 0}, "let so many bytes through, counted from when it was added, then close"
    ),
    "silent_drop": ToxicType(
        _SCHEDULE,
        "no segment in either direction, or in one; new connections stay unanswered",
        below=True,
        needs=("settle", "silence_listener"),
        choices={"direction": DIRECTIONS},
        also_needs={
            "both": ("silence", "heal"),
            "to_server": _ONE_WAY,
            "to_client": _ONE_WAY,
        },
    ),
    "evict_reset": ToxicType(
        _SCHEDULE,
        "nothing leaves any more; the next segment of either side is answered with RST",
        below=True,
        needs=("settle", "evict"),
        once=True,
    ),
    "evict_drop": ToxicType(
        _SCHEDULE,
        "as silent_drop on the connections of that moment; new ones pass",
        below=True,
        needs=("settle", "silence", "heal"),
    ),
    "evict_drop_inbound": ToxicType(
        _SCHEDULE,
        "as evict_drop, but what the client sends still arrives; the answers vanish",
        below=True,
        needs=_ONE_WAY,
    ),
    "evict_reset_both": ToxicType(
        _SCHEDULE, "RST to both sides now", below=True, needs=("reset",), once=True
    ),
    "evict_fin": ToxicType(
        _SCHEDULE, "FIN to both sides now", below=True, needs=("finish",), once=True
    ),
    "refuse_connections": ToxicType(
        _SCHEDULE,
        "new connections are refused, and the port stays reserved; those that exist go on",
        below=True,
        listener=True,
    ),
    "ignore_connections": ToxicType(
        _SCHEDULE,
        "SYNs stay unanswered; connections that exist go on",
        below=True,
        needs=("silence_listener",),
        listener=True,
    ),
    "stall": ToxicType(_SCHEDULE, "both peers look alive and no byte moves", below=True),
    "time_out": ToxicType(
        {"timeout": 0, "when_idle": 0}, "stall, then FIN after timeout ms", below=True
    ),
    "stop_reading": ToxicType(
        _SCHEDULE,
        "the client, or the server, or both find the window closed once the buffers are full",
        below=True,
        choices={"side": ("client", "server", "both")},
    ),
    "lose_close": ToxicType(
        _SCHEDULE,
        "when the client closes, the server is not told and finds nobody any more",
        below=True,
        needs=("settle", "silence"),
        per_flow=True,
    ),
    "reset": ToxicType(
        _SCHEDULE,
        "RST now, to both sides or to one",
        below=True,
        needs=("reset",),
        once=True,
        choices={"side": SIDES},
    ),
    "hang_up": ToxicType(
        _SCHEDULE,
        "FIN now, to both sides or to one",
        below=True,
        needs=("finish",),
        once=True,
        choices={"side": SIDES},
    ),
}


_EVICTIONS = {
    name.removeprefix("evict_"): kind for name, kind in TYPES.items() if name.startswith("evict_")
}
TYPES["middlebox"] = ToxicType(
    {"idle_timeout": 350_000},
    "forgets each flow by itself that has carried no segment, or no byte, for idle_timeout ms, "
    "and then does to it what evict_… does",
    below=True,
    needs=("count",),
    per_flow=True,
    choices={
        "then": ("drop", *(mode for mode in _EVICTIONS if mode != "drop")),
        "counts": ("segments", "bytes"),
    },
    also_needs={mode: kind.needs for mode, kind in _EVICTIONS.items()},
)


@dataclass(frozen=True)
class Toxic:
    """A toxic as the API holds it. ``attributes`` and ``words`` are complete.

    :param connection: the number of the only connection that it acts on; 0 for all.
    :param after_bytes: act once so many bytes have crossed; 0 is "not given".
    """

    name: str
    type: str
    stream: Stream
    toxicity: float
    attributes: Mapping[str, int]
    words: Mapping[str, str] = field(default_factory=dict)
    connection: int = 0
    after_bytes: int = 0

    @property
    def kind(self) -> ToxicType:
        return TYPES[self.type]

    @property
    def needs(self) -> tuple[str, ...]:
        """The recipes without which it cannot be produced, its words considered."""
        kind = self.kind
        also = [kind.also_needs.get(word, ()) for word in self.words.values()]
        return tuple(dict.fromkeys((*kind.needs, *(need for needs in also for need in needs))))

    def aims_at(self, number: int) -> bool:
        """Whether it acts on the connection of this number."""
        return self.connection in (0, number)

    def document(self) -> dict[str, Any]:
        """As Toxiproxy writes it, in its order."""
        ours = {"connection": self.connection, "after_bytes": self.after_bytes}
        given = {name: value for name, value in ours.items() if value}
        return {
            "attributes": {**self.attributes, **self.words, **given},
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


def _whole(value: object, name: str) -> int:
    number = _number(value, f"attributes.{name}")
    if number < 0 or number != int(number):
        raise ApiError(f"attribute {name} must be a whole number of at least 0", 400)
    return int(number)


def _attributes(
    kind: ToxicType, given: Mapping[str, Any], base: Mapping[str, int]
) -> dict[str, int]:
    merged = dict(base)
    # Toxiproxy ignores attributes that it does not know; so do we.
    for name in kind.attributes.keys() & given.keys():
        merged[name] = _whole(given[name], name)
        if name == "idle_timeout" and not merged[name]:
            raise ApiError("attribute idle_timeout must be at least 1", 400)
    if merged.get("when_idle") and merged.get("after"):
        raise ApiError("a toxic is scheduled by when_idle or by after, not by both", 400)
    return merged


def _common(
    kind: ToxicType, given: Mapping[str, Any], attributes: Mapping[str, int]
) -> dict[str, int]:
    """``connection`` and ``after_bytes``, each for the types that take it."""
    takes = {"connection": not kind.listener, "after_bytes": kind.scheduled}
    common = {
        name: _whole(given[name], name) for name, taken in takes.items() if taken and name in given
    }
    if common.get("after_bytes") and (attributes.get("when_idle") or attributes.get("after")):
        raise ApiError("a toxic has one schedule: when_idle, after or after_bytes", 400)
    return common


def _words(kind: ToxicType, given: Mapping[str, Any], base: Mapping[str, str]) -> dict[str, str]:
    merged = dict(base)
    for name in kind.choices.keys() & given.keys():
        if given[name] not in kind.choices[name]:
            raise ApiError(f"attribute {name} must be one of {', '.join(kind.choices[name])}", 400)
        merged[name] = given[name]
    return merged


def _toxicity(body: Mapping[str, Any], default: float) -> float:
    value = _number(body.get("toxicity", default), "toxicity")
    return min(max(float(value), 0.0), 1.0)


def _stream(body: Mapping[str, Any]) -> Stream:
    given = body.get("stream", "downstream")
    for stream in STREAMS:
        if isinstance(given, str) and given.lower() == stream:
            return stream
    raise invalid_stream()


def create(body: Mapping[str, Any]) -> Toxic:
    """A toxic from a request body, with Toxiproxy's defaults.

    :raises ApiError: as Toxiproxy answers.
    """
    kind_name = body.get("type", "")
    if not isinstance(kind_name, str):
        raise bad_body("json: type must be a string")
    stream = _stream(body)
    if kind_name not in TYPES:
        raise invalid_toxic_type()
    kind = TYPES[kind_name]
    given = fields(body.get("attributes"), "attributes must be an object")
    name = body.get("name") or f"{kind_name}_{stream}"
    if not isinstance(name, str):
        raise bad_body("json: name must be a string")
    attributes = _attributes(kind, given, kind.attributes)
    return Toxic(
        name=name,
        type=kind_name,
        stream=stream,
        toxicity=_toxicity(body, 1.0),
        attributes=attributes,
        words=_words(
            kind,
            given,
            {word: choices[0] for word, choices in kind.choices.items()},
        ),
        **_common(kind, given, attributes),
    )


def update(toxic: Toxic, body: Mapping[str, Any]) -> Toxic:
    """The same toxic with new attributes or toxicity; nothing else can change.

    :raises ApiError: also for another ``connection``: bytes may be on their way through it.
    """
    given = fields(body.get("attributes"), "attributes must be an object")
    target = _common(toxic.kind, given, {}).get("connection", toxic.connection)
    if target != toxic.connection:
        raise ApiError("a toxic's connection cannot change: remove it, add another", 400)
    return replace(
        toxic,
        toxicity=_toxicity(body, toxic.toxicity),
        attributes=_attributes(toxic.kind, given, toxic.attributes),
        words=_words(toxic.kind, given, toxic.words),
    )
