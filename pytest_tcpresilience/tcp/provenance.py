"""Where a number comes from, and how far it can be trusted.

Owns the four marks that every profile and preset carries. It knows nothing of what the
numbers mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from pytest_tcpresilience.errors import UsageError


class Confidence(str, Enum):
    """How a number came to be known, the surest first."""

    MEASURED = "measured"
    SOURCE = "source"
    DOCUMENT = "document"
    KNOWLEDGE = "knowledge"

    def __str__(self) -> str:
        return self.value

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Confidence.MEASURED: "seen in a capture or timed on a machine",
    Confidence.SOURCE: "read in the source of the system",
    Confidence.DOCUMENT: "read in the maker's or a third party's document",
    Confidence.KNOWLEDGE: "generally held; check it before you rely on it",
}


@dataclass(frozen=True)
class Source:
    """:param confidence: how it is known. :param where: the document, file or trace."""

    confidence: Confidence
    where: str

    def __str__(self) -> str:
        return f"{self.confidence}: {self.where}"


def measured(where: str) -> Source:
    return Source(Confidence.MEASURED, where)


def source(where: str) -> Source:
    return Source(Confidence.SOURCE, where)


def document(where: str) -> Source:
    return Source(Confidence.DOCUMENT, where)


def knowledge(where: str = "general knowledge") -> Source:
    return Source(Confidence.KNOWLEDGE, where)


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UsageError:
    """The error for a name that is in no table, with the nearest one that is."""
    import difflib  # only for those who err

    plain = {_plain(each): each for each in known}
    close = difflib.get_close_matches(_plain(str(name)), plain, n=1, cutoff=0.5)
    return UsageError(
        f"{kind}={name!r} is not known",
        expected=f"one of {', '.join(plain.values())}",
        happened=f"got {name!r}",
        advice=f"did you mean {plain[close[0]]!r}?" if close else "pass one of them, as a string",
    )


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")
