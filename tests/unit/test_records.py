"""Records: their JSON, their names, and that one can be kept whatever is in it."""

from __future__ import annotations

import errno
import json
import math
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.records import libraries, making
from pytest_tcpresilience.records.journal import Journal
from pytest_tcpresilience.records.record import (
    SCHEMA,
    VERSION,
    Failure,
    Happening,
    Promised,
    Reason,
    Record,
    Settings,
)
from pytest_tcpresilience.tcp.keepalive import Keepalive
from tests.unit.sightings import look, observation

PLAIN = Record(test="", entry="", expectation="detects_break", outcome="noticed", passed=True)
FULL = Record(
    test="test_a.py::test_it[x]",
    entry="detects_break",
    expectation="detects_break",
    outcome="too_late",
    passed=False,
    client="redis-py",
    fault="silent_drop",
    effect="silent_drop",
    activity="idle",
    link="link-1",
    upstream="127.0.0.1:6379",
    blame="client",
    mechanism="keepalive",
    after=4.5,
    nominal=7875.0,
    error=Failure("redis.exceptions.TimeoutError", "Timeout reading", "ETIMEDOUT"),
    settings=Settings(True, 1, 1, 3, 500),
    promised=Promised(2.98, 3.0, 3.5, ("first probe: 1 s",)),
    recovery=0.5,
    attempts=2,
    cause=Reason("keepalive_too_slow", "why", "cure"),
    summary="too late",
    expected="in time",
    advice="lower it",
    engine="embedded",
    versions={"python": "3.11.7"},
    libraries={"redis": "5.0.1"},
    origin="fault",
    timeline=(Happening(0.0, "fault_hit", "silent_drop hit", 1, {"client": ["127.0.0.1", 9]}),),
    left_out=3,
    problem="",
)


# --- JSON ---------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_went() -> None:
    travelled = json.loads(json.dumps(FULL.to_json()))
    assert Record.from_json(travelled) == FULL
    assert (travelled["schema"], travelled["version"]) == (SCHEMA, VERSION)


def test_no_field_is_left_at_its_default_by_the_full_record() -> None:
    # Else the round trip above would say nothing of it.
    assert [name for name, value in vars(FULL).items() if value == getattr(PLAIN, name)] == [
        "expectation",
        "problem",
    ]


def test_a_record_without_its_timeline_is_short() -> None:
    short = FULL.to_json(timeline=False)
    assert FULL.to_json().keys() - short.keys() == {"timeline", "left_out", "origin"}
    assert Record.from_json(short) == replace(FULL, timeline=(), left_out=0, origin="block")


def test_fields_of_a_later_release_are_no_hindrance() -> None:
    document = FULL.to_json()
    document["more"] = 1
    document["settings"]["more"] = 1
    assert Record.from_json(document) == FULL


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema": "other"}, "its schema is not 'pytest-tcpresilience/record'"),
        ({"version": 2}, "its version is 2, and this pytest-tcpresilience reads up to 1"),
        ({"version": None}, "its version is None"),
        ({"outcome": 7}, "outcome is 7 and no text"),
        ({"passed": "yes"}, "passed is 'yes', neither true nor false"),
        ({"after": "soon"}, "after is 'soon' and no number"),
        ({"attempts": True}, "attempts is True and no number"),
        ({"after": math.inf}, "after is inf and no number"),
        ({"libraries": []}, "libraries is [] and no table"),
        ({"settings": {"enabled": True}}, "missing 4 required"),
        ({"settings": 3}, "'int' object has no attribute 'items'"),
        ({"timeline": [{"at": 1.0}]}, "missing 2 required"),
        ({"timeline": 5}, "'int' object is not iterable"),
    ],
)
def test_what_cannot_be_read_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        Record.from_json({**FULL.to_json(), **change})
    assert why in caught.value.happened


@pytest.mark.parametrize("document", [None, [], "text", {}])
def test_what_is_no_record_at_all_is_refused(document: object) -> None:
    with pytest.raises(UsageError, match="a record cannot be read"):
        Record.from_json(document)


def test_a_record_that_lacks_a_field_is_refused() -> None:
    document = FULL.to_json()
    del document["outcome"]
    with pytest.raises(UsageError, match=r"the record of 'test_a\.py::test_it"):
        Record.from_json(document)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (Settings(True, 1, 2, 3, 0), "keepalive 1/2/3"),
        (Settings(True, 1, 2, 3, 500), "keepalive 1/2/3, user timeout 500 ms"),
        (Settings(False, 1, 2, 3, 0), "keepalive off"),
        (Settings(False, 1, 2, 3, 500), "keepalive off, user timeout 500 ms"),
    ],
)
def test_settings_read_as_one_writes_them(settings: Settings, text: str) -> None:
    assert str(settings) == text


