"""The report as a single HTML file: readable without a script, without colours, on paper.

Owns the rendering; what is said is :mod:`.view`'s. Everything that others wrote is escaped by
the template, and nothing is loaded from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pytest_tcpresilience._version import __version__
from pytest_tcpresilience.report.comparison import Comparison
from pytest_tcpresilience.report.document import Document
from pytest_tcpresilience.report.drawing import LIFELINES, draw, seconds
from pytest_tcpresilience.report.texts import clean, one_line
from pytest_tcpresilience.report.view import view_of


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pytest_tcpresilience.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Whatever a template prints has gone through here.
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    environment.filters.update(name=_breakable, line=one_line, seconds=seconds, draw=draw)
    return environment


def _breakable(text: str) -> Markup:
    """A name that may be broken where it has parts, and in a narrow column is."""
    parts = re.split(r"(?<=[_(/,:.=\[-])", one_line(text))
    return Markup("<wbr>").join(parts)  # which escapes them


def _part(name: str) -> Markup:
    """A file of the report's own that stands in the page as it is."""
    environment = _environment()
    assert environment.loader is not None
    source, _, _ = environment.loader.get_source(environment, name)
    return Markup(source.strip())  # our own file


def render(document: Document, comparison: Comparison | None = None) -> str:
    script = _part("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("report.html")
        .render(
            view=view_of(document, comparison),
            css=_part("report.css"),
            script=script,
            script_hash=f"sha256-{digest}",
            lifelines=LIFELINES,
            version=__version__,
        )
    )
