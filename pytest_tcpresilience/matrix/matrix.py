"""The fixture's object: plan, run, and report each cell in a subtest of its own.

Owns :class:`Matrix` and what it returns. The cells have all ended when the first of them is
reported, so that nothing of what pytest does with a failure disturbs a wait.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tcpresilience.errors import ResilienceError, UsageError
from pytest_tcpresilience.expectations import loops
from pytest_tcpresilience.matrix import progress, verdicts
from pytest_tcpresilience.matrix.cell import CellRun
from pytest_tcpresilience.matrix.plan import Plan, make_plan
from pytest_tcpresilience.matrix.running import Limits, Runs, longest_wait
from pytest_tcpresilience.matrix.selection import Selection

if TYPE_CHECKING:
    from pytest_tcpresilience.expectations.block import Raises
    from pytest_tcpresilience.expectations.detection import Detection
    from pytest_tcpresilience.fixtures import LinkFactory
    from pytest_tcpresilience.matrix.client import Activity, Client
    from pytest_tcpresilience.matrix.faults import MatrixFault
    from pytest_tcpresilience.matrix.plan import PromiseOf
    from pytest_tcpresilience.records.journal import Journal
    from pytest_tcpresilience.tcp.middleboxes import Middlebox
    from pytest_tcpresilience.upstream import UpstreamLike


@dataclass(frozen=True)
class CellResult:
    """What became of one cell.

    :param client: the client's name. :param fault: the fault's, as the report shows it.
    :param activity: what the client was doing when the fault hit.
    :param error: what its subtest has raised; ``None`` for a cell that passed.
    """

    client: str
    fault: str
    activity: str
    error: Exception | None
    _detection: Detection | None = field(repr=False)

    @property
    def passed(self) -> bool:
        """Whether the cell did as it was to do: noticed, or was one that never notices."""
        return self.error is None

    @property
    def noticed(self) -> bool:
        """Whether the client noticed as promised, so that there is a detection."""
        return self._detection is not None

    @property
    def detection(self) -> Detection:
        """How it noticed: what :class:`detects_break` yields.

        :raises UsageError: when it did not, was not to, or not as promised.
        """
        if self._detection is None:
            raise UsageError(
                f"there is no detection of {self.client} × {self.fault}",
                expected="a cell whose client has noticed as promised",
                happened=str(self.error) if self.error else "it is one that never notices",
                advice="ask for .noticed first",
            )
        return self._detection


class MatrixResult:
    """The cells that ran: ``result["psycopg", "stall"].passed``."""

    def __init__(self, cells: Iterable[CellResult]) -> None:
        self.cells = tuple(cells)

    def __getitem__(self, cell: tuple[str, str]) -> CellResult:
        """:raises KeyError: for a cell that there is not, or that did not run."""
        for each in self.cells:
            if (each.client, each.fault) == cell:
                return each
        raise KeyError(cell)

    def __iter__(self) -> Iterator[CellResult]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)


class Matrix:
    """What the ``tcp_matrix`` fixture is: call it with an upstream, clients and faults.

    :param terminal: gives a descriptor for the progress, or ``None``.
    """

    def __init__(
        self,
        link: LinkFactory,
        subtests: pytest.Subtests,
        journal: Journal,
        selection: Selection | None,
        terminal: Callable[[], int | None],
    ) -> None:
        self._link = link
        self._subtests = subtests
        self._journal = journal
        self._selection = selection
        self._terminal = terminal

    def __call__(
        self,
        upstream: UpstreamLike,
        *,
        clients: Iterable[Client[Any]],
        faults: Iterable[str | MatrixFault | Middlebox],
        within: PromiseOf | None = None,
        activity: Activity = "read",
        unaware: str | Sequence[str] = (),
        raises: Raises = Exception,
        every: float = 0.05,
        setup_within: float = 10.0,
        close_within: float = 5.0,
    ) -> MatrixResult:
        """Each client meets each fault, all at once; each cell is a subtest.

        A cell connects on a link of its own, warms up, waits for the others, meets its
        fault, and repeats its activity until that raises, as in :class:`detects_break`.

        :param upstream: as for ``tcp_link``.
        :param clients: the rows. :param faults: the columns: names, :class:`MatrixFault`
            with parameters, or middleboxes.
        :param within: when a client must notice, as for :class:`detects_break`, or a
            function that says so for the names of a client and a fault. What a fault has
            of its own is nearer, and then what a client has; a function's answer is the
            nearest.
        :param activity: what clients do when the fault hits: ``"read"``, ``"write"``,
            ``"checkout"``, ``"wait"`` or ``"connect"``.
        :param unaware: selections of cells, as for ``--resilience-cells``, whose clients
            never notice within their windows. Such a cell passes as long as that is so.
        :param raises: as for :class:`detects_break`.
        :param every: seconds between one activity and the next.
        :param setup_within: seconds in which each client must have connected and warmed up.
        :param close_within: seconds in which it must have closed.
        :raises UsageError: before anything starts, for what makes no sense, and for a matrix
            without cells.
        """
        __tracebackhide__ = True
        limits = Limits(_time("setup_within", setup_within), _time("close_within", close_within))
        _time("every", every)
        if loops.in_event_loop():
            raise UsageError(
                "tcp_matrix would block the event loop of this test",
                expected="a plain test function; asynchronous clients get loops of their own",
                happened="it was called in a running asyncio or trio task",
                advice="write def in place of async def",
            )
        plan = make_plan(
            clients,
            faults,
            within=within,
            activity=activity,
            unaware=unaware,
            raises=raises,
            selection=self._selection,
        )
        self._tell_deselected(plan)
        runs = Runs(limits, every)
        for cell in plan.cells:
            runs.add(cell, self._link(upstream))
        self._wait(runs)
        return MatrixResult(self._report(runs, sys._getframe(1)))

    def _tell_deselected(self, plan: Plan) -> None:
        __tracebackhide__ = True
        for cell in plan.deselected:
            self._journal.leave_out(cell.name)
        if plan.deselected:
            cells = len(plan.cells) + len(plan.deselected)
            text = f"{len(plan.deselected)} of {cells} cells are deselected by {self._selection}"
            if not plan.cells:
                pytest.skip(f"tcp_matrix: {text}")
            print(f"tcp_matrix: {text}: " + ", ".join(cell.name for cell in plan.deselected))

    def _wait(self, runs: Runs) -> None:
        # There is time now, while the clients wait, for what the records need.
        runs.when_begun(self._journal.prepare)
        with progress.Progress(self._terminal()) as shown:

            def show(left: Sequence[CellRun]) -> None:
                wait_s = longest_wait(left, time.monotonic())
                cells = len(runs.runs)
                shown.show(progress.line(cells - len(left), cells, wait_s))

            try:
                runs.run(show)
            except BaseException:
                runs.leave()
                raise

    # --- reports -------------------------------------------------------------------------

    def _report(self, runs: Runs, test: FrameType) -> list[CellResult]:
        __tracebackhide__ = True
        at = TracebackType(None, test, test.f_lasti, test.f_lineno)
        results: list[CellResult] = []
        for number, run in enumerate(runs.runs):
            try:
                with self._subtests.test(run.cell.name):
                    self._settle(runs, run, results, at)
            except BaseException:
                # With -x nothing more is reported; what the others have come to is kept.
                for other in runs.runs[number + 1 :]:
                    self._judge(runs, other)
                raise
        return results

    def _settle(
        self, runs: Runs, run: CellRun, results: list[CellResult], at: TracebackType
    ) -> None:
        __tracebackhide__ = True
        problem = self._judge(runs, run)
        cell = run.cell
        results.append(
            CellResult(cell.client.name, cell.fault.label, cell.activity, problem, run.detection)
        )
        if problem is not None:
            # Shown are the test's own line, and where the client was; not how we came there.
            if problem.__cause__ is not None:
                cause = problem.__cause__
                problem.__cause__ = cause.with_traceback(_without_ours(cause.__traceback__))
            problem.__context__ = None
            raise problem.with_traceback(at)

    def _judge(self, runs: Runs, run: CellRun) -> Exception | None:
        """What is wrong with the cell, and its record in the journal of the test."""
        hang = runs.hang_of(run)
        problem: Exception | None = verdicts.failure(run.cell, run.error, run.failed_in, hang)
        if run in runs.hangs:
            # Nobody else is going to close it, and it has nothing to add.
            with contextlib.suppress(ResilienceError):
                run.link.close(test_failed=True)
        self._journal.keep(verdicts.record_of(run, problem, hang))
        return problem


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """From the first frame on that is the client's or the test's."""
    found = trace
    while found is not None:
        name = str(found.tb_frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in ("pytest_tcpresilience", "asyncio", "trio"):
            return found
        found = found.tb_next
    return trace


def _time(name: str, value: object) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:  # type: ignore[arg-type, operator]
        raise UsageError(
            f"tcp_matrix: {name}={value!r} is no time",
            expected=f"{name} in seconds, greater than 0",
            happened=f"got {value!r}",
            advice="leave it out for the default",
        )
    return float(value)  # type: ignore[arg-type]


def terminal_of(config: pytest.Config) -> int | None:
    """A descriptor of pytest's terminal for the progress; ``None`` where none is wanted.

    Not in a worker of pytest-xdist, not with -q, and not where there is no terminal.
    """
    if hasattr(config, "workerinput") or config.get_verbosity() < 0:
        return None
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    if reporter is None or not reporter.isatty or capture is None:
        return None
    # While the output is captured, the terminal is out of reach. Once it is there, a second
    # descriptor for it stays.
    with capture.global_and_fixture_disabled():
        try:
            shown = os.dup(1)
        except OSError:
            return None
    if progress.can_show(shown, os.environ):
        return shown
    os.close(shown)
    return None
