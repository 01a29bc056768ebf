"""How lengths of time and numbers of bytes read in a sentence. Pure."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """``0.30 s``, ``75.0 s``, ``15 min 38 s``, ``2 h 11 min 15 s``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


def bytes_were(count: int) -> str:
    """``1 byte was``, ``2 bytes were``."""
    return f"{count} byte was" if count == 1 else f"{count} bytes were"


def times(count: int) -> str:
    """``once``, ``twice``, ``3 times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
