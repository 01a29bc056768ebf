"""The API, in raw HTTP: the recorded answers of Toxiproxy 2.12, and our differences.

The differences, all deliberate: a missing ``listen`` means loopback and not every
interface; a secret is wanted; a bad address is refused when it is given and not when it
is used.
"""

from __future__ import annotations

import base64
import errno
import json
import socket
import threading
from typing import Any

import pytest

from pytest_tcpresilience.control import Carrier, Engine
from pytest_tcpresilience.engine.toxics import TYPES
from tests.contract.conftest import Dialler, ProxyFactory
from tests.contract.peers import WAIT_S, RawServer, receive_all, see
from tests.contract.rawhttp import RawHttp

NOWHERE = ("127.0.0.1", 7001)
PROXY_KEYS = ["name", "listen", "upstream", "enabled", "Logger", "toxics"]


def port_of(document: dict[str, Any]) -> int:
    return int(document["listen"].rpartition(":")[2])


def refuses_connections(port: int) -> bool:
    with socket.socket() as sock:
        # Not any error: a proxy whose upstream is refused resets its clients.
        return sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


# --- proxies -----------------------------------------------------------------------------


def test_a_created_proxy_is_shown_as_toxiproxy_shows_it(http: RawHttp, name: str) -> None:
    body = {"name": name, "upstream": "127.0.0.1:7001"}
    try:
        answer = http("POST", "/proxies", body)
        assert answer.status == 201
        assert answer.content_type == "application/json"
        assert list(answer.document) == PROXY_KEYS
        assert answer.document == {
            "name": name,
            "listen": answer.document["listen"],
            "upstream": "127.0.0.1:7001",
            "enabled": True,
            "Logger": {},
            "toxics": [],
        }
    finally:
        assert http("DELETE", f"/proxies/{name}").status == 204


def test_a_missing_listen_means_a_free_port_on_loopback(http: RawHttp, name: str) -> None:
    answer = http("POST", "/proxies", {"name": name, "upstream": "127.0.0.1:7001"})
    host, _, port = answer.document["listen"].rpartition(":")
    assert (host, int(port) > 0) == ("127.0.0.1", True)
    http("DELETE", f"/proxies/{name}")


@pytest.mark.parametrize("listen", ["", ":0", "127.0.0.1:0"])
def test_port_0_picks_a_port_that_answers(
    proxy: ProxyFactory, dial: Dialler, server4: RawServer, listen: str
) -> None:
    created = proxy(server4.address, listen=listen)
    assert created["listen"] == f"127.0.0.1:{port_of(created)}"
    dial(("127.0.0.1", port_of(created)))
    assert server4.accept()


def test_a_name_that_resolves_to_loopback_can_be_listened_on(
    proxy: ProxyFactory, dial: Dialler, server4: RawServer
) -> None:
    created = proxy(server4.address, listen="localhost:0")
    assert created["listen"].rpartition(":")[0] in ("127.0.0.1", "[::1]")
    dial(("localhost", port_of(created)))
    assert server4.accept()


def test_an_ipv6_address_comes_back_in_brackets(proxy: ProxyFactory) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    created = proxy(("::1", 7001), listen="[::1]:0")
    assert created["listen"] == f"[::1]:{port_of(created)}"
    assert created["upstream"] == "[::1]:7001"


def test_a_proxy_can_be_created_disabled(proxy: ProxyFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    created = proxy(NOWHERE, listen=f"127.0.0.1:{port}", enabled=False)
    assert not created["enabled"]
    assert refuses_connections(port)


def test_a_second_proxy_of_the_same_name_is_a_conflict(http: RawHttp, proxy: ProxyFactory) -> None:
    name = proxy(NOWHERE)["name"]
    answer = http("POST", "/proxies", {"name": name, "upstream": "127.0.0.1:7001"})
    assert answer.status == 409
    assert answer.body == b'{"error":"proxy already exists","status":409}\n'
    assert answer.content_type == "text/plain; charset=utf-8"


def test_a_name_with_a_slash_and_a_space_can_be_reached(http: RawHttp, proxy: ProxyFactory) -> None:
    proxy(NOWHERE, name="a/b c")
    assert http("GET", "/proxies/a%2Fb%20c").document["name"] == "a/b c"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"upstream": "127.0.0.1:7001"}, "missing required field: name"),
        ({"name": "p"}, "missing required field: upstream"),
        ({}, "missing required field: name"),
    ],
)
def test_a_proxy_needs_a_name_and_an_upstream(
    http: RawHttp, body: dict[str, Any], message: str
) -> None:
    answer = http("POST", "/proxies", body)
    assert (answer.status, answer.error) == (400, message)


