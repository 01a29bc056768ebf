"""What a matrix comes to before anything starts: its cells, their promises, and mistakes."""

from __future__ import annotations

import functools
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from pytest_tcpresilience import Client, Keepalive, Link, MatrixFault, Middlebox, UsageError
from pytest_tcpresilience.evidence.verdict import NOTHING_TO_NOTICE
from pytest_tcpresilience.faults import FAULTS
from pytest_tcpresilience.matrix.plan import Plan, make_plan
from pytest_tcpresilience.matrix.selection import Selection
from pytest_tcpresilience.tcp.middleboxes import MIDDLEBOXES

KEEPALIVE = Keepalive(1, 1, 1)


def connect(link: Link) -> socket.socket:
    raise AssertionError("nothing is started")


async def connect_later(link: Link) -> socket.socket:
    raise AssertionError("nothing is started")


def use(sock: socket.socket) -> None:
    raise AssertionError("nothing is started")


class Later:
    async def __call__(self, sock: socket.socket) -> None:
        raise AssertionError("nothing is started")


ONE, TWO = Client("one", connect, read=use), Client("two", connect, read=use, within=2.0)


def plan(clients: Any = (ONE, TWO), faults: Any = ("silent_drop", "stall"), **given: Any) -> Plan:
    defaults: dict[str, Any] = {
        "within": 1.0,
        "activity": "read",
        "unaware": (),
        "raises": Exception,
        "selection": None,
    }
    return make_plan(clients, faults, **{**defaults, **given})


def test_the_cells_are_in_the_order_of_clients_and_faults() -> None:
    assert [cell.name for cell in plan().cells] == [
        "one × silent_drop",
        "one × stall",
        "two × silent_drop",
        "two × stall",
    ]


def test_the_nearest_promise_counts() -> None:
    faults = ["silent_drop", MatrixFault("reset", within=3.0)]
    assert [cell.within for cell in plan(faults=faults).cells] == [1.0, 3.0, 2.0, 3.0]

    def within(client: str, fault: str) -> float | None:
        return {"two × reset": 4.0}.get(f"{client} × {fault}")

    with pytest.raises(UsageError, match="nothing is promised for one × silent_drop"):
        plan(faults=faults, within=within)
    assert plan([TWO], faults, within=within).cells[1].within == 4.0


def test_selected_and_deselected() -> None:
    found = plan(selection=Selection("two and stall", "--resilience-cells"))
    assert [cell.name for cell in found.cells] == ["two × stall"]
    assert len(found.deselected) == 3


def test_the_unaware_are_marked() -> None:
    found = plan(unaware="stall and not two")
    assert [cell.name for cell in found.cells if cell.unaware] == ["one × stall"]


# --- faults -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "name", "label"),
    [
        (MatrixFault("evict"), "evict_reset", "evict_reset"),
        (MatrixFault("evict", then="drop"), "evict_drop", "evict_drop"),
        (MatrixFault("evict_fin"), "evict_fin", "evict_fin"),
        (MatrixFault("evict_drop", when_idle=1), "evict_drop", "evict_drop(when_idle=1)"),
        (MatrixFault("time_out", after=0.5), "time_out", "time_out(after=0.5)"),
        (
            MatrixFault("silent_drop", direction="to_server"),
            "silent_drop",
            "silent_drop(direction=to_server)",
        ),
        (MatrixFault("stop_reading"), "stop_reading", "stop_reading"),
        (MatrixFault("reset", label="a crash"), "reset", "a crash"),
        (MatrixFault(Middlebox.AWS_NLB), "evict_reset", "AWS NLB"),
        (MatrixFault(Middlebox(9, "drop", "box")), "middlebox", "box"),
    ],
)
def test_a_fault_and_its_label(fault: MatrixFault, name: str, label: str) -> None:
    assert (fault.name, fault.label) == (name, label)


@pytest.mark.parametrize("name", [name for name, row in FAULTS.items() if not row.standing])
def test_each_fault_of_the_table_can_be_named(name: str) -> None:
    if name in NOTHING_TO_NOTICE:
        with pytest.raises(UsageError, match=f"nothing in a {name} that a client could notice"):
            MatrixFault(name)
        return
    given: dict[str, Any] = {"after": 1.0} if FAULTS[name].after_is_its_own else {}
    assert MatrixFault(name, **given).name == name


def test_each_middlebox_is_a_fault() -> None:
    for box in MIDDLEBOXES.values():
        fault = MatrixFault(box)
        assert fault.label == box.name
        # None of them is waited for.
        assert fault.name == f"evict_{box.then}"


