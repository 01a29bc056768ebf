"""The three families, their four parts, and their way between processes."""

from __future__ import annotations

import pickle

import pytest

from pytest_tcpresilience import errors
from pytest_tcpresilience.errors import (
    EngineDied,
    ExpectationFailed,
    FaultUnavailable,
    HarnessError,
    ResilienceError,
    UsageError,
)

FAMILIES = (UsageError, ExpectationFailed, HarnessError, EngineDied, FaultUnavailable)


@pytest.mark.parametrize(
    ("kind", "parents"),
    [
        (UsageError, (ResilienceError,)),
        (ExpectationFailed, (ResilienceError, AssertionError)),
        (HarnessError, (ResilienceError, RuntimeError)),
        (EngineDied, (HarnessError,)),
        (FaultUnavailable, (HarnessError,)),
    ],
)
def test_families(kind: type[ResilienceError], parents: tuple[type, ...]) -> None:
    assert issubclass(kind, parents[0])
    assert all(issubclass(kind, parent) for parent in parents)


def test_only_a_wrong_client_is_a_failed_assertion() -> None:
    """pytest shows an AssertionError as a failure and the others as errors of the test."""
    assert [kind for kind in FAMILIES if issubclass(kind, AssertionError)] == [ExpectationFailed]


def test_every_error_of_the_module_is_in_a_family() -> None:
    found = {
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, Exception)
    }
    assert found == {ResilienceError, *FAMILIES}


def test_the_message_has_four_parts() -> None:
    error = UsageError("one sentence", expected="this", happened="that\nand that", advice="do it")
    assert str(error).splitlines() == [
        "one sentence",
        "  expected: this",
        "  happened: that",
        "            and that",
        "  to do:    do it",
    ]


def test_parts_that_are_not_given_are_left_out() -> None:
    assert str(UsageError("one sentence")) == "one sentence"
    assert str(UsageError("one sentence", advice="do it")) == "one sentence\n  to do:    do it"


@pytest.mark.parametrize("kind", FAMILIES)
def test_it_survives_the_way_between_processes(kind: type[ResilienceError]) -> None:
    error = kind("summary", expected="this", happened="that\nmore", advice="do it")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert (copy.summary, copy.expected, copy.happened, copy.advice) == (
        "summary",
        "this",
        "that\nmore",
        "do it",
    )