def test_all_proxies_are_listed_by_name(http: RawHttp, proxy: ProxyFactory) -> None:
    first, second = proxy(NOWHERE), proxy(NOWHERE)
    answer = http("GET", "/proxies")
    assert answer.status == 200
    assert answer.content_type == "application/json"
    listed = answer.document
    assert listed[first["name"]] == first
    assert listed[second["name"]] == second


def test_one_proxy_is_shown_with_its_toxics(http: RawHttp, proxy: ProxyFactory) -> None:
    created = proxy(NOWHERE)
    toxic = http("POST", f"/proxies/{created['name']}/toxics", {"type": "latency"}).document
    shown = http("GET", f"/proxies/{created['name']}")
    assert shown.status == 200
    assert shown.document == {**created, "toxics": [toxic]}


def test_a_deleted_proxy_is_gone_and_closed(http: RawHttp, proxy: ProxyFactory) -> None:
    created = proxy(NOWHERE)
    answer = http("DELETE", f"/proxies/{created['name']}")
    assert (answer.status, answer.body) == (204, b"")
    assert refuses_connections(port_of(created))
    assert http("DELETE", f"/proxies/{created['name']}").error == "proxy not found"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/proxies/none"),
        ("POST", "/proxies/none"),
        ("PATCH", "/proxies/none"),
        ("DELETE", "/proxies/none"),
        ("GET", "/proxies/none/toxics"),
        ("POST", "/proxies/none/toxics"),
        ("GET", "/proxies/none/toxics/t"),
        ("PATCH", "/proxies/none/toxics/t"),
        ("DELETE", "/proxies/none/toxics/t"),
        ("GET", "/resilience/proxies/none/events"),
        ("GET", "/resilience/proxies/none/connections"),
        ("POST", "/resilience/proxies/none/rescue"),
    ],
)
def test_an_unknown_proxy_is_not_found(http: RawHttp, method: str, path: str) -> None:
    answer = http(method, path, {})
    assert (answer.status, answer.error) == (404, "proxy not found")


# --- updates -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_disabling_closes_the_listener_and_enabling_opens_the_same_port(
    http: RawHttp, proxy: ProxyFactory, dial: Dialler, server4: RawServer, method: str
) -> None:
    created = proxy(server4.address)
    path = f"/proxies/{created['name']}"
    client = dial(("127.0.0.1", port_of(created)))
    upstream = server4.accept()

    answer = http(method, path, {"enabled": False})
    assert (answer.status, answer.document) == (200, {**created, "enabled": False})
    assert refuses_connections(port_of(created))
    assert see(client).what == "EOF"
    assert see(upstream).what == "EOF"

    answer = http(method, path, {"enabled": True})
    assert (answer.status, answer.document) == (200, created)
    dial(("127.0.0.1", port_of(created)))
    assert server4.accept()


