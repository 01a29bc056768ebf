"""Where each step of a ladder stands on the page: coordinates, and nothing of SVG itself.

Owns the layout: three lifelines, a row for each step, more room where more time has passed,
and texts broken into lines. The template turns it into marks. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

from pytest_tcpresilience.report.ladder import Loss, Side, Step
from pytest_tcpresilience.report.texts import one_line

WIDTH = 872
LIFELINES = {Side.CLIENT: 222, Side.LINK: 480, Side.SERVER: 738}
HEAD = 44
LINE = 15  # height of a line of text
ROW_GAP = 11
# A gap of time grows a row by its logarithm: ten milliseconds and ten seconds differ to the eye.
GAP_PER_DECADE = 9
# Of text in a note, in a bold one and on an arrow: 6.7 px is a wide average of a 12 px
# sans-serif letter, and a bold one takes a little more.
NOTE_CHARACTERS, BOLD_CHARACTERS, ARROW_CHARACTERS = 35, 31, 34
BOLD = frozenset({"fault", "verdict"})
NOTE_WIDTH, NOTE_PADDING = 246, 6
MOST_LINES = 4
BACK = 9  # from an arrow to that of the answer which got lost
HEAD_ROOM = 6  # from a text to its arrow, and from there on
BASELINE = LINE - 4


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Mark:
    """A step in its place. Lengths are pixels.

    :param time: what the left margin says. :param until: its second line, of what was folded.
    :param x: where the arrow begins, and ``end_x`` where it ends. :param y: its height.
    :param lines: of text; ``text_x`` is their middle, ``text_y`` the baseline of the first.
    :param box: around a note; ``None`` for an arrow.
    """

    step: Step
    time: str
    until: str
    x: float
    end_x: float
    y: float
    lines: tuple[str, ...]
    text_x: float
    text_y: float
    box: Box | None = None

    @property
    def towards(self) -> int:
        """1 for an arrow to the right, -1 for one to the left."""
        return 1 if self.end_x > self.x else -1

    @property
    def head_x(self) -> float:
        """A lost segment ends before its lifeline, so that its head and its cross are seen."""
        return self.end_x - (16 * self.towards if self.step.loss is Loss.SEGMENT else 0)

    @property
    def cross_x(self) -> float | None:
        """Where something was lost: at the link, or half way back."""
        if self.step.loss is Loss.NONE:
            return None
        return self.end_x if self.step.loss is Loss.SEGMENT else self.x + 12 * self.towards

    @property
    def back_y(self) -> float | None:
        """Of the way of an answer that got lost."""
        return self.y + BACK if self.step.loss is Loss.ANSWER else None


@dataclass(frozen=True)
class Band:
    """A stretch of the link's lifeline on which a fault was in force."""

    top: float
    bottom: float


@dataclass(frozen=True)
class Drawing:
    """A whole ladder."""

    width: int
    height: int
    marks: tuple[Mark, ...]
    bands: tuple[Band, ...]


def seconds(at: float) -> str:
    """``+0.422 s``, with a real minus."""
    return f"{at:+.3f} s".replace("-", "\u2212")


def draw(steps: Sequence[Step]) -> Drawing:
    marks: list[Mark] = []
    y = float(HEAD)
    before: float | None = None
    for step in steps:
        y += ROW_GAP + _room_for(0.0 if before is None else step.at - before)
        mark, y = _mark(step, round(y, 1))
        marks.append(mark)
        before = step.until if step.until is not None else step.at
    height = math.ceil(y) + 22
    return Drawing(WIDTH, height, tuple(marks), tuple(_bands(marks, height - 6.0)))


def _room_for(gap: float) -> float:
    return GAP_PER_DECADE * math.log10(1 + gap * 100) if gap > 0 else 0.0


def _bands(marks: Sequence[Mark], end: float) -> Iterator[Band]:
    begun: float | None = None
    for mark in marks:
        if mark.step.lasting and begun is None:
            begun = mark.y
        elif begun is not None and mark.step.tone in ("lifted", "rescue"):
            yield Band(begun, mark.y)
            begun = None
    if begun is not None:
        yield Band(begun, end)


def _mark(step: Step, top: float) -> tuple[Mark, float]:
    """The mark whose text begins at ``top``, and where it ends."""
    begin = float(LIFELINES[step.source])
    end = begin if step.target is None else float(LIFELINES[step.target])
    box = None
    if step.target is None:
        width = BOLD_CHARACTERS if step.tone in BOLD else NOTE_CHARACTERS
        lines = _lines(step.words, width)
        height = float(len(lines) * LINE + 2 * NOTE_PADDING)
        box = Box(begin - NOTE_WIDTH / 2, top, float(NOTE_WIDTH), height)
        text_y, y, bottom = top + NOTE_PADDING + BASELINE, top + height / 2, top + height
    else:
        lines = _lines(step.words, ARROW_CHARACTERS)
        text_y, y = top + BASELINE, top + len(lines) * LINE + HEAD_ROOM
        bottom = y + HEAD_ROOM + (BACK if step.loss is Loss.ANSWER else 0)
    mark = Mark(
        step=step,
        time=seconds(step.at),
        until="" if step.until is None else seconds(step.until),
        x=begin,
        end_x=end,
        y=round(y, 1),
        lines=lines,
        text_x=(begin + end) / 2,
        text_y=round(text_y, 1),
        box=box,
    )
    return mark, bottom


def _lines(text: str, width: int) -> tuple[str, ...]:
    """Broken between words where that can be, and anywhere else where it cannot."""
    lines = [""]
    for word in one_line(text).split(" "):
        room = width - _columns(lines[-1]) - 1
        if lines[-1] and _columns(word) <= room:
            lines[-1] += f" {word}"
            continue
        pieces = _pieces(word, width)
        if not lines[-1]:
            lines.pop()
        lines += pieces
    if len(lines) > MOST_LINES:
        lines[MOST_LINES - 1 :] = [f"{lines[MOST_LINES - 1][: width - 2]} …"]
    return tuple(lines)


def _pieces(word: str, width: int) -> list[str]:
    pieces = [""]
    for character in word:
        if _columns(pieces[-1] + character) > width:
            pieces.append("")
        pieces[-1] += character
    return pieces


def _columns(text: str) -> int:
    """Letters of East Asia are twice as wide as others."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)
