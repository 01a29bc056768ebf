"""What the pages of docs/ have in common with a forge: anchors, links, fences.

Pure functions from a page's text, used by the tests and by the site's hook, so that a link that
works in one works in the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

FENCE = re.compile(r"^(```+|~~~+)[^\n]*\n.*?^\1\s*$", re.MULTILINE | re.DOTALL)
_INLINE_CODE = re.compile(r"`[^`\n]*`")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_ANCHOR = re.compile(r'<a id="([^"]+)">')


def slug(title: str, separator: str = "-") -> str:
    """The anchor of a heading as GitHub and GitLab make it."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", separator)


def anchors(page: str) -> set[str]:
    """All that can be linked to within a page."""
    text = FENCE.sub("", page)
    found: set[str] = set(_ANCHOR.findall(text))
    counts: dict[str, int] = {}
    for title in _HEADING.findall(text):
        name = slug(title)
        count = counts.get(name, 0)
        counts[name] = count + 1
        found.add(f"{name}-{count}" if count else name)
    return found


def links(page: str) -> list[str]:
    """The targets of a page's links, without those in code."""
    return _LINK.findall(_INLINE_CODE.sub("", FENCE.sub("", page)))


@dataclass(frozen=True)
class Fence:
    """A fenced block.

    :param language: of its first line. :param origin: of the comment in front of it, as in
        ``<!-- file: examples/a.py -->``: ``("file", "examples/a.py")``.
    """

    language: str
    text: str
    origin: tuple[str, str] | None


def fences(page: str) -> Iterator[Fence]:
    pattern = re.compile(
        r"(?:^<!-- ([\w ]+): ([^\n]+?) -->\n)?^```([\w-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
    )
    for found in pattern.finditer(page):
        origin = (found[1], found[2]) if found[1] else None
        yield Fence(found[3], found[4], origin)
