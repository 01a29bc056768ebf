"""The table of faults, and what a link refuses before the engine hears of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from pytest_tcpresilience import Event, Fault, Link, Middlebox, UsageError
from pytest_tcpresilience.control import Engine
from pytest_tcpresilience.faults import EVICTIONS, FAULTS, ONCE, check_compatible, meeting
from pytest_tcpresilience.settings import Settings
from pytest_tcpresilience.tcp.middleboxes import EVICTION_MODES
from pytest_tcpresilience.upstream import Upstream


class RecordingEngine:
    """Stands in for the engine: answers as it does, and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.links: dict[str, tuple[str, int]] = {}
        self.events: list[dict[str, Any]] = []
        self.connections: list[dict[str, Any]] = []
        self.alive = True
        self.death_is_reported = False

    def call(self, method: str, path: str, body: Any = None, **_: object) -> Any:
        if method == "GET":
            return self.events if "/events" in path else self.connections
        self.calls.append((method, path, body))
        return {"listen": "127.0.0.1:4711"} if path == "/proxies" else None

    @property
    def toxics(self) -> list[dict[str, Any]]:
        return [body for method, path, body in self.calls if path.endswith("/toxics")]


@pytest.fixture
def engine() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture
def link(engine: RecordingEngine) -> Link:
    return Link(cast(Engine, engine), "link-1", Upstream("localhost", 80), Settings(), "127.0.0.1")


HAPROXY = Middlebox.HAPROXY
HAPROXY_MS = round(HAPROXY.idle_timeout * 1000)
SCHEDULED = [name for name, row in FAULTS.items() if not (row.after_is_its_own or row.standing)]


def start_by_name(link: Link, name: str, **schedule: float) -> Fault:
    """By the method that the table names."""
    then = {"then": name.removeprefix("evict_")} if FAULTS[name].method == "evict" else {}
    fault: Fault = getattr(link, FAULTS[name].method)(**then, **schedule)
    return fault


def test_each_row_is_complete() -> None:
    for name, row in FAULTS.items():
        assert row.name == name
        assert all((row.cause, row.kernel_sees, row.noticed_by, row.new_connections))
        assert set(row.excludes) <= FAULTS.keys()


def test_what_acts_once() -> None:
    assert {"reset", "hang_up", "evict_reset", "evict_reset_both", "evict_fin"} == ONCE


@pytest.mark.parametrize(
    ("name", "in_force"),
    [(name, other) for name, row in FAULTS.items() for other in row.excludes],
)
def test_faults_that_contradict(name: str, in_force: str) -> None:
    with pytest.raises(UsageError, match=f"{name} contradicts the {in_force} that is in") as caught:
        check_compatible(name, ["elsewhere", in_force])
    assert FAULTS[in_force].kernel_sees in caught.value.happened
    assert f"lift the {in_force} first" in caught.value.advice


@pytest.mark.parametrize("name", FAULTS)
def test_faults_that_go_together(name: str) -> None:
    check_compatible(name, [])
    compatible = [other for other in FAULTS if other not in FAULTS[name].excludes]
    assert compatible
    check_compatible(name, compatible)


def test_nothing_can_be_told_on_a_silent_link() -> None:
    """Where no segment passes, neither RST nor FIN nor an ACK can."""
    silent = {"silent_drop", "evict_drop", "evict_drop_inbound"}
    deaf = [name for name, row in FAULTS.items() if not silent <= set(row.excludes)]
    # A flow that was evicted says nothing about those who connect, and what waits for a
    # connection's own time can wait for that of a silent one.
    assert deaf == [name for name, row in FAULTS.items() if row.listener or row.per_flow]
    listeners = [name for name, row in FAULTS.items() if row.listener]
    assert all("silent_drop" in FAULTS[name].excludes for name in listeners)


Start = Callable[[Link], Fault]


