"""A fault of a matrix: a name with parameters, checked before anything is started.

Owns the public :class:`MatrixFault`, and what a name, or a middlebox, stands for there. How a
fault is carried out is the link's.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.evidence.verdict import NOTHING_TO_NOTICE
from pytest_tcpresilience.fault import byte_count, seconds
from pytest_tcpresilience.fault_methods import LinkFaults
from pytest_tcpresilience.faults import EVICTIONS, FAULTS
from pytest_tcpresilience.matrix.client import check_name
from pytest_tcpresilience.register import check_schedule
from pytest_tcpresilience.tcp.middleboxes import Middlebox
from pytest_tcpresilience.tcp.provenance import unknown_name

if TYPE_CHECKING:
    from pytest_tcpresilience.expectations.block import Promise
    from pytest_tcpresilience.matrix.client import Activity

# A box that remembers for longer is not waited for: its cells begin with what it does then.
LONGEST_MEMORY_S = 10.0


class MatrixFault:
    """One column of a matrix: ``MatrixFault("evict", then="reset")``.

    A plain name, ``"silent_drop"``, stands for the fault without parameters, and so does a
    :class:`Middlebox` for itself. A box that remembers an idle flow for longer than 10 s is
    not waited for: the cell begins at the moment when it has forgotten, with
    ``evict(then=box.then)``. Whether a client's keepalive is faster than such a box is a
    question to :func:`assert_keepalive`, which needs no waiting.

    :param fault: a fault of a link, or a middlebox.
    :param label: how reports, records and selections call it.
    :param within: when a client must notice this fault, as for :class:`detects_break`; a
        client's own by default.
    :param activity: what clients do when it hits; the matrix's own by default.
    :param parameters: of the link's method of that name.
    :raises UsageError: for a name or a parameter that there is not, and for a fault that no
        client can notice.
    """

    def __init__(
        self,
        fault: str | Middlebox,
        *,
        label: str | None = None,
        within: Promise | None = None,
        activity: Activity | None = None,
        **parameters: Any,
    ) -> None:
        self.within = within
        self.activity = activity
        method, arguments = _call_of(fault, parameters)
        rehearsal = _rehearse(method, arguments)
        #: As in the table of faults.
        self.name = rehearsal.name
        self.label = rehearsal.label if label is None else label
        if isinstance(fault, Middlebox) and label is None:
            self.label = fault.name
        check_name("MatrixFault", self.label)
        self._method = method
        self._arguments = arguments
        if self.name in NOTHING_TO_NOTICE:
            raise UsageError(
                f"there is nothing in a {self.name} that a client could notice",
                expected="a fault that clients can notice",
                happened=FAULTS[self.name].kernel_sees,
                advice="test it in a test of its own, on the server's side",
            )

    def strike(self, link: LinkFaults[Any]) -> None:
        getattr(link, self._method)(**self._arguments)

    def __repr__(self) -> str:
        return f"<MatrixFault {self.label!r}>"


def fault_of(given: object) -> MatrixFault:
    """What stands in ``faults=``.

    :raises UsageError: for anything else than a name, a :class:`MatrixFault` or a middlebox.
    """
    if isinstance(given, MatrixFault):
        return given
    if isinstance(given, (str, Middlebox)):
        return MatrixFault(given)
    raise UsageError(
        f"tcp_matrix: {given!r} is no fault",
        expected='a name such as "silent_drop", MatrixFault("evict", then="drop"), or a Middlebox',
        happened=f"got a {type(given).__name__}",
        advice="faults with parameters are written as MatrixFault(name, parameter=value)",
    )


def _call_of(fault: object, parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method of a link, and its arguments."""
    if isinstance(fault, Middlebox):
        if parameters:
            raise UsageError(
                f"MatrixFault({fault.name}): a middlebox takes no {', '.join(parameters)}",
                expected="a Middlebox that says all",
                happened="got " + ", ".join(f"{key}={val!r}" for key, val in parameters.items()),
                advice="use Middlebox(idle_timeout=…, then=…), or .scaled()",
            )
        if fault.idle_timeout <= LONGEST_MEMORY_S:
            return "put_behind", {"middlebox": fault}
        return "evict", {"then": fault.then}
    methods = {row.method for row in FAULTS.values() if not row.standing}
    # A row of the table is a name, too: "evict_drop" for evict(then="drop").
    for then, name in EVICTIONS.items():
        if fault == name and "then" not in parameters:
            return "evict", {"then": then, **parameters}
    if fault not in methods:
        raise unknown_name("fault", fault, sorted({*methods, *EVICTIONS.values()}))
    assert isinstance(fault, str)
    known = list(inspect.signature(getattr(LinkFaults, fault)).parameters)[1:]
    for parameter in parameters:
        if parameter not in known:
            raise unknown_name(f"parameter of {fault}", parameter, known)
    return fault, parameters


class _Rehearsal(LinkFaults[None]):
    """Takes the place of a link, to learn what a call comes to, and that it makes sense."""

    name = ""
    label = ""

    def _start(self, name: str, **given: Any) -> None:
        schedule = {
            key: given[key] for key in ("when_idle", "after", "after_bytes") if given.get(key)
        }
        check_schedule(name, schedule)
        for key in ("when_idle", "after"):
            seconds(key, given.get(key))
        if given.get("after_bytes") is not None:
            byte_count("after_bytes", given["after_bytes"])
        words = {k: v for k, v in dict(given.get("words") or {}).items() if v not in ("both",)}
        if name == "stop_reading" and words.get("side") == "client":
            del words["side"]
        shown = {**words, **schedule}
        if given.get("timeout_ms") is not None:
            shown["after"] = given["timeout_ms"] / 1000
        said = ", ".join(
            f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in shown.items()
        )
        self.name = name
        self.label = f"{name}({said})" if said else name

    def _put_behind(self, middlebox: Middlebox) -> None:
        self.name, self.label = "middlebox", middlebox.name


def _rehearse(method: str, arguments: dict[str, Any]) -> _Rehearsal:
    rehearsal = _Rehearsal()
    try:
        getattr(rehearsal, method)(**arguments)
    except TypeError as error:  # one that has to be given is missing
        raise UsageError(
            f"MatrixFault({method!r}) cannot be called so",
            expected=f"{method}{inspect.signature(getattr(LinkFaults, method))}",
            happened=str(error),
            advice=f"give what is missing: MatrixFault({method!r}, …)",
        ) from error
    return rehearsal