# --- the journal --------------------------------------------------------------------------


def test_entries_of_one_test_have_names_of_their_own() -> None:
    journal = Journal("test_a.py::test_it", client="test_it")
    recovers = replace(PLAIN, expectation="recovers")
    of_redis = replace(PLAIN, client="redis")
    for record in (PLAIN, recovers, PLAIN, of_redis, replace(PLAIN, entry="a × b")):
        journal.keep(record)
    assert [record.key for record in journal.records] == [
        "test_a.py::test_it [detects_break]",
        "test_a.py::test_it [recovers]",
        "test_a.py::test_it [detects_break #2]",
        "test_a.py::test_it [detects_break: redis]",
        "test_a.py::test_it [a × b]",
    ]
    assert [record.client for record in journal.records] == [
        *("test_it",) * 3,
        "redis",
        "test_it",
    ]


def test_entries_that_are_left_out_are_keys() -> None:
    journal = Journal("test_a.py::test_it")
    journal.leave_out("a × b")
    assert journal.deselected == ("test_a.py::test_it [a × b]",)


def test_the_test_adds_versions_and_the_client_its_libraries() -> None:
    seen: list[Record] = []

    def found(record: Record) -> Mapping[str, str]:
        return {"redis": "5.0.1"}

    journal = Journal("t", versions={"python": "3"}, libraries=found, kept=seen.append)
    kept = journal.keep(replace(PLAIN, versions={"engine": "1"}, libraries={"hiredis": "3"}))
    assert kept.versions == {"python": "3", "engine": "1"}
    assert kept.libraries == {"redis": "5.0.1", "hiredis": "3"}
    assert seen == [kept] == list(journal.records)


def test_threads_do_not_share_a_name() -> None:
    journal = Journal("t")
    threads = [threading.Thread(target=journal.keep, args=(PLAIN,)) for _ in range(50)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({record.entry for record in journal.records}) == 50


class Opaque:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("change", "field", "instead", "problem"),
    [
        ({"after": math.nan}, "after", None, "after cannot be written as JSON: nan"),
        ({"client": b"redis"}, "client", "", "client cannot be written as JSON: b'redis'"),
        (
            {"summary": Opaque()},
            "summary",
            "",
            "summary cannot be written as JSON: a Opaque, whose repr() raises RuntimeError",
        ),
        ({"attempts": 9 * (object(),)}, "attempts", None, "…"),
    ],
)
def test_what_json_cannot_hold_is_left_out_and_told(
    change: dict[str, Any], field: str, instead: object, problem: str
) -> None:
    kept = Journal(client="me").keep(replace(FULL, **change))
    assert getattr(kept, field) == instead
    assert problem in kept.problem
    back = Record.from_json(json.loads(json.dumps(kept.to_json())))
    assert back == kept
    # Everything else is still there.
    named = {"test", "entry", "problem", field}
    assert {n: v for n, v in vars(kept).items() if n not in named} == {
        n: v for n, v in vars(FULL).items() if n not in named
    }


def test_an_event_that_json_cannot_hold_loses_its_fields_only() -> None:
    good = FULL.timeline[0]
    bad = replace(good, fields={"who": object()})
    kept = Journal().keep(replace(FULL, timeline=(good, bad)))
    assert kept.timeline == (good, replace(bad, fields={}))
    assert "timeline cannot be written as JSON" in kept.problem


# --- how one is made ----------------------------------------------------------------------


def hit(**fields: Any) -> Event:
    return Event(1, 5.0, "fault_hit", {"connection": 1, "type": "silent_drop", **fields})


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (None, ""),
        (hit(direction="both"), "silent_drop"),
        (hit(direction="to_server"), "silent_drop (to_server)"),
        (hit(type="reset", side="client"), "reset (client)"),
        (hit(type="evict_reset", then="reset"), "evict_reset"),
        (hit(type="middlebox", then="drop"), "middlebox (drop)"),
    ],
)
def test_a_fault_is_named_with_what_makes_it_special(event: Event | None, name: str) -> None:
    assert making.fault_of(event) == name


@pytest.mark.parametrize(
    ("events", "activity"),
    [
        ([], "idle"),
        ([look(0.5, "client_socket", timer="keepalive")], "idle"),
        ([look(0.5, "client_socket", timer="retransmit", unacknowledged=9)], "writing"),
        ([look(0.5, "client_socket", timer="persist", unacknowledged=9)], "writing"),
        ([look(-0.5, "client_socket", timer="retransmit", unacknowledged=9)], "idle"),
    ],
)
def test_the_clients_socket_tells_what_it_was_doing(
    events: list[tuple[float, str, dict[str, Any]]], activity: str
) -> None:
    assert making.activity_of(observation(*events)) == activity