@pytest.mark.parametrize(
    ("start", "body", "scheduled"),
    [
        pytest.param(
            lambda link: link.silent_drop(),
            {
                "type": "silent_drop",
                "attributes": {"when_idle": 0, "after": 0, "direction": "both"},
            },
            False,
            id="now",
        ),
        *(
            pytest.param(
                lambda link, direction=direction: link.silent_drop(direction=direction, after=1),
                {
                    "type": "silent_drop",
                    "attributes": {"when_idle": 0, "after": 1000, "direction": direction},
                },
                True,
                id=direction,
            )
            for direction in ("to_server", "to_client")
        ),
        *(
            pytest.param(
                lambda link, side=side: link.stop_reading(side=side),
                {"type": "stop_reading", "attributes": {"when_idle": 0, "after": 0, "side": side}},
                False,
                id=f"stop-reading-{side}",
            )
            for side in ("client", "server", "both")
        ),
        # Armed by nature: that it never hit is an error, as of a scheduled one.
        pytest.param(
            lambda link: link.lose_close(),
            {"type": "lose_close", "attributes": {"when_idle": 0, "after": 0}},
            True,
            id="lose-close",
        ),
        pytest.param(
            lambda link: link.put_behind(Middlebox(1.5, then="fin")),
            {
                "type": "middlebox",
                "attributes": {"idle_timeout": 1500, "then": "fin", "counts": "segments"},
            },
            False,
            id="middlebox",
        ),
        pytest.param(
            lambda link: link.put_behind(Middlebox.HAPROXY),
            {
                "type": "middlebox",
                "attributes": {"idle_timeout": HAPROXY_MS, "then": HAPROXY.then, "counts": "bytes"},
            },
            False,
            id="middlebox-that-is-a-proxy",
        ),
        pytest.param(
            lambda link: link.stall(when_idle=1.5),
            {"type": "stall", "attributes": {"when_idle": 1500, "after": 0}},
            True,
            id="when-idle",
        ),
        pytest.param(
            lambda link: link.reset(after=0.25),
            {
                "type": "reset",
                "attributes": {"when_idle": 0, "after": 250, "side": "both"},
            },
            True,
            id="after",
        ),
        pytest.param(
            lambda link: link.time_out(2),
            {"type": "time_out", "attributes": {"when_idle": 0, "timeout": 2000}},
            False,
            id="after-is-its-own",
        ),
        pytest.param(
            lambda link: link.time_out(2, when_idle=1),
            {"type": "time_out", "attributes": {"when_idle": 1000, "timeout": 2000}},
            True,
            id="its-own-and-scheduled",
        ),
        pytest.param(
            lambda link: link.evict(),
            {"type": "evict_reset", "attributes": {"when_idle": 0, "after": 0}},
            False,
            id="evict",
        ),
        *(
            pytest.param(
                lambda link, name=name: getattr(link, name)(side="server"),
                {"type": name, "attributes": {"when_idle": 0, "after": 0, "side": "server"}},
                False,
                id=f"{name}-side",
            )
            for name in ("reset", "hang_up")
        ),
        *(
            pytest.param(
                lambda link, then=then: link.evict(then=then, when_idle=1),
                {"type": f"evict_{then}", "attributes": {"when_idle": 1000, "after": 0}},
                True,
                id=f"evict-{then}",
            )
            for then in EVICTION_MODES
        ),
    ],
)
def test_what_the_engine_is_asked(
    link: Link, engine: RecordingEngine, start: Start, body: dict[str, Any], scheduled: bool
) -> None:
    fault = start(link)
    assert engine.toxics == [{"name": f"{body['type']}-1", **body}]
    assert (fault.name, fault.scheduled, fault.active) == (body["type"], scheduled, True)


@pytest.mark.parametrize("value", [0, -1, -0.5, float("nan")])
@pytest.mark.parametrize("schedule", ["when_idle", "after"])
@pytest.mark.parametrize("name", SCHEDULED)
def test_a_bad_schedule(
    link: Link, engine: RecordingEngine, name: str, schedule: str, value: float
) -> None:
    with pytest.raises(UsageError, match=f"{schedule}={value!r} is no time"):
        start_by_name(link, name, **{schedule: value})
    assert engine.toxics == []


