"""Docstrings and signatures as Markdown, for the pages that are made of them.

It knows the few forms that the docstrings of this project have, and no others: roles, double
backquotes, ``:param name:`` and ``:raises Error:``, lists, and indented code.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

_FIELD = re.compile(r":(param|returns?|raises)(?: (\w+))?: ?")


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    first = list(headings)
    lines = [first, ["---"] * len(first), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def inline(text: str) -> str:
    """Without the marks of Sphinx."""
    text = re.sub(r":\w+:`[.~]*([^`]+)`", lambda found: f"`{_short(found[1])}`", text)
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def _short(target: str) -> str:
    """``evidence.kinds.KINDS`` as it is, and a public ``.Keepalive`` without its dots."""
    return target.lstrip(".~")


def one_line(text: str) -> str:
    """For a cell of a table."""
    return re.sub(r"\s+", " ", inline(text)).strip().replace("|", "\\|")


def doc(thing: Any) -> str:
    return inspect.cleandoc(thing.__doc__ or "")


def fields_of(docstring: str) -> dict[tuple[str, str], str]:
    """``("param", "idle")`` to what is said of it, in order."""
    found: dict[tuple[str, str], str] = {}
    marks = list(_FIELD.finditer(docstring))
    for mark, following in zip_longest(marks, marks[1:]):
        end = following.start() if following else len(docstring)
        said = docstring[mark.end() : end].split("\n\n")[0]
        found[mark[1], mark[2] or ""] = one_line(said).removesuffix(", and").rstrip(";")
    return found


def markdown(docstring: str, *, parameters: bool = True) -> str:
    """The text, then its parameters and errors as a list."""
    text = inline(_FIELD.split(docstring, maxsplit=1)[0]).strip()
    lines = []
    for (kind, name), said in fields_of(docstring).items():
        if kind == "param" and not parameters:
            continue
        head = {"param": f"`{name}`", "raises": f"raises `{name}`"}.get(kind, "returns")
        lines.append(f"* {head}: {said}\n")
    return f"{text}\n" + (f"\n{''.join(lines)}" if lines else "")


def signature(name: str, function: Any) -> str:
    """As it is called: without ``self`` and without the return type of a class."""
    found = inspect.signature(function)
    parameters = [
        each.replace(annotation=_annotation(each.annotation), default=_default(each.default))
        for each in found.parameters.values()
        if each.name not in ("self", "cls")
    ]
    result = found.return_annotation
    returns = inspect.Signature.empty if inspect.isclass(function) else _annotation(result)
    text = str(found.replace(parameters=parameters, return_annotation=returns))
    return name + _folded(text)


def _annotation(annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty:
        return annotation
    return _Bare(annotation if isinstance(annotation, str) else str(annotation))


def _default(default: Any) -> Any:
    """A function by its name and not by its address, which changes."""
    return _Bare(default.__name__) if inspect.isfunction(default) else default


class _Bare(str):
    """A text that is shown without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _folded(text: str) -> str:
    """A long one over several lines, a parameter on each."""
    if len(text) <= 84:
        return text
    inner, _, rest = text.rpartition(")")
    parts, depth, current = [], 0, ""
    for character in inner[1:]:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append(current.strip())
            current = ""
        else:
            current += character
    parts.append(current.strip())
    return "(\n" + "".join(f"    {part},\n" for part in parts) + ")" + rest
