"""What the engine says about its own mistakes, on standard error.

Owns that saying it can do no further harm: standard error may be a file on a full disk, or
a pipe that nobody reads any more.
"""

from __future__ import annotations

import contextlib
import traceback


def complain(error: BaseException) -> None:
    """Print the traceback, if it can be printed."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: closed
        traceback.print_exception(error)