@pytest.mark.parametrize("after", [0, -1, None])
def test_time_out_wants_its_time(link: Link, engine: RecordingEngine, after: Any) -> None:
    with pytest.raises(UsageError, match=r"after=.* is no time"):
        link.time_out(after)
    assert engine.toxics == []


@pytest.mark.parametrize("side", ["", "upstream", None])
@pytest.mark.parametrize("name", ["reset", "hang_up"])
def test_a_side_is_one_of_its_choices(
    link: Link, engine: RecordingEngine, name: str, side: Any
) -> None:
    with pytest.raises(UsageError, match="none of the choices") as caught:
        getattr(link, name)(side=side)
    assert caught.value.expected == 'side= one of "both", "client", "server"'
    assert engine.toxics == []


@pytest.mark.parametrize("direction", ["", "upstream", None, ["both"]])
def test_a_direction_is_one_of_its_choices(
    link: Link, engine: RecordingEngine, direction: Any
) -> None:
    with pytest.raises(UsageError, match="none of the choices") as caught:
        link.silent_drop(direction=direction)
    assert caught.value.expected == 'direction= one of "both", "to_server", "to_client"'
    assert engine.toxics == []


@pytest.mark.parametrize("side", ["", "upstream", None])
def test_who_is_not_read_is_one_of_its_choices(
    link: Link, engine: RecordingEngine, side: Any
) -> None:
    with pytest.raises(UsageError, match="none of the choices") as caught:
        link.stop_reading(side=side)
    assert caught.value.expected == 'side= one of "client", "server", "both"'
    assert engine.toxics == []


@pytest.mark.parametrize("box", [2.0, None, "AWS"])
def test_a_middlebox_is_one(link: Link, engine: RecordingEngine, box: Any) -> None:
    with pytest.raises(UsageError, match="needs a Middlebox") as caught:
        link.put_behind(box)
    assert type(box).__name__ in caught.value.happened
    assert engine.toxics == []


def test_the_modes_of_eviction_are_those_of_a_middlebox() -> None:
    assert tuple(EVICTIONS) == EVICTION_MODES


@pytest.mark.parametrize("then", ["", "RST", None, ["reset"]])
def test_evict_wants_one_of_its_choices(link: Link, engine: RecordingEngine, then: Any) -> None:
    with pytest.raises(UsageError, match="none of the choices") as caught:
        link.evict(then=then)
    assert f"then={then!r}" in caught.value.summary
    known = ", ".join(f'"{mode}"' for mode in EVICTION_MODES)
    assert caught.value.expected == f"then= one of {known}"
    assert engine.toxics == []


