"""Whatever is sent to the API: never a 500, never a hang, and the engine goes on."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pytest_tcpresilience.control import Engine
from pytest_tcpresilience.engine.toxics import TYPES
from tests.contract.peers import WAIT_S, receive_all
from tests.contract.rawhttp import Answer, RawHttp

quickly = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def own_engine() -> Iterator[Engine]:
    """One whose proxies and descriptors are nobody else's."""
    engine = Engine(timeout_s=WAIT_S)
    yield engine
    engine.stop()


# --- requests ----------------------------------------------------------------------------

NAMES = ("p", "q", "a/b", "100%", "%2F", "ü ✓", "x" * 300, "..", "\n", "{proxy}", "")
names = st.sampled_from(NAMES) | st.text(max_size=8)
addresses = st.sampled_from(
    ["127.0.0.1:0", ":0", "[::1]:0", "127.0.0.1:1", "nonsense", "[::1", ":", "1:2:3", "é:1", ""]
)
numbers = st.one_of(
    st.integers(),
    st.integers(0, 10),
    st.floats(),  # NaN and the infinities too, which Python's JSON writes
    st.sampled_from([2**63, -(2**63), 10**400, 1e308, -0.0]),
)
anything = st.recursive(
    st.none() | st.booleans() | numbers | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
ATTRIBUTES = sorted({name for kind in TYPES.values() for name in kind.attributes})
# Not yet: a toxic that acts later would act on another example.
attributes = st.dictionaries(st.sampled_from(ATTRIBUTES) | names, numbers | anything, max_size=4)


def mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return right | right | anything


documents = st.fixed_dictionaries(
    {},
    optional={
        "name": mostly(names),
        "listen": mostly(addresses),
        "upstream": mostly(addresses),
        "enabled": mostly(st.booleans()),
        "type": mostly(st.sampled_from(list(TYPES))),
        "stream": mostly(st.sampled_from(["upstream", "downstream", "UPSTREAM", "x"])),
        "toxicity": mostly(numbers),
        "attributes": mostly(attributes),
        "refuse": mostly(st.booleans()),
        "after_hit": mostly(numbers),
        "grace": mostly(numbers),
        "unhit": mostly(numbers),
        "since": mostly(numbers),
    },
)
bodies = documents | st.lists(documents, max_size=3) | anything
raw = (
    bodies.map(lambda body: json.dumps(body).encode())
    | st.binary(max_size=20)
    | st.sampled_from([b'{"name":"p","name":"q"}', b"[" * 5000, b'{"a":' * 5000, b"\xef\xbb\xbf{}"])
)
quoted = st.just("p") | names.map(lambda name: quote(name, safe=""))
PATTERNS = (
    "/proxies",
    "/proxies/{}",
    "/proxies/{}/toxics",
    "/proxies/{}/toxics/{}",
    "/populate",
    "/reset",
    "/version",
    "/metrics",
    "/resilience/proxies/{}/events?after={}",
    "/resilience/proxies/{}/connections",
    "/resilience/proxies/{}/watch",
    "/resilience/proxies/{}/rescue",
)
paths = st.builds(str.format, st.sampled_from(PATTERNS), quoted, quoted) | quoted.map("/{}".format)
methods = st.one_of(
    st.just("POST"),  # which has a body that is read
    st.just("PATCH"),
    st.sampled_from(["GET", "DELETE", "PUT", "HEAD", "OPTIONS", "BREW"]),
)
requests = st.tuples(methods, paths, raw)

STATUSES = {200, 201, 204, 400, 404, 405, 409, 501}


def check(answer: Answer, method: str) -> None:
    assert answer.status in STATUSES, answer.body
    if method == "HEAD" or answer.status in (204, 405):
        assert answer.body == b""
    elif answer.status < 300 or answer.body != b"404 page not found\n":
        document = answer.document
        if answer.status >= 400:
            assert isinstance(document["error"], str)
            assert document["status"] == answer.status


def clean(engine: Engine) -> None:
    for name in engine.call("GET", "/proxies"):
        engine.call("DELETE", f"/proxies/{quote(name, safe='')}")


@settings(quickly, max_examples=130)
@given(sequence=st.lists(requests, min_size=1, max_size=5))
@example(sequence=[("POST", "/proxies", b'{"name":"p","upstream":"127.0.0.1:1"}')] * 2)
def test_any_requests_are_answered(
    own_engine: Engine, sequence: list[tuple[str, str, bytes]]
) -> None:
    http = RawHttp(own_engine)
    own_engine.call("POST", "/proxies", {"name": "p", "upstream": "127.0.0.1:1"})
    before = len(os.listdir(f"/proc/{own_engine.pid}/fd"))
    try:
        for method, path, data in sequence:
            check(http(method, path, data=data), method)
    finally:
        clean(own_engine)
    assert own_engine.last_words() == "", "a mistake would have been printed"
    # What is open is what was before, without the proxy's listener.
    assert len(os.listdir(f"/proc/{own_engine.pid}/fd")) <= before


@settings(quickly, max_examples=40)
@given(
    headers=st.dictionaries(
        st.sampled_from(["Host", "Authorization", "User-Agent", "Expect", "Accept", "X"]),
        st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=20),
    )
)
def test_whatever_the_headers_nobody_gets_in_without_the_secret(
    own_engine: Engine, headers: dict[str, str]
) -> None:
    http = RawHttp(own_engine)
    sent: dict[str, str | None] = {"Authorization": "Bearer x", **headers}
    answer = http("GET", "/proxies", headers=sent)
    assert answer.status in (400, 401, 403)


