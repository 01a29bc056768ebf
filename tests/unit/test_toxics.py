"""The catalogue of toxics, and which ones the API takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_tcpresilience.engine import errors
from pytest_tcpresilience.engine.errors import ApiError
from pytest_tcpresilience.engine.toxics import TYPES, Toxic, create, update


@pytest.mark.parametrize("kind", TYPES)
def test_the_least_that_makes_a_toxic(kind: str) -> None:
    toxic = create({"type": kind})
    words = {word: choices[0] for word, choices in TYPES[kind].choices.items()}
    assert toxic == Toxic(
        f"{kind}_downstream", kind, "downstream", 1.0, TYPES[kind].attributes, words
    )
    assert toxic.kind is TYPES[kind]
    assert set(toxic.attributes.values()) == ({350_000} if kind == "middlebox" else {0})


def test_what_a_toxic_needs_depends_on_its_words() -> None:
    def needs(kind: str, **words: str) -> set[str]:
        return set(create({"type": kind, "attributes": words}).needs)

    both = needs("silent_drop")
    assert both == {"settle", "silence_listener", "silence", "heal"}
    for direction in ("to_server", "to_client"):
        one_way = needs("silent_drop", direction=direction)
        assert one_way == {"settle", "silence_listener", "deafen", "mute"}
    for then in TYPES["middlebox"].choices["then"]:
        assert needs("middlebox", then=then) == {"count", *TYPES[f"evict_{then}"].needs}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"idle_timeout": 0}, "attribute idle_timeout must be at least 1"),
        (
            {"then": "rst"},
            "attribute then must be one of drop, reset, drop_inbound, reset_both, fin",
        ),
    ],
)
def test_a_middlebox_that_is_none(attributes: dict[str, object], message: str) -> None:
    with pytest.raises(ApiError, match=message):
        create({"type": "middlebox", "attributes": attributes})


def test_a_toxic_as_toxiproxy_writes_it() -> None:
    toxic = create(
        {
            "type": "latency",
            "name": "slow",
            "stream": "upstream",
            "toxicity": 0.5,
            "attributes": {"latency": 100, "unknown": "ignored"},
        }
    )
    assert json.dumps(toxic.document()) == (
        '{"attributes": {"latency": 100, "jitter": 0}, "name": "slow", "type": "latency", '
        '"stream": "upstream", "toxicity": 0.5}'
    )
    assert json.dumps(create({"type": "stall"}).document()["toxicity"]) == "1"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param({}, "invalid toxic type", id="no-type"),
        pytest.param({"type": "nonsense"}, "invalid toxic type", id="unknown-type"),
        pytest.param(
            {"type": ["stall"]},
            "bad request body: json: type must be a string",
            id="type-no-string",
        ),
        pytest.param(
            {"type": "stall", "stream": "sideways"},
            "stream was invalid, can be either upstream or downstream",
            id="stream",
        ),
        pytest.param(
            {"type": "stall", "name": 1}, "bad request body: json: name must be a string", id="name"
        ),
        pytest.param(
            {"type": "stall", "toxicity": "1"},
            "bad request body: json: cannot unmarshal into field toxicity: a number is wanted",
            id="toxicity-no-number",
        ),
        pytest.param(
            {"type": "stall", "attributes": []},
            "bad request body: json: attributes must be an object",
            id="attributes-no-object",
        ),
        pytest.param(
            {"type": "stall", "attributes": {"after": True}},
            "bad request body: json: cannot unmarshal into field attributes.after: "
            "a number is wanted",
            id="attribute-no-number",
        ),
        pytest.param(
            {"type": "stall", "attributes": {"after": -1}},
            "attribute after must be a whole number of at least 0",
            id="attribute-negative",
        ),
        pytest.param(
            {"type": "stall", "attributes": {"after": 1.5}},
            "attribute after must be a whole number of at least 0",
            id="attribute-fraction",
        ),
        pytest.param(
            {"type": "reset", "attributes": {"side": "left"}},
            "attribute side must be one of both, client, server",
            id="attribute-no-choice",
        ),
        pytest.param(
            {"type": "reset", "attributes": {"side": ["client"]}},
            "attribute side must be one of both, client, server",
            id="attribute-no-word",
        ),
        pytest.param(
            {"type": "stall", "attributes": {"after": 1, "when_idle": 1}},
            "a toxic is scheduled by when_idle or by after, not by both",
            id="two-schedules",
        ),
    ],
)
def test_what_is_refused(body: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError) as caught:
        create(body)
    assert (caught.value.message, caught.value.status) == (message, 400)


def test_a_word_among_the_attributes() -> None:
    toxic = create({"type": "reset", "attributes": {"side": "server", "after": 5}})
    assert toxic.document()["attributes"] == {"when_idle": 0, "after": 5, "side": "server"}
    assert update(toxic, {"attributes": {"side": "client"}}).words == {"side": "client"}
    assert update(toxic, {}).words == {"side": "server"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_a_number_that_json_lets_through(number: str) -> None:
    """Python's parser takes more than JSON knows, and none of it may reach a timer."""
    for text in (
        f'{{"type": "latency", "attributes": {{"latency": {number}}}}}',
        f'{{"type": "latency", "toxicity": {number}}}',
    ):
        with pytest.raises(ApiError, match="a number is wanted"):
            create(json.loads(text))


@pytest.mark.parametrize(("given_", "kept"), [(-1, 0.0), (0, 0.0), (0.25, 0.25), (7, 1.0)])
def test_toxicity_is_a_share(given_: float, kept: float) -> None:
    assert create({"type": "latency", "toxicity": given_}).toxicity == kept


def test_an_update_keeps_what_is_not_given() -> None:
    toxic = create({"type": "latency", "attributes": {"latency": 5, "jitter": 2}, "toxicity": 0.5})
    changed = update(toxic, {"attributes": {"jitter": 3}, "type": "stall", "name": "other"})
    assert changed == Toxic(
        "latency_downstream", "latency", "downstream", 0.5, {"latency": 5, "jitter": 3}
    )
    assert update(toxic, {"toxicity": 1}).attributes == toxic.attributes
    assert update(toxic, {"toxicity": 1}).toxicity == 1.0


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (errors.missing_field("name"), ("missing required field: name", 400)),
        (errors.proxy_exists(), ("proxy already exists", 409)),
        (errors.proxy_not_found(), ("proxy not found", 404)),
        (errors.toxic_exists(), ("toxic already exists", 409)),
        (errors.toxic_not_found(), ("toxic not found", 404)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_refusals_as_toxiproxy_writes_them(error: ApiError, body: tuple[str, int]) -> None:
    message, status = body
    assert error.body() == f'{{"error":"{message}","status":{status}}}\n'.encode()
