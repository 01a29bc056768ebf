"""Texts that others wrote, made fit for a page: names of tests, words of exceptions.

Owns what becomes of a character that would break a line, a table, a diagram or a terminal. A
text keeps its meaning for a reader, so that nothing is dropped without a trace. HTML has no
function here: its templates escape by themselves.
"""

from __future__ import annotations

import re
import unicodedata

# An exception may carry a whole HTTP body. A reader of a report wants its beginning.
MOST_CHARACTERS = 2000
# A cell of a table, an arrow, a heading.
MOST_IN_A_LINE = 160

NEW_LINE = "\u21b5"  # ↵
UNKNOWN = "\ufffd"
# CSI and OSC sequences, and the two-character ones (ECMA-48).
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
# They change the order in which the rest of a line is shown.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: str, *, most: int = MOST_CHARACTERS) -> str:
    """What can be shown: colours go, control characters become visible.

    Line breaks stay.

    :param most: characters; the rest is counted and not shown.
    """
    shown = "".join(map(_shown, _ANSI.sub("", text.replace("\r\n", "\n"))))
    if len(shown) > most:
        return f"{shown[:most]}… ({len(shown) - most} more characters)"
    return shown


def one_line(text: str, *, most: int = MOST_IN_A_LINE) -> str:
    """The same in a single line."""
    return clean(text.strip(), most=most).replace("\n", f" {NEW_LINE} ")


def _shown(character: str) -> str:
    if " " <= character <= "~" or character == "\n":
        return character
    if character == "\t":
        return "    "
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # the pictures of control characters
    if code == 0x7F:
        return "\u2421"
    unusable = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    if unusable or character in _BIDI or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF:
        return UNKNOWN
    return character


# --- Markdown -----------------------------------------------------------------------------

# Wherever they stand. A dollar sign begins mathematics at GitHub and GitLab.
_MARKDOWN = re.compile(r"([\\`*_\[\]|~$])")
# Only at the beginning of a block.
_BLOCK = re.compile(r"^(?:[#+\-=:]|(?=\d+[.)])\d+)")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def for_markdown(text: str, *, most: int = MOST_CHARACTERS, begins: bool = False) -> str:
    """As plain words of a paragraph or a cell, in a single line.

    :param begins: whether they are the first of a block, where some signs mean more.
    """
    line = _MARKDOWN.sub(r"\\\1", one_line(text, most=most))
    line = "".join(_ENTITIES.get(character, character) for character in line)
    begin = _BLOCK.match(line) if begins else None
    if begin is None:
        return line
    head = begin[0]
    return f"{head}\\{line[len(head) :]}" if head[0].isdigit() else f"\\{line}"


def code_for_markdown(text: str, *, in_table: bool = False, most: int = MOST_CHARACTERS) -> str:
    """As a code span. Within a table a pipe ends the cell even there."""
    line = one_line(text, most=most)
    if not line:
        return ""
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    if in_table:
        # A backslash before the pipe would be taken for its escape.
        line = line.replace("\\|", "\\ |").replace("|", "\\|")
    padding = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{padding}{line}{padding}{fence}"


# --- Mermaid ------------------------------------------------------------------------------

# What no version of its grammar gives a meaning within a message.
_MERMAID_PLAIN = frozenset(" .,()/+-=_'\u2212\u2026\u00d7")


def for_mermaid(text: str, *, most: int = MOST_IN_A_LINE) -> str:
    """As the words of a message or a note of a Mermaid diagram, in a single line.

    Its grammar ends a text at ``;``, ``#`` and a line's end, and takes ``%%`` for a comment;
    it has entity codes for what it cannot say.
    """
    return "".join(
        character if character.isalnum() or character in _MERMAID_PLAIN else f"#{ord(character)};"
        for character in one_line(text, most=most)
    )
