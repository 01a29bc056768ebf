"""Toxiproxy's toxics as methods of a link: what the engine is asked, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import pytest

from pytest_tcpresilience import Link, StreamToxic, UsageError
from pytest_tcpresilience.control import Engine
from pytest_tcpresilience.settings import Settings
from pytest_tcpresilience.upstream import Upstream


class RecordingEngine:
    """Stands in for the engine, and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.links: dict[str, tuple[str, int]] = {}
        self.alive = True
        self.death_is_reported = False

    def call(self, method: str, path: str, body: Any = None, **_: object) -> Any:
        if method == "GET":
            return []
        self.calls.append((method, path, body))
        return {"listen": "127.0.0.1:4711"} if path == "/proxies" else None

    @property
    def removals(self) -> list[str]:
        return [path for method, path, _ in self.calls if method == "DELETE"]


@pytest.fixture
def engine() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture
def link(engine: RecordingEngine) -> Link:
    return Link(cast(Engine, engine), "link-1", Upstream("localhost", 80), Settings(), "127.0.0.1")


Start = Callable[[Link], StreamToxic]


@pytest.mark.parametrize(
    ("start", "type_", "attributes"),
    [
        (lambda link: link.latency(latency_ms=5), "latency", {"latency": 5, "jitter": 0}),
        (lambda link: link.latency(5, jitter_ms=2.0), "latency", {"latency": 5, "jitter": 2}),
        (lambda link: link.bandwidth(rate_kb_s=0), "bandwidth", {"rate": 0}),
        (
            lambda link: link.slicer(average_size_bytes=9, size_variation_bytes=3, delay_us=7),
            "slicer",
            {"average_size": 9, "size_variation": 3, "delay": 7},
        ),
        (lambda link: link.slow_close(delay_ms=8), "slow_close", {"delay": 8}),
        (lambda link: link.limit_data(limit_bytes=4), "limit_data", {"bytes": 4}),
        (lambda link: link.timeout(timeout_ms=6), "timeout", {"timeout": 6}),
        (lambda link: link.reset_peer(timeout_ms=0), "reset_peer", {"timeout": 0}),
    ],
    ids=["latency", "jitter", "bandwidth", "slicer", "slow", "limit", "timeout", "reset"],
)
def test_what_the_engine_is_asked(
    link: Link, engine: RecordingEngine, start: Start, type_: str, attributes: dict[str, int]
) -> None:
    toxic = start(link)
    body = {
        "name": f"{type_}-1",
        "type": type_,
        "stream": "downstream",
        "toxicity": 1.0,
        "attributes": attributes,
    }
    assert engine.calls[-1] == ("POST", "/proxies/link-1/toxics", body)
    assert (toxic.name, toxic.active) == (type_, True)
    assert repr(toxic) == f"<StreamToxic {type_} on link-1>"


def test_direction_and_share_are_passed_on(link: Link, engine: RecordingEngine) -> None:
    link.latency(1, stream="upstream", toxicity=0.5)
    body = engine.calls[-1][2]
    assert (body["stream"], body["toxicity"]) == ("upstream", 0.5)


@pytest.mark.parametrize("value", [-1, 0.5, math.nan, math.inf, "1", None, True])
def test_what_is_no_whole_number(link: Link, engine: RecordingEngine, value: Any) -> None:
    with pytest.raises(UsageError, match=r"delay_us=.* is no whole number") as caught:
        link.slicer(1, delay_us=value)
    assert caught.value.expected == "delay_us as a whole number of at least 0"
    assert len(engine.calls) == 1, "the link's own, and no toxic"


@pytest.mark.parametrize("stream", ["sideways", "", None, ["upstream"]])
def test_what_is_no_direction(link: Link, stream: Any) -> None:
    with pytest.raises(UsageError, match=r"stream=.* is no direction") as caught:
        link.bandwidth(1, stream=stream)
    assert "add two toxics for both directions" in caught.value.advice


@pytest.mark.parametrize("toxicity", [-0.1, 1.1, math.nan, "1", None, True])
def test_what_is_no_share(link: Link, toxicity: Any) -> None:
    with pytest.raises(UsageError, match=r"toxicity=.* is no share") as caught:
        link.bandwidth(1, toxicity=toxicity)
    assert caught.value.expected == "the share of connections that it acts on, from 0 to 1"


def test_lifting_twice_does_nothing(link: Link, engine: RecordingEngine) -> None:
    with link.latency(5) as toxic:
        assert engine.removals == []
        toxic.lift()
        toxic.lift()
    assert engine.removals == ["/proxies/link-1/toxics/latency-1"]
    assert not toxic.active


def test_any_number_may_be_in_force_beside_faults(link: Link, engine: RecordingEngine) -> None:
    with link.latency(5), link.latency(6), link.stall():
        names = [body["name"] for _, path, body in engine.calls if path.endswith("/toxics")]
        assert names == ["latency-1", "latency-2", "stall-3"]
    assert len(engine.removals) == 3


@pytest.mark.parametrize("gone", ["link", "engine"])
def test_a_block_that_outlives_its_link_or_engine(
    link: Link, engine: RecordingEngine, gone: str
) -> None:
    with link.latency(5):
        if gone == "link":
            link.close()
        else:
            engine.alive = False
    assert "/proxies/link-1/toxics/latency-1" not in engine.removals


def test_a_link_that_has_ended(link: Link) -> None:
    toxic = link.latency(5)
    link.close()
    with pytest.raises(UsageError, match="link-1 has ended"):
        link.latency(5)
    with pytest.raises(UsageError, match="link-1 has ended"):
        toxic.lift()
