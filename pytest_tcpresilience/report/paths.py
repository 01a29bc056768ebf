"""The option that asks for reports, and what it comes to: absolute paths.

Every session of pytest loads this module, so it imports nothing of what makes a report.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pytest_tcpresilience.options import NamedOption

OPTION = NamedOption("report")
HELP = (
    "write a report of what clients did: .html, .md or .json; may be given several times "
    f"(in {OPTION.variable} with {os.pathsep!r} between, in an ini file one a line)"
)


def ini_directory(config: pytest.Config) -> Path:
    """What paths in an ini file are relative to: where that is, else the run's root."""
    return config.rootpath if config.inipath is None else config.inipath.parent


def choose_paths(
    ini: Sequence[str] | None,
    environment: Mapping[str, str],
    flags: Sequence[str] | None,
    *,
    started_in: Path,
    ini_directory: Path,
) -> tuple[str, tuple[Path, ...]]:
    """Where the paths came from, and the paths; none when nobody asked.

    :param ini: relative to ``ini_directory``; the others are relative to ``started_in``.
    """
    given = OPTION.given(
        {OPTION.ini: ini or None},
        environment,
        {OPTION.name: flags or None},
    )
    if given is None:
        return "", ()
    origin, value = given
    names = value.split(os.pathsep) if isinstance(value, str) else value
    base = ini_directory if origin.startswith("ini") else started_in
    return origin, tuple(base / name.strip() for name in names if name.strip())