@pytest.mark.parametrize("name", SCHEDULED)
def test_two_schedules(link: Link, engine: RecordingEngine, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: when_idle= and after= together"):
        start_by_name(link, name, when_idle=1, after=1)
    assert engine.toxics == []


def test_a_contradiction_on_a_link(link: Link, engine: RecordingEngine) -> None:
    drop = link.silent_drop()
    with pytest.raises(UsageError, match="reset contradicts the silent_drop"):
        link.reset()
    assert len(engine.toxics) == 1
    drop.lift()
    assert link.reset().name == "reset"


def test_a_scheduled_fault_is_in_force_too(link: Link) -> None:
    link.silent_drop(when_idle=60)
    with pytest.raises(UsageError, match="silent_drop contradicts the silent_drop"):
        link.silent_drop()


def test_lifting_twice_does_nothing(link: Link, engine: RecordingEngine) -> None:
    fault = link.stall()
    with fault:
        fault.lift()
        fault.lift()
    removals = [path for method, path, _ in engine.calls if method == "DELETE"]
    assert removals == ["/proxies/link-1/toxics/stall-1"]
    assert not fault.active


def test_what_has_acted_once_cannot_be_lifted(link: Link, engine: RecordingEngine) -> None:
    fault = link.reset()
    engine.events = [{"seq": 1, "at": 1.0, "kind": "fault_hit", "toxic": "reset-1"}]
    assert not fault.active
    assert fault.hit_at == 1.0
    with pytest.raises(UsageError, match="the reset cannot be lifted") as caught:
        fault.lift()
    assert caught.value.expected == (
        'a fault that lasts: silent_drop, evict(then="drop"), evict(then="drop_inbound"), '
        "refuse_connections, ignore_connections, stall, time_out, stop_reading, lose_close, "
        "put_behind(Middlebox(idle_timeout=…, then=…))"
    )


def test_a_scheduled_fault_that_never_hit_fails_the_test(link: Link) -> None:
    link.stall(when_idle=60)
    with pytest.raises(UsageError, match="the scheduled stall never hit"):
        link.close()


def test_a_close_that_was_never_lost_fails_the_test(link: Link) -> None:
    link.lose_close()
    with pytest.raises(UsageError, match="the armed lose_close never hit") as caught:
        link.close()
    assert "no client closed its connection" in caught.value.happened


@pytest.mark.parametrize(
    ("start", "test_failed"),
    [
        pytest.param(lambda link: link.stall(when_idle=60), True, id="the-test-failed-anyway"),
        pytest.param(lambda link: link.stall(), False, id="not-scheduled"),
        pytest.param(lambda link: link.put_behind(Middlebox(60)), False, id="never-forgotten"),
        pytest.param(lambda link: link.stall(when_idle=60).lift(), False, id="called-off"),
    ],
)
def test_a_link_that_ends_without_news(
    link: Link, engine: RecordingEngine, start: Callable[[Link], object], test_failed: bool
) -> None:
    start(link)
    link.close(test_failed=test_failed)
    assert link.ended
    assert engine.calls[-1] == ("DELETE", "/proxies/link-1", None)


def test_a_link_that_has_ended(link: Link) -> None:
    link.close()
    with pytest.raises(UsageError, match="link-1 has ended"):
        link.stall()
    with pytest.raises(UsageError, match="make a link in each test"):
        _ = link.events


# --- targets -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "connection", "other", "theirs", "met"),
    [
        ("stall", 0, "silent_drop", 0, True),
        ("stall", 1, "silent_drop", 1, True),
        ("stall", 1, "silent_drop", 2, False),
        ("stall", 0, "silent_drop", 1, True),
        ("stall", 1, "silent_drop", 0, True),
        ("silent_drop", 1, "refuse_connections", 0, False),
        ("refuse_connections", 0, "silent_drop", 1, False),
        ("refuse_connections", 0, "silent_drop", 0, True),
    ],
)
def test_which_faults_meet(name: str, connection: int, other: str, theirs: int, met: bool) -> None:
    assert meeting(name, connection, [(other, theirs)]) == ([other] if met else [])


def opened(engine: RecordingEngine, *numbers: int) -> None:
    engine.connections = [
        {
            "connection": number,
            "client": ["127.0.0.1", 1000 + number],
            "opened_at": 1.0,
            "connected_at": 1.0,
            "first_byte_upstream_at": None,
            "first_byte_downstream_at": None,
            "last_byte_at": 1.0,
            "bytes_upstream": 0,
            "bytes_downstream": 0,
            "probes": 0,
            "faults": [],
            "closed": None,
        }
        for number in numbers
    ]


def test_a_connections_faults_and_toxics_name_it(link: Link, engine: RecordingEngine) -> None:
    opened(engine, 1, 2)
    connection = link.connections[1]
    fault = connection.reset(side="client", after_bytes=7)
    toxic = connection.latency(5)
    assert [body["attributes"] for body in engine.toxics] == [
        {"when_idle": 0, "side": "client", "after": 0, "after_bytes": 7, "connection": 2},
        {"latency": 5, "jitter": 0, "connection": 2},
    ]
    assert (fault.connection, fault.scheduled) == (2, True)
    assert repr(fault) == "<Fault reset on connection 2 of link-1>"
    assert toxic.name == "latency"


