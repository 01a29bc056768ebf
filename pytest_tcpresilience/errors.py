"""The three families of errors, and nothing else.

* :class:`UsageError`: the test is wrong.
* :class:`ExpectationFailed`: the client under test is wrong. It is an
  ``AssertionError``, so pytest reports it as a failure and not as an error.
* :class:`HarnessError`: this project, its engine or the machine is wrong.

Every message has the same four parts: one sentence, what was expected, what
happened, and what to do. This module knows no other room.
"""

from __future__ import annotations


def _indented(label: str, text: str) -> str:
    lines = text.splitlines()
    return "\n".join([f"  {label:<10}{lines[0]}", *(f"  {'':<10}{line}" for line in lines[1:])])


class ResilienceError(Exception):
    """Base of everything that this plugin raises on purpose.

    :param summary: one sentence.
    :param expected: what should have been.
    :param happened: what was.
    :param advice: what the reader can do about it.
    """

    def __init__(
        self, summary: str, *, expected: str = "", happened: str = "", advice: str = ""
    ) -> None:
        self.summary = summary
        self.expected = expected
        self.happened = happened
        self.advice = advice
        parts = [summary]
        for label, text in (("expected:", expected), ("happened:", happened), ("to do:", advice)):
            if text:
                parts.append(_indented(label, text))
        super().__init__("\n".join(parts))


class UsageError(ResilienceError):
    """The test asks for something that makes no sense."""


class ExpectationFailed(ResilienceError, AssertionError):
    """The client under test did not do what the test expects of it."""


class HarnessError(ResilienceError, RuntimeError):
    """The plugin or its engine failed; the client under test is not to blame."""


class EngineDied(HarnessError):
    """The engine's process ended while it was needed."""


class FaultUnavailable(HarnessError):
    """This machine lacks what the fault needs, and no weaker fault takes its place."""
