"""Files that are either the old one or the whole new one, whatever happens meanwhile.

Owns how a text becomes a file, and whether it can. What stands in it is the affair of others.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Put a text into a file, the whole of it or nothing.

    :raises OSError: when it cannot be written.
    """
    target = target_of(path)
    # Beside it, so that the last step is one of the file system alone.
    beside = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        # Opened by name, and not by tempfile: its mode is then that of any new file here.
        with open(beside, "x", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            beside.chmod(stat.S_IMODE(target.stat().st_mode))
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def target_of(path: Path) -> Path:
    """The file behind a symbolic link: that is what is replaced, and not the link."""
    return path.resolve()


def unwritable(target: Path) -> str:
    """Why a file cannot be written; "" if it can be. One that is there is not touched."""
    if target.is_dir():
        return "it is a directory"
    if target.exists() and not target.is_file():
        return "it is no ordinary file"
    if not target.parent.is_dir():
        return f"there is no directory {target.parent}"
    if target.exists() and not os.access(target, os.W_OK):
        return "the file is read-only"
    # Permissions do not say it all: root, file systems that are read-only, quotas. A trial
    # does, and is gone at once.
    trial = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(trial, "x"):
            pass
        trial.unlink()
        if not target.exists():  # its own name may be too long, or not allowed here
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            target.unlink()
    except OSError as error:
        return f"{error.strerror or error} (in {target.parent})"
    return ""