def test_enabling_twice_changes_nothing(
    http: RawHttp, proxy: ProxyFactory, dial: Dialler, server4: RawServer
) -> None:
    created = proxy(server4.address)
    client = dial(("127.0.0.1", port_of(created)))
    upstream = server4.accept()
    assert http("PATCH", f"/proxies/{created['name']}", {"enabled": True}).document == created
    client.sendall(b"still here")
    assert see(upstream).data == b"still here"


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_new_upstream_drops_the_connections_and_takes_the_next(
    http: RawHttp, proxy: ProxyFactory, dial: Dialler, server4: RawServer, method: str
) -> None:
    created = proxy(server4.address)
    client = dial(("127.0.0.1", port_of(created)))
    server4.accept()
    other = RawServer("127.0.0.1")
    try:
        upstream = f"127.0.0.1:{other.port}"
        answer = http(method, f"/proxies/{created['name']}", {"upstream": upstream})
        assert answer.document == {**created, "upstream": upstream}
        assert see(client).what == "EOF"
        dial(("127.0.0.1", port_of(created)))
        assert other.accept()
        assert not server4.has_a_client_waiting()
    finally:
        other.close()


def test_a_new_listen_moves_the_listener(http: RawHttp, proxy: ProxyFactory) -> None:
    created = proxy(NOWHERE)
    moved = http("PATCH", f"/proxies/{created['name']}", {"listen": "127.0.0.1:0"}).document
    assert refuses_connections(port_of(created))
    assert not refuses_connections(port_of(moved))


def test_the_same_listen_and_upstream_restart_nothing(
    http: RawHttp, proxy: ProxyFactory, dial: Dialler, server4: RawServer
) -> None:
    created = proxy(server4.address)
    client = dial(("127.0.0.1", port_of(created)))
    upstream = server4.accept()
    same = {key: created[key] for key in ("listen", "upstream")}
    assert http("POST", f"/proxies/{created['name']}", same).document == created
    client.sendall(b"still here")
    assert see(upstream).data == b"still here"


def test_a_port_in_use_is_one_clear_refusal_and_leaves_no_proxy(http: RawHttp, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        body = {"name": name, "listen": listen, "upstream": "127.0.0.1:7001"}
        answer = http("POST", "/proxies", body)
        assert answer.status == 400
        assert answer.error.startswith(f"listen tcp {listen}: ")
        assert "Address already in use" in answer.error
        assert http("GET", f"/proxies/{name}").status == 404
    assert http("POST", "/proxies", body).status == 201
    http("DELETE", f"/proxies/{name}")


def test_a_port_that_was_taken_meanwhile_leaves_the_proxy_disabled(
    http: RawHttp, proxy: ProxyFactory
) -> None:
    created = proxy(NOWHERE)
    path = f"/proxies/{created['name']}"
    http("PATCH", path, {"enabled": False})
    with socket.create_server(("127.0.0.1", port_of(created))):
        answer = http("PATCH", path, {"enabled": True})
        assert answer.status == 400
        assert "Address already in use" in answer.error
        assert not http("GET", path).document["enabled"]
    assert http("PATCH", path, {"enabled": True}).document == created


# --- toxics ------------------------------------------------------------------------------


@pytest.fixture
def toxics(proxy: ProxyFactory) -> str:
    """The path of a proxy's toxics."""
    return f"/proxies/{proxy(NOWHERE)['name']}/toxics"


def test_a_created_toxic_has_toxiproxys_defaults(http: RawHttp, toxics: str) -> None:
    answer = http("POST", toxics, {"type": "latency", "attributes": {"latency": 5}})
    assert answer.status == 200
    assert answer.content_type == "application/json"
    assert json.dumps(answer.document, separators=(",", ":")) == (
        '{"attributes":{"latency":5,"jitter":0},"name":"latency_downstream","type":"latency",'
        '"stream":"downstream","toxicity":1}'
    )


def test_a_second_toxic_of_the_same_name_is_a_conflict(http: RawHttp, toxics: str) -> None:
    http("POST", toxics, {"type": "latency"})
    answer = http("POST", toxics, {"type": "latency"})
    assert (answer.status, answer.error) == (409, "toxic already exists")


def test_the_same_toxic_on_the_other_stream_has_another_name(http: RawHttp, toxics: str) -> None:
    http("POST", toxics, {"type": "latency"})
    answer = http("POST", toxics, {"type": "latency", "stream": "upstream", "toxicity": 0.5})
    assert answer.document["name"] == "latency_upstream"
    assert answer.document["toxicity"] == 0.5
    assert [each["name"] for each in http("GET", toxics).document] == [
        "latency_downstream",
        "latency_upstream",
    ]


def test_a_toxic_is_shown_updated_and_deleted_by_its_name(http: RawHttp, toxics: str) -> None:
    created = http("POST", toxics, {"name": "slow", "type": "latency"}).document
    assert http("GET", f"{toxics}/slow").document == created
    for method, milliseconds in (("PATCH", 7), ("POST", 8)):
        answer = http(method, f"{toxics}/slow", {"attributes": {"latency": milliseconds}})
        wanted = {**created, "attributes": {"latency": milliseconds, "jitter": 0}}
        assert (answer.status, answer.document) == (200, wanted)
    answer = http("DELETE", f"{toxics}/slow")
    assert (answer.status, answer.body) == (204, b"")
    answer = http("DELETE", f"{toxics}/slow")
    assert (answer.status, answer.error) == (404, "toxic not found")


@pytest.mark.parametrize("method", ["GET", "PATCH", "POST", "DELETE"])
def test_an_unknown_toxic_is_not_found(http: RawHttp, toxics: str, method: str) -> None:
    answer = http(method, f"{toxics}/none", {})
    assert (answer.status, answer.error) == (404, "toxic not found")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"type": "nope"}, "invalid toxic type"),
        ({}, "invalid toxic type"),
        (
            {"type": "latency", "stream": "sideways"},
            "stream was invalid, can be either upstream or downstream",
        ),
    ],
)
def test_a_toxic_needs_a_known_type_and_stream(
    http: RawHttp, toxics: str, body: dict[str, Any], message: str
) -> None:
    answer = http("POST", toxics, body)
    assert (answer.status, answer.error) == (400, message)
    assert http("GET", toxics).document == []


