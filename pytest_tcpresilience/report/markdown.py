"""The report as Markdown for a forge: a table, and a Mermaid diagram for each record.

Owns the rendering; what is said is :mod:`.view`'s, and how a foreign text is made harmless
:mod:`.texts`'. The templates of Markdown do not escape by themselves, so each value that they
print goes through a filter, and a value that does not is refused.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pytest_tcpresilience._version import __version__
from pytest_tcpresilience.report import texts
from pytest_tcpresilience.report.comparison import Comparison
from pytest_tcpresilience.report.document import Document
from pytest_tcpresilience.report.drawing import seconds
from pytest_tcpresilience.report.ladder import Loss, Side, Step
from pytest_tcpresilience.report.texts import MOST_IN_A_LINE
from pytest_tcpresilience.report.view import view_of

_LETTERS = {Side.CLIENT: "C", Side.LINK: "L", Side.SERVER: "S"}


def _refuse_raw(value: Any) -> Any:
    """:raises TypeError: for a text that no filter has made fit for its place."""
    if isinstance(value, str) and not isinstance(value, Markup):
        raise TypeError(f"{value!r} would stand in the Markdown as it is")
    return value


def _mermaid(step: Step) -> Markup:
    """One step as a line of a sequence diagram."""
    when = seconds(step.at)
    if step.until is not None:
        when += f" to {seconds(step.until)}"
    words = texts.for_mermaid(f"{when}  {step.words}", most=MOST_IN_A_LINE + len(when))
    source = _LETTERS[step.source]
    if step.target is None:
        return Markup(f"Note over {source}: {words}")  # escaped above
    target = _LETTERS[step.target]
    if step.loss is Loss.SEGMENT:
        return Markup(f"{source}-x{target}: {words}")
    line = Markup(f"{source}->>{target}: {words}")
    if step.loss is Loss.ANSWER:
        line += Markup(f"\n{target}--x{source}: no answer arrives")
    return line


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pytest_tcpresilience.report"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_refuse_raw,
    )
    environment.filters.update(
        block=lambda text: Markup(texts.for_markdown(text, begins=True)),
        words=lambda text: Markup(texts.for_markdown(text)),
        cell=lambda text: Markup(texts.for_markdown(text, most=MOST_IN_A_LINE)),
        code=lambda text: Markup(texts.code_for_markdown(text)),
        code_cell=lambda text: Markup(texts.code_for_markdown(text, in_table=True)),
        mermaid=_mermaid,
    )
    return environment


def render(document: Document, comparison: Comparison | None = None) -> str:
    template = _environment().get_template("report.md")
    return template.render(view=view_of(document, comparison), version=Markup(__version__))
