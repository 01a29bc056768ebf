"""Which cells of a matrix are to run: words with and, or, not and parentheses.

Owns the language of ``--resilience-cells`` and of ``unaware=``. A word
stands for the cells in whose name it occurs. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.report.options import CELLS

Predicate = Callable[[str], bool]

_TOKEN = re.compile(r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<sign>[()])|(?P<word>[^\s()"']+))""")
_OPERATORS = ("and", "or", "not")


def choose_cells(
    ini: Mapping[str, Any], environment: Mapping[str, str], flags: Mapping[str, Any]
) -> Selection | None:
    """The selection that is in force; ``None`` for all cells.

    :raises UsageError: for one that cannot be read, naming where it came from.
    """
    given = CELLS.given(ini, environment, flags)
    return None if given is None else Selection(str(given[1]), given[0])


class Selection:
    """A selection of names.

    :param text: ``"(psycopg or redis) and not stall"``; case does not matter.
    :param origin: what an error calls it.
    :raises UsageError: when it cannot be read, with the place.
    """

    def __init__(self, text: str, origin: str) -> None:
        self.text = text
        self.origin = origin
        self._predicate = _Parser(text, origin).parse()

    def __contains__(self, name: str) -> bool:
        return self._predicate(name.casefold())

    def __str__(self) -> str:
        return f"{self.origin} {self.text!r}"


class _Parser:
    """Recursive descent: ``or`` of ``and`` of ``not`` of words and parentheses."""

    def __init__(self, text: str, origin: str) -> None:
        self._text = text
        self._origin = origin
        self._tokens = self._split()
        self._next = 0

    def _split(self) -> list[tuple[int, str, str]]:
        tokens: list[tuple[int, str, str]] = []
        at, end = 0, len(self._text.rstrip())
        while at < end:
            found = _TOKEN.match(self._text, at)
            if found is None:  # a quotation mark without its other one
                raise self._error(at, "a closing quotation mark is missing")
            kind = found.lastgroup or ""
            text = found[kind]
            if kind == "word" and text.casefold() in _OPERATORS:
                kind, text = "operator", text.casefold()
            tokens.append((found.start(found.lastgroup or 0), kind, text))
            at = found.end()
        return tokens

    def parse(self) -> Predicate:
        if not self._tokens:
            raise self._error(0, "it is empty")
        predicate = self._or()
        if self._next < len(self._tokens):
            at, kind, text = self._tokens[self._next]
            if kind == "sign":
                raise self._error(at, f"{text!r} has no counterpart")
            raise self._error(at, f"and, or, or not is missing before {text!r}")
        return predicate

    def _peek(self) -> str:
        """The operator or sign that comes next, "" for anything else."""
        if self._next == len(self._tokens):
            return ""
        _, kind, text = self._tokens[self._next]
        return text if kind in ("operator", "sign") else ""

    def _take(self, wanted: str) -> bool:
        found = self._peek() == wanted
        self._next += found
        return found

    def _or(self) -> Predicate:
        parts = [self._and()]
        while self._take("or"):
            parts.append(self._and())
        return lambda name: any(part(name) for part in parts)

    def _and(self) -> Predicate:
        parts = [self._not()]
        while self._take("and"):
            parts.append(self._not())
        return lambda name: all(part(name) for part in parts)

    def _not(self) -> Predicate:
        if self._take("not"):
            part = self._not()
            return lambda name: not part(name)
        return self._atom()

    def _atom(self) -> Predicate:
        if self._take("("):
            inner = self._or()
            if not self._take(")"):
                raise self._error(len(self._text), "a closing parenthesis is missing")
            return inner
        if self._next == len(self._tokens) or self._peek():
            at, got = len(self._text), "the end"
            if self._next < len(self._tokens):
                at, got = self._tokens[self._next][0], repr(self._peek())
            raise self._error(at, f"a word is missing before {got}")
        at, kind, text = self._tokens[self._next]
        self._next += 1
        word = (text[1:-1] if kind == "quoted" else text).casefold()
        if not word:
            raise self._error(at, "an empty word is in every name")
        return lambda name: word in name

    def _error(self, at: int, why: str) -> UsageError:
        return UsageError(
            f"{self._origin}: {self._text!r} cannot be read",
            expected="words with and, or, not and parentheses, names with spaces in quotes, as "
            'in: (psycopg or "our client") and not stall',
            happened=f"{why}, at character {at + 1}",
            advice=f"correct {self._origin}",
        )
