"""What is heard of the tests that run in one place: in this process, or in workers.

Owns the records and the state of each test, and what it means when a test begins again, or
when the last word about it is that its worker died. Where reports come from, and how many
places there are, is :mod:`.collecting`'s.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.records.record import Record
from pytest_tcpresilience.report.document import State
from pytest_tcpresilience.report.taking import ATTRIBUTE


@dataclass
class Heard:
    """:param names: of the tests that were chosen, by what pytest-xdist calls them.

    :param problems: what could not be understood.
    """

    names: dict[str, str] = field(default_factory=dict)
    deselected: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    _records: dict[str, list[Record]] = field(default_factory=dict)
    _left_out: dict[str, list[str]] = field(default_factory=dict)
    _states: dict[str, State] = field(default_factory=dict)
    # Of these tests every report has come.
    _complete: set[str] = field(default_factory=set)

    def take(self, report: pytest.TestReport, *, has_begun: bool) -> None:
        """:param has_begun: whether anything was heard of the test's beginning."""
        test = report.nodeid
        if report.when == "setup":  # it begins, or begins again
            self._records.pop(test, None)
            self._left_out.pop(test, None)
            self._complete.discard(test)
        state = self._state_of(report, has_begun)
        if state is not None:  # subtests come first, and their test has the last word
            self._states[test] = state
        if report.when == "teardown":
            self._complete.add(test)
        luggage = getattr(report, ATTRIBUTE, None)
        if luggage is not None:
            self._unpack(test, luggage)

    def _state_of(self, report: pytest.TestReport, has_begun: bool) -> State | None:
        if report.when in ("setup", "call", "teardown"):
            return _state_of(report)
        # pytest-xdist speaks for a worker that died, and blames the first test whose end it
        # was not told of: perhaps one that was over, or one that had yet to begin.
        if report.nodeid in self._complete:
            return None
        return State.CRASHED if has_begun else State.NOT_REACHED

    def _unpack(self, test: str, luggage: str) -> None:
        try:
            document = json.loads(luggage)
            records = [Record.from_json(each) for each in document["records"]]
            left_out = [str(each) for each in document["deselected"]]
        except (ValueError, KeyError, TypeError, UsageError) as error:
            self.problems.append(f"the records of {test} could not be read: {error}")
            return
        self._records.setdefault(test, []).extend(records)
        self._left_out.setdefault(test, []).extend(left_out)

    @property
    def records(self) -> list[Record]:
        return [record for found in self._records.values() for record in found]

    @property
    def left_out(self) -> tuple[str, ...]:
        """Keys of entries that were left out by choice."""
        return tuple(sorted({key for keys in self._left_out.values() for key in keys}))

    @property
    def states(self) -> dict[str, State]:
        """Of every test, by its own name."""
        chosen = set(self.names.values())
        states = dict.fromkeys(chosen, State.NOT_REACHED)
        states |= dict.fromkeys(self.deselected - chosen, State.DESELECTED)
        return states | {self.names.get(test, test): each for test, each in self._states.items()}


def _state_of(report: pytest.TestReport) -> State | None:
    if report.when == "teardown":
        return None
    # A test that is expected to fail is reported as skipped, and has run.
    if report.skipped and not hasattr(report, "wasxfail"):
        return State.SKIPPED
    # A setup that passed says nothing: the test may never begin.
    return None if report.when == "setup" and report.passed else State.RAN
