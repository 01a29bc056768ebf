"""Bytes through proxies, in Prometheus' text format with Toxiproxy's names.

Owns the counters and how they read. A counter belongs to a proxy and ends with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pytest_tcpresilience.engine.toxics import STREAMS, Stream

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def _zeros() -> dict[Stream, int]:
    return dict.fromkeys(STREAMS, 0)


@dataclass
class Traffic:
    """Bytes of all connections of a proxy so far, by direction.

    :param received: read from the sender. :param sent: written to the receiver.
    """

    received: dict[Stream, int] = field(default_factory=_zeros)
    sent: dict[Stream, int] = field(default_factory=_zeros)


@dataclass(frozen=True)
class Sample:
    """A proxy's traffic with what labels it."""

    proxy: str
    listener: str
    upstream: str
    traffic: Traffic


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _line(metric: str, sample: Sample, direction: Stream, count: int) -> str:
    labels = {
        "direction": direction,
        "listener": sample.listener,
        "proxy": sample.proxy,
        "upstream": sample.upstream,
    }
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{metric}{{{pairs}}} {count}"


def render(samples: Iterable[Sample]) -> bytes:
    """The whole page."""
    rows = list(samples)
    lines = []
    for metric, what in (("received", "read from the sender"), ("sent", "written to the receiver")):
        name = f"toxiproxy_proxy_{metric}_bytes_total"
        lines += [f"# HELP {name} Bytes {what}, by direction.", f"# TYPE {name} counter"]
        for row in rows:
            lines += [
                _line(name, row, each, getattr(row.traffic, metric)[each]) for each in STREAMS
            ]
    return "".join(f"{line}\n" for line in lines).encode()