def test_an_attribute_that_the_type_does_not_have_is_ignored(http: RawHttp, toxics: str) -> None:
    body = {"type": "timeout", "attributes": {"timeout": 3, "latency": 4}}
    assert http("POST", toxics, body).document["attributes"] == {"timeout": 3}


@pytest.mark.parametrize("type_", [name for name, kind in TYPES.items() if kind.below])
def test_a_link_toxic_says_when_it_struck_and_what_it_hit(
    http: RawHttp, toxics: str, type_: str
) -> None:
    document = http("POST", toxics, {"type": type_}).document
    assert document["type"] == type_
    assert document["armed_at"] <= document["struck_at"]
    assert document["hits"] == TYPES[type_].listener  # nobody is connected


def test_a_link_toxic_that_waits_has_not_struck(http: RawHttp, toxics: str) -> None:
    body = {"type": "reset", "attributes": {"after": 60_000}}
    assert http("POST", toxics, body).document["struck_at"] is None


# --- reset, version, unknown -------------------------------------------------------------


def test_reset_enables_every_proxy_and_removes_every_toxic(
    http: RawHttp, proxy: ProxyFactory
) -> None:
    first, second = proxy(NOWHERE), proxy(NOWHERE)
    http("PATCH", f"/proxies/{first['name']}", {"enabled": False})
    http("POST", f"/proxies/{second['name']}/toxics", {"type": "latency"})
    http("POST", f"/proxies/{second['name']}/toxics", {"type": "silent_drop"})
    answer = http("POST", "/reset")
    assert (answer.status, answer.body) == (204, b"")
    listed = http("GET", "/proxies").document
    assert listed[first["name"]] == first
    assert listed[second["name"]] == second


def test_the_version_is_the_toxiproxy_whose_api_this_is(http: RawHttp) -> None:
    answer = http("GET", "/version")
    assert answer.status == 200
    assert answer.content_type == "application/json;charset=utf-8"
    assert answer.document["version"] == "2.12.0"


