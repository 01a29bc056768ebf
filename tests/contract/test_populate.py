"""POST /populate: many proxies at once, and only what differs is replaced."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_tcpresilience.control import Engine
from pytest_tcpresilience.errors import HarnessError
from tests.contract.conftest import Dialler
from tests.contract.peers import RawServer, see
from tests.contract.rawhttp import RawHttp

NOWHERE = "127.0.0.1:7001"


@pytest.fixture
def names(engine: Engine, name: str) -> Iterator[tuple[str, str]]:
    """Two names; their proxies end with the test."""
    both = (f"{name}-a", f"{name}-b")
    yield both
    for each in both:
        with contextlib.suppress(HarnessError):
            engine.call("DELETE", f"/proxies/{each}")


def address_of(document: dict[str, Any]) -> tuple[str, int]:
    host, _, port = document["listen"].rpartition(":")
    return host, int(port)


def test_what_is_asked_for_is_made_and_shown(http: RawHttp, names: tuple[str, str]) -> None:
    wanted = [
        {"name": names[0], "upstream": NOWHERE, "listen": "127.0.0.1:0"},
        {"name": names[1], "upstream": NOWHERE, "enabled": False},
    ]
    answer = http("POST", "/populate", wanted)
    assert (answer.status, answer.content_type) == (201, "application/json")
    assert list(answer.document) == ["proxies"]
    first, second = answer.document["proxies"]
    assert (first["name"], first["enabled"], first["toxics"]) == (names[0], True, [])
    assert (second["name"], second["enabled"]) == (names[1], False)
    shown = http("GET", "/proxies").document
    assert [shown[each] for each in names] == [first, second]


def test_nothing_is_populated_by_an_empty_list(http: RawHttp) -> None:
    answer = http("POST", "/populate", [])
    assert (answer.status, answer.document) == (201, {"proxies": []})


def test_what_is_the_same_is_left_alone_and_what_differs_is_replaced(
    http: RawHttp, names: tuple[str, str], server4: RawServer, dial: Dialler
) -> None:
    wanted = [{"name": each, "upstream": f"127.0.0.1:{server4.port}"} for each in names]
    before = http("POST", "/populate", wanted).document["proxies"]
    for each in names:
        http("POST", f"/proxies/{each}/toxics", {"type": "latency"})
    pairs = [(dial(address_of(document)), server4.accept()) for document in before]

    wanted[1] |= {"upstream": NOWHERE, "listen": before[1]["listen"]}
    kept, replaced = http("POST", "/populate", wanted).document["proxies"]
    assert (kept["listen"], len(kept["toxics"])) == (before[0]["listen"], 1)
    pairs[0][0].sendall(b"still here")
    assert see(pairs[0][1]).data == b"still here"
    assert replaced == {**before[1], "upstream": NOWHERE}
    assert see(pairs[1][0]).what == "EOF"


def test_the_address_that_was_given_back_is_the_same(
    http: RawHttp, names: tuple[str, str], server4: RawServer, dial: Dialler
) -> None:
    upstream = f"127.0.0.1:{server4.port}"
    body = {"name": names[0], "upstream": upstream, "listen": "localhost:0"}
    made = http("POST", "/populate", [body]).document["proxies"][0]
    client, server = dial(address_of(made)), server4.accept()
    for listen in ("localhost:0", made["listen"]):
        again = http("POST", "/populate", [{**body, "listen": listen}]).document["proxies"]
        assert again == [made]
    client.sendall(b"still here")
    assert see(server).data == b"still here"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"upstream": NOWHERE}, "missing required field: name at proxy 2"),
        ({"name": "p"}, "missing required field: upstream at proxy 2"),
        ({"name": "p", "upstream": "nonsense"}, "upstream 'nonsense': want host:port"),
        (
            {"name": "p", "upstream": NOWHERE, "listen": "nonsense"},
            "listen 'nonsense': want host:port",
        ),
        (
            {"name": "p", "upstream": NOWHERE, "enabled": 1},
            "bad request body: json: enabled must be true or false",
        ),
        ("p", "bad request body: json: proxy 2 must be an object"),
    ],
    ids=["name", "upstream", "malformed-upstream", "malformed-listen", "enabled", "no-object"],
)
def test_a_list_with_a_mistake_makes_nothing(
    http: RawHttp, names: tuple[str, str], second: object, message: str
) -> None:
    answer = http("POST", "/populate", [{"name": names[0], "upstream": NOWHERE}, second])
    assert answer.status == 400
    assert answer.document == {"error": message, "status": 400, "proxies": []}
    assert http("GET", f"/proxies/{names[0]}").status == 404


def test_a_list_with_the_same_name_twice_makes_nothing(http: RawHttp, name: str) -> None:
    answer = http("POST", "/populate", [{"name": name, "upstream": NOWHERE}] * 2)
    assert answer.document["error"] == f"bad request body: two proxies have the name {name}"
    assert (answer.status, http("GET", f"/proxies/{name}").status) == (400, 404)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"{}", "json: a list of proxies is wanted"), (b"[", "Expecting value")],
    ids=["object", "malformed"],
)
def test_a_body_that_is_no_list(http: RawHttp, data: bytes, message: str) -> None:
    answer = http("POST", "/populate", data=data)
    assert answer.status == 400
    assert answer.document["error"].startswith(f"bad request body: {message}")


def test_a_port_in_use_is_reported_with_what_was_made_before(
    http: RawHttp, names: tuple[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        wanted = [
            {"name": names[0], "upstream": NOWHERE},
            {"name": names[1], "upstream": NOWHERE, "listen": listen},
        ]
        answer = http("POST", "/populate", wanted)
    assert answer.status == 400
    assert answer.document["error"].startswith(f"listen tcp {listen}: Address already in use")
    assert [each["name"] for each in answer.document["proxies"]] == [names[0]]
    assert http("GET", f"/proxies/{names[1]}").status == 404


def test_each_answer_carries_an_id_of_its_own(http: RawHttp) -> None:
    answers = [
        http("GET", "/version"),
        http("GET", "/version"),
        http("GET", "/none"),
        http("GET", "/version", headers={"Authorization": None}),
        http("GET", "/version", headers={"User-Agent": "Mozilla/5.0"}),
        http("POST", "/reset"),
    ]
    assert [each.status for each in answers] == [200, 200, 404, 401, 403, 204]
    ids = {each.headers["X-Toxiproxy-Request-Id"] for each in answers}
    assert len(ids) == len(answers)
    assert all(len(each) == 20 for each in ids)