def test_whoever_connects_is_connecting() -> None:
    seen = observation(fault="refuse_connections")
    assert seen.hit is not None
    fields = {**seen.hit.fields, "connection": 0}
    assert making.activity_of(replace(seen, hit=Event(1, 0.0, "fault_hit", fields))) == "connecting"
    assert making.activity_of(observation(fault=None)) == ""


def test_a_long_timeline_keeps_both_ends() -> None:
    events = [Event(n, float(n), "marked") for n in range(making.MOST_EVENTS + 5)]
    kept, left_out = making.happenings_of(events, origin=10.0)
    assert (len(kept), left_out) == (making.MOST_EVENTS, 5)
    assert (kept[0].at, kept[-1].at) == (-10.0, making.MOST_EVENTS + 4 - 10.0)
    assert making.happenings_of(events[:-5], origin=0.0)[1] == 0


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def library_error() -> Exception:
    try:
        try:
            raise OSError(errno.ETIMEDOUT, "timed out")
        except OSError as error:
            raise Wordless from error
    except Wordless as error:
        return error


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (None, None),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "ConnectionResetError ECONNRESET"),
        (TimeoutError("own"), "TimeoutError "),
        (library_error(), f"{__name__}.Wordless ETIMEDOUT"),
    ],
)
def test_an_error_is_named_in_full_with_the_kernels_word(
    error: BaseException | None, failure: str | None
) -> None:
    found = making.failure_of(error)
    assert (found and f"{found.type} {found.errno}") == failure


def test_an_error_that_cannot_be_shown_is_no_accident() -> None:
    found = making.failure_of(Wordless())
    assert found is not None
    assert found.text == "(its __str__ raises RuntimeError)"


def test_an_error_that_says_too_much_is_cut() -> None:
    found = making.failure_of(ValueError("x" * (making.MOST_TEXT + 7)))
    assert found is not None
    assert found.text == "x" * making.MOST_TEXT + "… (7 characters more)"


def test_a_record_says_what_the_block_saw() -> None:
    seen = observation(noticed=3.0)
    made = making.record_of(
        "detects_break",
        "noticed",
        seen,
        error=TimeoutError(errno.ETIMEDOUT, "x"),
        client=Keepalive(1, 1, 2, user_timeout=0.5),
        expected="in time",
    )
    assert made.settings == Settings(True, 1, 1, 2, 500)
    assert made.promised is not None
    assert (made.promised.earliest, made.promised.nominal, made.promised.latest) == (2.98, 3.0, 3.5)
    assert (made.fault, made.effect, made.activity) == ("silent_drop", "silent_drop", "idle")
    assert made.origin == "fault"
    assert next(each.at for each in made.timeline if each.kind == "fault_hit") == 0.0
    without = making.record_of(
        "stays_quiet", "fine", observation(fault=None), error=None, client=None, expected=""
    )
    assert (without.fault, without.origin, without.settings) == ("", "block", None)
    assert without.timeline[0].at == 0.0


# --- libraries ----------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three packages that only this test has, one of them editable."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(distribution: str, package: str, origin: str = "") -> None:
        info = tmp_path / f"{distribution.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n"
        (info / "METADATA").write_text(metadata)
        (info / "top_level.txt").write_text(package)
        if origin:
            (info / "direct_url.json").write_text(origin)

    install("zz-client", "zz-client")
    install("zz-other-name", "zz_driver")
    install("zz_ours", "zz_ours", '{"url": "file:///x", "dir_info":{"editable":true}}')
    libraries._installed.cache_clear()
    libraries._providers.cache_clear()
    return tmp_path


@pytest.mark.usefixtures("installed")
def test_libraries_are_known_by_the_names_under_which_they_were_installed() -> None:
    packages = ["zz_client", "zz_driver", "zz_ours", "zz_nowhere", "socket", "pytest"]
    assert libraries.versions_of(packages) == {"zz-client": "1.5", "zz-other-name": "1.5"}
    named = libraries.versions_of_distributions(["zz_ours", "zz-nowhere"])
    assert named == {"zz_ours": "1.5", "zz-nowhere": ""}


def test_a_test_uses_the_packages_that_its_names_come_from() -> None:
    class FromThere: ...

    FromThere.__module__ = "zz_driver.connection"
    namespace = {
        "zz_client": ModuleType("zz_client.asyncio"),
        "Connection": FromThere,
        "socket": ModuleType("socket"),
        "pytest": pytest,
        "number": 7,
        "odd": type("Odd", (), {"__module__": 3}),
    }
    assert libraries.used_by(namespace) == {"zz_client", "zz_driver"}