@pytest.mark.parametrize("path", ["/", "/metrics", "/nothing/here", "/proxies/p/toxics/t/more"])
def test_an_unknown_path_is_gos_404_page(http: RawHttp, path: str) -> None:
    answer = http("GET", path)
    assert (answer.status, answer.body) == (404, b"404 page not found\n")
    assert answer.content_type.startswith("text/plain")


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/proxies"), ("DELETE", "/proxies"), ("GET", "/reset"), ("POST", "/version")],
)
def test_a_known_path_refuses_other_methods(http: RawHttp, method: str, path: str) -> None:
    assert http(method, path).status == 405


# --- who is let in -----------------------------------------------------------------------


def test_a_browser_is_refused(http: RawHttp) -> None:
    answer = http("GET", "/version", headers={"User-Agent": "Mozilla/5.0 (X11)"})
    assert answer.status == 403
    assert answer.content_type.startswith("text/plain")
    assert answer.body == b"User agent not allowed\n"


@pytest.mark.parametrize("host", ["attacker.example", "attacker.example:80", "[", ""])
def test_a_host_that_could_have_been_rebound_is_refused(http: RawHttp, host: str) -> None:
    answer = http("GET", "/version", headers={"Host": host})
    assert answer.status == 403
    assert "Host not allowed" in answer.error


@pytest.mark.parametrize("host", ["localhost", "localhost:8474", "127.0.0.1", "[::1]:8474"])
def test_a_local_host_is_let_in(http: RawHttp, host: str) -> None:
    assert http("GET", "/version", headers={"Host": host}).status == 200


def test_the_secret_is_taken_as_basic_password_of_any_user(http: RawHttp) -> None:
    credentials = base64.b64encode(f"somebody:{http.secret}".encode()).decode()
    answer = http("GET", "/version", headers={"Authorization": f"Basic {credentials}"})
    assert answer.status == 200


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Basic",
        "Basic not-base64",
        "Basic é",
        "Basic " + base64.b64encode(b"somebody:wrong").decode(),
        "Basic " + base64.b64encode(b"\xff").decode(),
        "Digest username=somebody",
    ],
)
def test_without_the_secret_nothing_is_told(http: RawHttp, authorization: str | None) -> None:
    answer = http("GET", "/proxies", headers={"Authorization": authorization})
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert "secret" in answer.error


def test_the_user_of_basic_auth_is_no_secret(http: RawHttp) -> None:
    credentials = base64.b64encode(f"{http.secret}:".encode()).decode()
    answer = http("GET", "/version", headers={"Authorization": f"Basic {credentials}"})
    assert answer.status == 401


# --- bodies ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"", b"{bad", b"\xff\xfe", b"[]", b'"p"', b"[" * 100_000],
    ids=["empty", "malformed", "not utf-8", "array", "string", "deep"],
)
def test_a_body_that_is_no_json_object_is_a_bad_request(http: RawHttp, data: bytes) -> None:
    answer = http("POST", "/proxies", data=data)
    assert answer.status == 400
    assert answer.error.startswith("bad request body: ")


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", 5), ("name", ["p"]), ("upstream", 7001), ("listen", {}), ("enabled", "yes")],
)
def test_a_field_of_the_wrong_type_is_named(
    http: RawHttp, name: str, field: str, value: object
) -> None:
    body = {"name": name, "upstream": "127.0.0.1:7001", field: value}
    answer = http("POST", "/proxies", body)
    assert answer.status == 400
    assert answer.error.startswith("bad request body: ")
    assert field in answer.error


@pytest.mark.parametrize("field", ["listen", "upstream"])
@pytest.mark.parametrize(
    "address",
    [
        "nonsense",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:99999",
        "127.0.0.1:-1",
        "::1:80",
        "127.0.0.1:" + "0" * 5000,
    ],
    ids=["no colon", "no port", "empty port", "too high", "negative", "no brackets", "endless"],
)
def test_a_malformed_address_is_named_and_leaves_no_proxy(
    http: RawHttp, name: str, field: str, address: str
) -> None:
    body = {"name": name, "upstream": "127.0.0.1:7001", field: address}
    answer = http("POST", "/proxies", body)
    assert answer.status == 400
    assert answer.error.startswith(f"{field} ")
    assert http("GET", f"/proxies/{name}").status == 404


