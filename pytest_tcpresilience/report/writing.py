"""Puts a document into files, each in the form that its name asks for.

Owns which suffix is which form, and what is checked before a run. Jinja2 is asked for only where
a form needs it.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.report import files
from pytest_tcpresilience.report.comparison import Comparison
from pytest_tcpresilience.report.document import Document

EXTRA = "pytest-tcpresilience[report]"
Render = Callable[[Document, "Comparison | None"], str]


def _html(document: Document, comparison: Comparison | None) -> str:
    from pytest_tcpresilience.report import html

    return html.render(document, comparison)


def _markdown(document: Document, comparison: Comparison | None) -> str:
    from pytest_tcpresilience.report import markdown

    return markdown.render(document, comparison)


def _json(document: Document, comparison: Comparison | None) -> str:
    # In ASCII, so that whatever stands in a text can be written and read again.
    return json.dumps(document.to_json(), indent=1, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Form:
    """:param templates: whether it needs Jinja2."""

    render: Render
    templates: bool = True


FORMS: Mapping[str, Form] = {
    ".html": Form(_html),
    ".md": Form(_markdown),
    ".json": Form(_json, templates=False),
}


def check_writable(path: Path, where: str = "--resilience-report") -> None:
    """Whether a report can be written there at the end. An existing file is not touched.

    :param where: what an error calls the option.
    :raises UsageError: for a suffix that is no form, a place that cannot be written, and a
        form whose library is not installed.
    """
    form = FORMS.get(path.suffix.lower())
    if form is None:
        raise UsageError(
            f"{where}: {path} names no form of a report",
            expected=f"a name that ends in {', '.join(FORMS)}",
            happened=f"its suffix is {path.suffix!r}" if path.suffix else "it has no suffix",
            advice=f"call it {path.name or 'report'}.html, or name the form that you want",
        )
    if form.templates and importlib.util.find_spec("jinja2") is None:
        raise UsageError(
            f"{where}: {path} needs Jinja2",
            expected="the package jinja2, which HTML and Markdown are made with",
            happened="it is not installed here",
            advice=f'pip install "{EXTRA}", or write a .json, which needs nothing',
        )
    try:
        why = files.unwritable(files.target_of(path))
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in it; a loop of links
        why = getattr(error, "strerror", None) or str(error)
    if why:
        raise UsageError(
            f"{where}: {path} cannot be written",
            expected="a file, new or not, in a directory that exists and can be written",
            happened=why,
            advice="make the directory, or name another path",
        )


def check_all(paths: Iterable[Path], where: str = "--resilience-report") -> None:
    """:raises UsageError: as :func:`check_writable`, and for two reports in one file."""
    seen: dict[Path, Path] = {}
    for path in paths:
        check_writable(path, where)
        target = files.target_of(path)
        if target in seen:
            raise UsageError(
                f"{where}: {path} is given twice",
                expected="a file of its own for each report",
                happened=f"{seen[target]} and {path} are one file",
                advice="leave one of them out",
            )
        seen[target] = path


def write(document: Document, path: Path, comparison: Comparison | None = None) -> None:
    """:param comparison: of the run with its contract; HTML and Markdown show it.

    :raises UsageError: as :func:`check_writable`.
    :raises OSError: when it cannot be written all the same. What was there before then is
        there still.
    """
    check_writable(path, "the report")
    files.replace(path, FORMS[path.suffix.lower()].render(document, comparison))


def keep_elsewhere(document: Document) -> Path:
    """The document as JSON in a file for temporary ones: the last resort.

    :raises OSError: when that cannot be written either.
    """
    number, name = tempfile.mkstemp(prefix="pytest-tcpresilience-", suffix=".json")
    with open(number, "w", encoding="utf-8") as file:
        file.write(_json(document, None))
    return Path(name)