def test_a_fault_is_in_force_for_as_long_as_its_connection_is_open(
    link: Link, engine: RecordingEngine
) -> None:
    opened(engine, 1, 2)
    first = link.connections[0].silent_drop()
    link.connections[1].silent_drop()
    with pytest.raises(UsageError, match="stall contradicts the silent_drop"):
        link.stall()
    opened(engine)
    assert not first.active
    link.stall()


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "7"])
@pytest.mark.parametrize("name", [name for name, row in FAULTS.items() if not row.standing])
def test_a_bad_number_of_bytes(link: Link, engine: RecordingEngine, name: str, value: Any) -> None:
    arguments = {"after": 1} if FAULTS[name].after_is_its_own else {}
    with pytest.raises(UsageError, match=f"after_bytes={value!r} is no number of bytes") as caught:
        start_by_name(link, name, after_bytes=value, **arguments)
    assert caught.value.expected == "after_bytes as a whole number of at least 1"
    assert engine.toxics == []


@pytest.mark.parametrize("other", ["when_idle", "after"])
def test_bytes_and_another_schedule(link: Link, engine: RecordingEngine, other: str) -> None:
    with pytest.raises(UsageError, match=f"stall: {other}= and after_bytes= together"):
        start_by_name(link, "stall", after_bytes=1, **{other: 1})
    assert engine.toxics == []


def test_a_link_that_is_not_enabled(engine: RecordingEngine) -> None:
    link = Link(
        cast(Engine, engine),
        "link-1",
        Upstream("localhost", 80),
        Settings(),
        "127.0.0.1",
        enabled=False,
    )
    assert engine.calls[0][2]["enabled"] is False
    assert engine.calls[0][2]["keep_port"] is True
    pass_by = [name for name, row in FAULTS.items() if row.new_connections == "pass"]
    assert {"reset", "hang_up", "evict_drop"} <= set(pass_by)
    for name in pass_by:
        with pytest.raises(UsageError, match=f"{name} on a link that is not enabled"):
            start_by_name(link, name)
        start_by_name(link, name, after_bytes=1).lift()
    link.stall()
    link.enable()
    assert engine.calls[-1] == ("PATCH", "/proxies/link-1", {"enabled": True})
    link.reset()
    link.disable()
    assert engine.calls[-1][2] == {"enabled": False, "keep_port": True}


# --- waiting -----------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True])
def test_a_bad_timeout(link: Link, timeout: Any) -> None:
    waits: tuple[Callable[[], object], ...] = (
        lambda: link.wait_for("closed", timeout),
        lambda: link.wait_for_connection(timeout=timeout),
    )
    for wait in waits:
        with pytest.raises(UsageError, match="is no time") as caught:
            wait()
        assert caught.value.expected == "timeout in seconds, at least 0"


@pytest.mark.parametrize("n", [0, -1, 1.0, True])
def test_a_bad_number_of_connections(link: Link, n: Any) -> None:
    with pytest.raises(UsageError, match="is no number of connections"):
        link.wait_for_connection(n)


def test_a_kind_that_there_is_not(link: Link) -> None:
    with pytest.raises(UsageError, match="'close' is no kind of event") as caught:
        link.wait_for("close")
    assert "opened" in caught.value.expected
    assert "closed" in caught.value.expected


def test_a_wait_names_its_predicate_and_has_the_setting_for_its_limit(
    link: Link, engine: RecordingEngine
) -> None:
    def is_a_surprise(event: Event) -> bool:
        return False

    engine.events = [{"seq": 1, "at": 1.0, "kind": "connected", "connection": 1}]
    link.settings = Settings(hit_timeout=0.01)
    with pytest.raises(UsageError, match=r"no event is_a_surprise on link-1 in 0.01 s") as caught:
        link.wait_for(is_a_surprise)
    assert "connection 1: upstream answered" in caught.value.happened
