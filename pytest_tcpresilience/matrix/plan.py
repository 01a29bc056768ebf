"""Which cells a matrix has, and what is promised in each: decided before anything starts.

Owns :class:`Cell` and the checks of what a test asks for. Pure: it neither connects nor waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.expectations.block import exception_types
from pytest_tcpresilience.faults import FAULTS
from pytest_tcpresilience.matrix.client import ACTIVITIES, Client
from pytest_tcpresilience.matrix.faults import MatrixFault, fault_of
from pytest_tcpresilience.matrix.selection import Selection
from pytest_tcpresilience.tcp.provenance import unknown_name
from pytest_tcpresilience.tcp.windows import Window
from pytest_tcpresilience.tcp.windows import within as window_of

if TYPE_CHECKING:
    from pytest_tcpresilience.expectations.block import Promise, Raises

    PromiseOf = Promise | Callable[[str, str], Promise | None]

# A fault of the listener is met by who connects; connections that exist go on.
MEET_LISTENER = ("connect", "checkout")


@dataclass(frozen=True)
class Cell:
    """One client and one fault.

    :param within: what is promised. :param unaware: that the client never notices in it.
    """

    client: Client[Any]
    fault: MatrixFault
    activity: str
    within: Promise
    raises: Raises = Exception
    unaware: bool = False

    @property
    def name(self) -> str:
        return f"{self.client.name} × {self.fault.label}"

    @property
    def window(self) -> Window:
        return window_of(self.within)


@dataclass(frozen=True)
class Plan:
    """The cells that run, in the order of clients and then of faults, and those that do not."""

    cells: tuple[Cell, ...]
    deselected: tuple[Cell, ...] = ()


def make_plan(
    clients: Iterable[Client[Any]],
    faults: Iterable[object],
    *,
    within: PromiseOf | None,
    activity: str,
    unaware: str | Sequence[str],
    raises: Raises,
    selection: Selection | None,
) -> Plan:
    """All cells of the table.

    :param selection: of those that run; ``None`` for all.
    :raises UsageError: for anything that makes no sense.
    """
    rows = _clients(clients)
    columns = [fault_of(each) for each in _listed("faults", faults)]
    _check_unique("fault", [each.label for each in columns])
    patterns = _patterns(unaware)
    cells = [
        _cell(client, fault, within, activity, raises, patterns)
        for client in rows
        for fault in columns
    ]
    for pattern in patterns:
        if not any(cell.name in pattern for cell in cells):
            raise UsageError(
                f"{pattern} takes no cell",
                expected="a part of the name of at least one cell",
                happened="the cells are " + ", ".join(cell.name for cell in cells),
                advice="correct it, or take it off the list",
            )
    chosen = [cell for cell in cells if selection is None or cell.name in selection]
    return Plan(tuple(chosen), tuple(cell for cell in cells if cell not in chosen))


def _listed(what: str, given: Iterable[object]) -> list[object]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise UsageError(
            f"tcp_matrix: {what}={given!r} is no list",
            expected=f"a list of {what}",
            happened=f"got a {type(given).__name__}",
            advice=f"write {what}=[…]",
        )
    found = list(given)
    if not found:
        raise UsageError(
            f"tcp_matrix: there are no {what}, so there are no cells",
            expected=f"at least one of {what}",
            happened=f"{what} is empty",
            advice="a matrix that tests nothing does not pass; leave the test out",
        )
    return found


def _clients(given: Iterable[object]) -> list[Client[Any]]:
    rows = []
    for each in _listed("clients", given):
        if not isinstance(each, Client):
            raise UsageError(
                f"tcp_matrix: {each!r} is no Client",
                expected="Client(name, connect=…, read=…)",
                happened=f"got a {type(each).__name__}",
                advice="wrap it in a Client",
            )
        rows.append(each)
    _check_unique("client", [client.name for client in rows])
    return rows


def _check_unique(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"tcp_matrix: two of its {what}s are called {name!r}",
                expected=f"a name of its own for each {what}: records are kept by them",
                happened=f"got {', '.join(map(repr, names))}",
                advice="name one of them otherwise"
                + (": MatrixFault(…, label=…)" if what == "fault" else ""),
            )


def _patterns(unaware: object) -> list[Selection]:
    given = [unaware] if isinstance(unaware, str) else unaware
    if not isinstance(given, Sequence) or not all(isinstance(each, str) for each in given):
        raise UsageError(
            f"tcp_matrix: unaware={unaware!r} names no cells",
            expected='a list of selections, such as ["keepalive and stall"]',
            happened=f"got {unaware!r}",
            advice="write parts of the names of clients and faults, with and, or, not",
        )
    return [Selection(each, "unaware=") for each in given]


def _cell(
    client: Client[Any],
    fault: MatrixFault,
    within: PromiseOf | None,
    activity: str,
    raises: Raises,
    unaware: Sequence[Selection],
) -> Cell:
    doing = fault.activity or activity
    name = f"{client.name} × {fault.label}"
    _check_activity(client, fault, doing)
    of_client = raises if client.raises is None else client.raises
    exception_types(of_client)
    promise = _promise(client, fault, within)
    window_of(promise)
    return Cell(client, fault, doing, promise, of_client, any(name in each for each in unaware))


def _check_activity(client: Client[Any], fault: MatrixFault, activity: object) -> None:
    if activity not in ACTIVITIES:
        raise unknown_name("activity", activity, ACTIVITIES)
    assert isinstance(activity, str)
    if activity != "connect" and activity not in client.activities:
        has = ", ".join(client.activities) or "none but connect"
        raise UsageError(
            f"client {client.name!r} has no {activity}, which {fault.label} is to find it doing",
            expected=f"Client({client.name!r}, …, {activity}=…): {ACTIVITIES[activity]}",
            happened=f"it has {has}",
            advice=f"give it {activity}=, or choose another activity=",
        )
    if FAULTS[fault.name].listener and activity not in MEET_LISTENER:
        raise UsageError(
            f"a client that does {activity} does not meet {fault.label}",
            expected=f"activity {' or '.join(map(repr, MEET_LISTENER))} for this fault",
            happened=f"{fault.name} acts on those who connect; connections that exist go on",
            advice=f'write MatrixFault("{fault.name}", activity="connect")',
        )


def _promise(client: Client[Any], fault: MatrixFault, within: PromiseOf | None) -> Promise:
    """The nearest one: the fault's, the client's, the matrix's."""
    of_matrix = within(client.name, fault.label) if callable(within) else within
    # A function has been asked about this very cell, so nothing is nearer.
    if callable(within) and of_matrix is not None:
        return of_matrix
    for each in (fault.within, client.within, of_matrix):
        if each is not None:
            return each
    raise UsageError(
        f"nothing is promised for {client.name} × {fault.label}",
        expected="within= for the matrix, its client or its fault",
        happened="there is none",
        advice="give the seconds in which a client must notice, or its Keepalive; cells in which "
        "it never does are listed in unaware=",
    )