# --- clients ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "runner"),
    [
        (ONE, "thread"),
        (Client("a", connect_later, read=use), "asyncio"),
        (Client("a", connect, read=Later()), "asyncio"),
        (Client("a", functools.partial(connect_later), read=use), "asyncio"),
        (Client("a", connect_later, read=use, runner="trio"), "trio"),
        (Client("a", connect, read=use, runner="asyncio"), "asyncio"),
    ],
)
def test_who_runs_a_client(client: Client[Any], runner: str) -> None:
    assert client.runner == runner


def test_how_a_client_warms_up() -> None:
    def prove(sock: socket.socket) -> None: ...

    def listen(sock: socket.socket) -> None: ...

    both = Client("a", connect, read=use, write=prove, wait=listen)
    assert both.warm_up_for("read") == ("read", use)
    assert both.warm_up_for("write") == ("write", prove)
    assert both.warm_up_for("wait") == ("read", use)
    assert both.warm_up_for("connect") == ("read", use)
    assert Client("a", connect, wait=listen).warm_up_for("wait") is None
    own = Client("a", connect, read=use, warm_up=prove)
    assert own.warm_up_for("read") == ("warm_up", prove)


# --- mistakes -----------------------------------------------------------------------------

MISTAKES: Mapping[str, tuple[dict[str, Any], str]] = {
    "no-clients": ({"clients": []}, "there are no clients, so there are no cells"),
    "no-faults": ({"faults": ()}, "there are no faults, so there are no cells"),
    "faults-no-list": ({"faults": "stall"}, "faults='stall' is no list"),
    "clients-no-list": ({"clients": ONE}, "is no list"),
    "no-client": ({"clients": ["psycopg"]}, "'psycopg' is no Client"),
    "same-clients": (
        {"clients": [ONE, Client("one", connect, read=use)]},
        "two of its clients are called 'one'",
    ),
    "same-faults": (
        {"faults": ["stall", MatrixFault("reset", label="stall")]},
        r"two of its faults are called 'stall'(.|\n)*label=",
    ),
    "no-fault": ({"faults": [3]}, "3 is no fault"),
    "unknown-fault": ({"faults": ["silent-dorp"]}, "did you mean 'silent_drop'"),
    "no-such-activity": ({"activity": "raed"}, "did you mean 'read'"),
    "lacks-activity": ({"activity": "checkout"}, "client 'one' has no checkout, which silent_drop"),
    "listener": (
        {"faults": ["refuse_connections"]},
        "a client that does read does not meet refuse_connections",
    ),
    "no-promise": ({"within": None}, "nothing is promised for one × silent_drop"),
    "bad-promise": ({"within": -1}, "within=-1 is no window"),
    "bad-raises": ({"raises": "OSError"}, "raises='OSError' is no exception type"),
    "unaware-of-none": ({"unaware": ["stal1"]}, "unaware= 'stal1' takes no cell"),
    "unaware-unreadable": ({"unaware": "stall and"}, "unaware=: 'stall and' cannot be read"),
    "unaware-no-list": ({"unaware": 3}, "unaware=3 names no cells"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_makes_no_sense(mistake: str) -> None:
    given, match = MISTAKES[mistake]
    with pytest.raises(UsageError, match=match):
        plan(**given)


@pytest.mark.parametrize(
    ("fault", "given", "match"),
    [
        ("evict", {"than": "drop"}, "did you mean 'then'"),
        ("evict", {"then": "explode"}, "then='explode' is none of the choices"),
        ("silent_drop", {"after": -1}, "after=-1 is no time"),
        ("silent_drop", {"after_bytes": 1.5}, "after_bytes=1.5 is no number of bytes"),
        ("silent_drop", {"after": 1, "when_idle": 1}, "when_idle= and after= together"),
        ("time_out", {}, "cannot be called so(.|\n)*missing 1 required(.|\n)*'after'"),
        ("put_behind", {}, "fault='put_behind' is not known"),
        ("lose_close", {}, "nothing in a lose_close that a client could notice"),
        (Middlebox.AWS_NLB, {"then": "drop"}, "a middlebox takes no then"),
        ("reset", {"label": "two\nlines"}, "is no name"),
    ],
)
def test_a_fault_that_makes_no_sense(fault: Any, given: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        MatrixFault(fault, **given)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"name": ""}, "'' is no name"),
        ({"name": "two\nlines"}, "is no name"),
        ({"connect": "localhost"}, "connect='localhost' is no function"),
        ({"read": 3}, "read=3 is no function"),
        ({"runner": "gevent"}, "runner='gevent' is none of the choices"),
    ],
)
def test_a_client_that_makes_no_sense(given: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Client(**{"name": "a", "connect": connect, **given})


def test_who_connects_meets_the_listener() -> None:
    fault = MatrixFault("refuse_connections", activity="connect")
    assert [cell.activity for cell in plan([ONE], [fault, "stall"]).cells] == ["connect", "read"]