@pytest.mark.parametrize("host", ["x" * 70, "a\0b", "\ud800", "no-such-host.invalid"])
def test_a_listen_host_that_cannot_be_resolved_leaves_no_proxy(
    http: RawHttp, name: str, host: str
) -> None:
    body = {"name": name, "upstream": "127.0.0.1:7001", "listen": f"{host}:0"}
    answer = http("POST", "/proxies", body)
    assert answer.status == 400
    assert answer.error.startswith("listen tcp ")
    assert http("GET", f"/proxies/{name}").status == 404


@pytest.mark.parametrize(
    "fields",
    [
        '"name":5',
        '"toxicity":"all"',
        '"toxicity":true',
        '"toxicity":NaN',
        '"attributes":[]',
        '"attributes":{"latency":"5"}',
        '"attributes":{"latency":-1}',
        '"attributes":{"latency":1.5}',
        '"attributes":{"latency":NaN}',
        '"attributes":{"latency":1e999}',
        '"attributes":{"latency":1' + "0" * 400 + "}",
    ],
)
def test_a_toxic_with_a_field_of_the_wrong_kind_is_refused(
    http: RawHttp, toxics: str, fields: str
) -> None:
    answer = http("POST", toxics, data=b'{"type":"latency",' + fields.encode() + b"}")
    assert answer.status == 400
    assert fields.split('"')[-2] in answer.error or fields.split('"')[1] in answer.error
    assert http("GET", toxics).document == []


@pytest.mark.parametrize(
    "body",
    [
        {"after_hit": "soon", "grace": 1, "unhit": 1},
        {"after_hit": 1, "grace": -1, "unhit": 1},
        {"after_hit": 1, "grace": 1},
        {"after_hit": 1, "grace": 1, "unhit": float("nan")},
        {"after_hit": 1, "grace": 1, "unhit": float("inf")},
        {"after_hit": 1, "grace": 1, "unhit": 1, "since": "last"},
        {"after_hit": 1, "grace": 1, "unhit": 1, "clock": "noon"},
    ],
)
def test_a_watch_on_impossible_terms_is_refused(
    http: RawHttp, proxy: ProxyFactory, body: dict[str, Any]
) -> None:
    path = f"/resilience/proxies/{proxy(NOWHERE)['name']}"
    answer = http("POST", f"{path}/watch", body)
    assert answer.status == 400
    assert answer.error.startswith("bad request body: ")
    assert http("GET", f"{path}/events").document == []


@pytest.mark.parametrize("query", ["after=x", "wait=x", "wait=nan&after=99", "after=1.5"])
def test_a_long_poll_wants_numbers(http: RawHttp, proxy: ProxyFactory, query: str) -> None:
    answer = http("GET", f"/resilience/proxies/{proxy(NOWHERE)['name']}/events?{query}")
    assert answer.status == 400
    assert "numbers" in answer.error


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 4 * 1024 * 1024])
def test_a_body_over_the_limit_is_refused(http: RawHttp, size: int) -> None:
    with socket.create_connection(("127.0.0.1", http.port), timeout=WAIT_S) as sock:
        head = f"POST /proxies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n"
        sock.sendall(f"{head}Authorization: Bearer {http.secret}\r\n\r\n".encode())
        # The engine may close on the rest of it: the answer is on its way by then.
        sending = threading.Thread(target=_send_regardless, args=[sock, b"x" * size])
        sending.start()
        assert sock.recv(1024).startswith(b"HTTP/1.1 413 ")
        sending.join()