# --- bytes -------------------------------------------------------------------------------

PIECES = [
    b"GET /version HTTP/1.1\r\n",
    b"POST /proxies HTTP/1.1\r\n",
    b"GET /version HTTP/1.0\r\n",
    b"GET http://other.example/version HTTP/1.1\r\n",
    b"GET * HTTP/1.1\r\n",
    b"GET /%zz HTTP/9.9\r\n",
    b"Host: 127.0.0.1\r\n",
    b"Host: other.example\r\n",
    b"Content-Length: 2\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Upgrade: websocket\r\n",
    b": no name\r\n",
    b" folded\r\n",
    b"X: " + b"y" * 20_000 + b"\r\n",
    b"\r\n",
    b"{}",
    b"2\r\n{}\r\n",
    b"ffffffffffffffff\r\n",
    b"zz\r\n",
    b"0\r\n\r\n",
    b"\x16\x03\x01",
    b"\n",
    b"\0",
]


@settings(quickly, max_examples=100)
@given(pieces=st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=8))
@example(pieces=[PIECES[0], PIECES[6], PIECES[19]] * 3)
@example(pieces=[PIECES[1], PIECES[6], PIECES[11], PIECES[19], PIECES[21], PIECES[24]])
def test_any_bytes_are_answered_or_hung_up_on(own_engine: Engine, pieces: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", own_engine.port), timeout=WAIT_S) as sock:
        sock.sendall(b"".join(pieces))
        sock.shutdown(socket.SHUT_WR)
        answers = receive_all(sock)  # to the FIN: no hang, and no reset
    for status in statuses(answers):
        assert 400 <= status < 500 or status == 100
    assert own_engine.last_words() == ""


def statuses(answers: bytes) -> list[int]:
    return [
        int(line.split()[1]) for line in answers.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")
    ]


@pytest.mark.parametrize("begun", [b"", b"GET /ver", b"POST /proxies HTTP/1.1\r\nContent-Le"])
def test_many_slow_clients_hold_up_nobody(own_engine: Engine, begun: bytes) -> None:
    slow = [socket.create_connection(("127.0.0.1", own_engine.port)) for _ in range(50)]
    try:
        for sock in slow:
            sock.sendall(begun)
        assert own_engine.call("GET", "/proxies") == {}
    finally:
        for sock in slow:
            sock.close()


def test_a_half_request_that_ends_is_answered_with_toxiproxys_kind_of_error(
    own_engine: Engine,
) -> None:
    with socket.create_connection(("127.0.0.1", own_engine.port), timeout=WAIT_S) as sock:
        response = http.client.HTTPResponse(sock)
        sock.sendall(b"POST /proxies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\n{}")
        sock.shutdown(socket.SHUT_WR)
        response.begin()
        document = json.loads(response.read())
        response.close()
    assert document["status"] == response.status == 400
    assert document["error"].startswith("malformed request: ")
