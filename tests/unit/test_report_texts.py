"""Texts of strangers in Markdown and in Mermaid."""

from __future__ import annotations

import html
import re

import pytest

from pytest_tcpresilience.report.texts import (
    clean,
    code_for_markdown,
    for_markdown,
    for_mermaid,
    one_line,
)
from tests.reports import HOSTILE


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("a\x00b\x07", "a␀b␇"),
        ("\x7f", "␡"),
        ("a\tb", "a    b"),
        ("a\r\nb", "a\nb"),
        ("a\rb", "a␍b"),
        ("\ud800", "\ufffd"),
        ("\u202eevil", "\ufffdevil"),
        ("\x85\u2028\uffff", "\ufffd\ufffd\ufffd"),
        ("ümlaut ✔ 日本", "ümlaut ✔ 日本"),
        ("\x1b", "␛"),
    ],
)
def test_what_cannot_be_shown_becomes_visible(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_a_long_text_says_how_long_it_was() -> None:
    assert clean("x" * 12, most=10) == "xxxxxxxxxx… (2 more characters)"


def test_one_line() -> None:
    assert one_line(" a\nb\n") == "a ↵ b"


@pytest.mark.parametrize("text", HOSTILE)
def test_every_clean_text_can_be_written(text: str) -> None:
    for shown in (clean(text), one_line(text), for_markdown(text), for_mermaid(text)):
        shown.encode("utf-8")
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", "a\\|b"),
        ("`x`", "\\`x\\`"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("[x](y)", "\\[x\\](y)"),
        ("*a* _b_ ~c~ $d$", "\\*a\\* \\_b\\_ \\~c\\~ \\$d\\$"),
        ("back\\slash", "back\\\\slash"),
        ("a\n# b", "a ↵ # b"),
        ("# head", "# head"),
    ],
)
def test_markdown(text: str, escaped: str) -> None:
    assert for_markdown(text) == escaped


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("# head", "\\# head"),
        ("- x", "\\- x"),
        ("12. x", "12\\. x"),
        ("3) x", "3\\) x"),
        ("3 x", "3 x"),
    ],
)
def test_markdown_at_the_beginning_of_a_block(text: str, escaped: str) -> None:
    assert for_markdown(text, begins=True) == escaped


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", ""),
        ("a", "`a`"),
        ("a`b", "``a`b``"),
        ("`a", "`` `a ``"),
        ("a``b`", "``` a``b` ```"),
        ("a|b", "`a|b`"),
    ],
)
def test_markdown_code(text: str, code: str) -> None:
    assert code_for_markdown(text) == code


def test_a_pipe_ends_no_cell() -> None:
    assert code_for_markdown("a|b", in_table=True) == "`a\\|b`"
    assert code_for_markdown("a\\|b", in_table=True) == "`a\\ \\|b`"


@pytest.mark.parametrize("text", HOSTILE)
def test_mermaid_gets_nothing_but_words_and_entity_codes(text: str) -> None:
    escaped = for_mermaid(text)
    assert re.fullmatch(r"(?:[\w .,()/+\-='\u2212\u2026\u00d7]|#\d+;)*", escaped)
    # Its codes are those of HTML with another sign, and give the text back.
    assert html.unescape(re.sub(r"#(\d+);", r"&#\1;", escaped)) == one_line(text)


def test_mermaid_codes() -> None:
    assert for_mermaid("a;b#c:%%") == "a#59;b#35;c#58;#37;#37;"