def _send_regardless(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
    except OSError:
        return


@pytest.mark.parametrize(
    ("path", "secret", "status"), [("/version", False, 401), ("/none", True, 404)]
)
def test_head_is_answered_without_a_body(
    http: RawHttp, path: str, secret: bool, status: int
) -> None:
    answer = http("HEAD", path, headers={} if secret else {"Authorization": None})
    assert (answer.status, answer.body) == (status, b"")


def test_what_is_not_http_is_refused_and_hung_up_on(http: RawHttp, engine: Engine) -> None:
    with socket.create_connection(("127.0.0.1", http.port), timeout=WAIT_S) as sock:
        sock.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        answer = receive_all(sock)  # up to the FIN, and no reset on the way
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 400
    assert engine.alive


# --- side by side ------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [b"", b"POST /proxies HTTP/1.1\r\nHost: 127"])
def test_a_client_that_never_finishes_holds_up_nobody(http: RawHttp, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", http.port), timeout=WAIT_S) as slow:
        slow.sendall(begun)
        assert http("GET", "/version").status == 200


def test_a_long_poll_holds_up_nobody_and_ends_with_the_first_event(
    http: RawHttp, proxy: ProxyFactory, dial: Dialler, server4: RawServer
) -> None:
    created = proxy(server4.address)
    found: list[dict[str, Any]] = []
    path = f"/resilience/proxies/{created['name']}/events?after=0&wait={WAIT_S}"
    poll = threading.Thread(target=lambda: found.extend(http("GET", path).document))
    poll.start()
    assert http("GET", "/version").status == 200
    dial(("127.0.0.1", port_of(created)))
    poll.join()
    assert found[0]["kind"] == "opened"


def test_requests_on_one_connection_are_answered_in_turn(http: RawHttp) -> None:
    request = (
        f"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {http.secret}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", http.port), timeout=WAIT_S) as sock:
        sock.sendall(request * 3)
        got = b""
        while got.count(b'"version"') < 3:
            more = sock.recv(65536)
            assert more
            got += more
        assert got.count(b"HTTP/1.1 200 ") == 3


def test_a_proxy_survives_being_switched_while_clients_connect(
    http: RawHttp, proxy: ProxyFactory, server4: RawServer, engine: Engine
) -> None:
    created = proxy(server4.address)
    path = f"/proxies/{created['name']}"
    ended = threading.Event()

    def knock() -> None:
        while not ended.is_set():
            with socket.socket() as sock:
                sock.connect_ex(("127.0.0.1", port_of(created)))

    knocking = [threading.Thread(target=knock) for _ in range(4)]
    for thread in knocking:
        thread.start()
    try:
        for _ in range(30):
            engine.call("PATCH", path, {"enabled": False})
            engine.call("PATCH", path, {"enabled": True})
    finally:
        ended.set()
        for thread in knocking:
            thread.join()
    events = engine.call("GET", f"/resilience{path}/events")
    assert [event for event in events if event["kind"] == "internal_error"] == []


def test_many_calls_at_once_switch_one_proxy_without_losing_it(
    proxy: ProxyFactory, engine: Engine
) -> None:
    created = proxy(NOWHERE)
    path = f"/proxies/{created['name']}"
    answers: list[dict[str, Any]] = []

    def switch() -> None:
        for enabled in (True, False) * 10 + (True,):
            answers.append(engine.call("PATCH", path, {"enabled": enabled}))

    threads = [threading.Thread(target=switch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6 * 21
    assert engine.call("PATCH", path, {"enabled": True}) == created


def test_deleting_a_proxy_while_it_opens_leaves_no_listener(
    http: RawHttp, name: str, engine: Engine
) -> None:
    # A name, so that opening the listener takes a moment in which the other call comes.
    body = {"name": name, "listen": "localhost:0", "upstream": "127.0.0.1:7001"}
    before = _listening(engine)
    for _ in range(20):
        creating = threading.Thread(target=http, args=("POST", "/proxies", body))
        creating.start()
        http("DELETE", f"/proxies/{name}")
        creating.join()
        http("DELETE", f"/proxies/{name}")
    assert _listening(engine) == before


def _listening(engine: Carrier) -> int:
    import psutil

    return len(
        [
            each
            for each in psutil.Process(engine.pid).net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        ]
    )
