"""Toxiproxy's toxics as methods of a link: what a bad network does to the byte stream.

Owns the methods, what they accept, and the handle that they return. They keep
Toxiproxy's names and units, and each parameter says its unit. What a toxic does is the
engine's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pytest_tcpresilience.errors import UsageError

if TYPE_CHECKING:
    from pytest_tcpresilience.link import Link

Stream = Literal["upstream", "downstream"]
STREAMS = ("upstream", "downstream")


def _whole(name: str, value: object) -> int:
    """:raises UsageError: for what is no whole number of at least 0."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        number = int(value)
        if number == value and number >= 0:
            return number
    raise UsageError(
        f"{name}={value!r} is no whole number",
        expected=f"{name} as a whole number of at least 0",
        happened=f"got {value!r}",
        advice="toxics have Toxiproxy's units, and the name of the parameter ends with it",
    )


def _check(stream: object, toxicity: object) -> None:
    if stream not in STREAMS:
        raise UsageError(
            f"stream={stream!r} is no direction",
            expected='"downstream", from the upstream to the client, or "upstream"',
            happened=f"got {stream!r}",
            advice="add two toxics for both directions",
        )
    number = isinstance(toxicity, (int, float)) and not isinstance(toxicity, bool)
    if not number or not 0 <= toxicity <= 1:  # type: ignore[operator]
        raise UsageError(
            f"toxicity={toxicity!r} is no share",
            expected="the share of connections that it acts on, from 0 to 1",
            happened=f"got {toxicity!r}",
            advice="leave toxicity out for all connections",
        )


class StreamToxic:
    """A toxic on a link's byte stream. It is in force as soon as it exists.

    As a context manager it is lifted at the end of the block.
    """

    def __init__(self, link: Link, type_: str, name: str) -> None:
        self._link = link
        self._type = type_
        self._toxic = name
        self._lifted = False

    @property
    def name(self) -> str:
        """As Toxiproxy calls it: ``"latency"`` and so on."""
        return self._type

    @property
    def active(self) -> bool:
        """Whether it has not been lifted."""
        return not self._lifted

    def lift(self) -> None:
        """Remove it. What it held back passes at once; what it dropped is lost.

        ``timeout`` has dropped data, so lifting it closes the connections. Lifting twice
        does nothing.
        """
        if not self._lifted:
            self._lifted = True
            self._link.call("DELETE", f"/toxics/{self._toxic}")

    def __enter__(self) -> StreamToxic:
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._link.ended and self._link.engine_alive:
            self.lift()

    def __repr__(self) -> str:
        return f"<StreamToxic {self.name} on {self._link.name}>"


class StreamToxics:
    """The methods; a link is one.

    All take ``stream``, the direction (``"downstream"`` is from the upstream to the
    client), and ``toxicity``, the share of connections that are hit, drawn once for each.
    """

    def add_toxic(self, type_: str, body: Mapping[str, object]) -> StreamToxic:
        """Have the engine make it."""
        raise NotImplementedError

    def latency(
        self,
        latency_ms: int,
        jitter_ms: int = 0,
        *,
        stream: Stream = "downstream",
        toxicity: float = 1.0,
    ) -> StreamToxic:
        """Delay the data by ``latency_ms`` ± ``jitter_ms``, in order."""
        attributes = {
            "latency": _whole("latency_ms", latency_ms),
            "jitter": _whole("jitter_ms", jitter_ms),
        }
        return self._shape("latency", attributes, stream, toxicity)

    def bandwidth(
        self, rate_kb_s: int, *, stream: Stream = "downstream", toxicity: float = 1.0
    ) -> StreamToxic:
        """Let ``rate_kb_s`` · 1000 bytes through per second. With 0 no data passes, and
        the sender feels it."""
        attributes = {"rate": _whole("rate_kb_s", rate_kb_s)}
        return self._shape("bandwidth", attributes, stream, toxicity)

    def slicer(
        self,
        average_size_bytes: int,
        size_variation_bytes: int = 0,
        delay_us: int = 0,
        *,
        stream: Stream = "downstream",
        toxicity: float = 1.0,
    ) -> StreamToxic:
        """Cut the data into pieces of about this size, ``delay_us`` microseconds apart."""
        attributes = {
            "average_size": _whole("average_size_bytes", average_size_bytes),
            "size_variation": _whole("size_variation_bytes", size_variation_bytes),
            "delay": _whole("delay_us", delay_us),
        }
        return self._shape("slicer", attributes, stream, toxicity)

    def slow_close(
        self, delay_ms: int, *, stream: Stream = "downstream", toxicity: float = 1.0
    ) -> StreamToxic:
        """Hold the end of the stream back for ``delay_ms``."""
        attributes = {"delay": _whole("delay_ms", delay_ms)}
        return self._shape("slow_close", attributes, stream, toxicity)

    def limit_data(
        self, limit_bytes: int, *, stream: Stream = "downstream", toxicity: float = 1.0
    ) -> StreamToxic:
        """Let exactly ``limit_bytes`` through on each connection from now on, then close."""
        attributes = {"bytes": _whole("limit_bytes", limit_bytes)}
        return self._shape("limit_data", attributes, stream, toxicity)

    def timeout(
        self, timeout_ms: int, *, stream: Stream = "downstream", toxicity: float = 1.0
    ) -> StreamToxic:
        """Drop all data, and close after ``timeout_ms``; with 0 when it is lifted."""
        attributes = {"timeout": _whole("timeout_ms", timeout_ms)}
        return self._shape("timeout", attributes, stream, toxicity)

    def reset_peer(
        self, timeout_ms: int, *, stream: Stream = "downstream", toxicity: float = 1.0
    ) -> StreamToxic:
        """RST to both sides ``timeout_ms`` after this, or after a connection's beginning."""
        attributes = {"timeout": _whole("timeout_ms", timeout_ms)}
        return self._shape("reset_peer", attributes, stream, toxicity)

    def _shape(
        self, type_: str, attributes: Mapping[str, int], stream: Stream, toxicity: float
    ) -> StreamToxic:
        _check(stream, toxicity)
        body = {"stream": stream, "toxicity": toxicity, "attributes": attributes}
        return self.add_toxic(type_, body)
