"""A line on the terminal that tells how far a matrix is.

Owns the line and its place: below the one that pytest is writing, which stays as it is. It
writes to a terminal only, and leaves it as it was.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from types import TracebackType

# Of the terminals of DEC, and of all since: index and reverse index (one line down or up in
# the same column), save and restore the cursor, erase to the end of the line.
DOWN, UP, SAVE, RESTORE, ERASE = "\x1bD", "\x1bM", "\x1b7", "\x1b8", "\x1b[K"


def line(done: int, cells: int, wait_s: float) -> str:
    """:param wait_s: until the last open window closes."""
    wait = f", longest wait {math.ceil(wait_s)} s more" if wait_s > 0 else ""
    return f"tcp_matrix: {done} of {cells} cells{wait}"


def can_show(descriptor: int, environment: Mapping[str, str]) -> bool:
    """Whether there is a terminal, and one that can move its cursor."""
    with contextlib.suppress(OSError):
        return os.isatty(descriptor) and environment.get("TERM", "dumb") not in ("", "dumb")
    return False


class Progress:
    """A context manager; :meth:`show` in between.

    :param descriptor: of the terminal, which is closed at the end; ``None`` for silence.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._shown = ""

    def __enter__(self) -> Progress:
        # At the bottom of the screen, going down scrolls it; from there on it stays.
        self._write(f"{DOWN}{UP}{SAVE}")
        return self

    def show(self, text: str) -> None:
        if self._descriptor is None or text == self._shown:
            return
        self._shown = text
        with contextlib.suppress(OSError):
            # A terminal that does not say how wide it is says 0.
            columns = os.get_terminal_size(self._descriptor).columns
            text = text[: columns - 1] if columns else text
        self._write(f"{RESTORE}{DOWN}\r{text}{ERASE}{RESTORE}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._write(f"{RESTORE}{DOWN}\r{ERASE}{RESTORE}")
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, text: str) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # the terminal was closed
                os.write(self._descriptor, text.encode())
