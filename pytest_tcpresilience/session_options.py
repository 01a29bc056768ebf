"""The options of a session: on pytest's command line, in its ini files, and what they come to.

Owns how the rows of all option tables become options of pytest, and that a value with a
mistake ends the run before a test has run. What a row means is its own module's. Every
session of pytest loads this, so it imports the rows and nothing that works with them.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from pytest_tcpresilience import engine_choice
from pytest_tcpresilience import settings as options
from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.fixtures import CHOICE, SELECTION, SETTINGS
from pytest_tcpresilience.options import NamedOption
from pytest_tcpresilience.report import options as gate_options
from pytest_tcpresilience.report import paths as report_paths
from pytest_tcpresilience.report import taking
from pytest_tcpresilience.report.options import CELLS


def register(parser: pytest.Parser) -> None:
    """Add all of them."""
    group = parser.getgroup("tcpresilience", "TCP resilience")

    def add(option: NamedOption, told: str, metavar: str, ini: Any = "string", **flag: Any) -> None:
        """:param ini: the type in an ini file; ``None`` where none may say it."""
        group.addoption(option.flag, dest=option.ini, metavar=metavar, help=told, **flag)
        if ini is not None:
            parser.addini(option.ini, told, type=ini, default=None)

    for option in options.OPTIONS:
        add(option, f"{option.help} (default: {option.default:g})", "SECONDS", "float")
    for choice in engine_choice.CHOICES:
        add(choice, f"{choice.help} (default: {choice.default or 'empty'})", choice.metavar)
    add(CELLS, f"{CELLS.help} (default: all)", "EXPRESSION")
    add(report_paths.OPTION, report_paths.HELP, "PATH", "linelist", action="append")
    add(taking.LIBRARIES_OPTION, taking.LIBRARIES_HELP, "NAMES")
    for each in gate_options.OPTIONS:
        told = f"{each.help} (default: {each.default or 'none'})"
        if each.flag_only:
            # Alone it means something, too: it is the empty text.
            add(each, told, each.metavar, None, nargs="?", const="")
        else:
            add(each, told, each.metavar)


def read(config: pytest.Config) -> None:
    """Keep what was chosen, and begin what it asks for.

    :raises pytest.UsageError: naming where a bad value came from.
    """
    try:
        settings = options.resolve(
            ini=_ini(config, *options.OPTIONS),
            environment=os.environ,
            flags=_flags(config, *options.OPTIONS),
        )
        config.stash[CHOICE] = engine_choice.choose_engine(
            ini=_ini(config, *engine_choice.CHOICES),
            environment=os.environ,
            flags=_flags(config, *engine_choice.CHOICES),
        )
        config.stash[taking.LIBRARIES] = taking.choose_libraries(
            ini=_ini(config, taking.LIBRARIES_OPTION),
            environment=os.environ,
            flags=_flags(config, taking.LIBRARIES_OPTION),
        )
        _choose_cells(config)
        _begin_reports(config)
        _begin_gate(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[SETTINGS] = replace(settings, complete=config.get_verbosity() >= 2)


def _choose_cells(config: pytest.Config) -> None:
    ini, flags = _ini(config, CELLS), _flags(config, CELLS)
    config.stash[SELECTION] = None
    if CELLS.given(ini, os.environ, flags) is not None:
        from pytest_tcpresilience.matrix.selection import choose_cells

        config.stash[SELECTION] = choose_cells(ini, os.environ, flags)


def _begin_reports(config: pytest.Config) -> None:
    """Only for a run that was asked for one."""
    where, paths = report_paths.choose_paths(
        config.getini(report_paths.OPTION.ini),
        os.environ,
        config.getoption(report_paths.OPTION.ini),
        started_in=config.invocation_params.dir,
        ini_directory=report_paths.ini_directory(config),
    )
    if paths:
        from pytest_tcpresilience.report import reporting

        reporting.begin(config, paths, where)


def _begin_gate(config: pytest.Config) -> None:
    """Only for a run that has a contract; its workers take part by what they collect."""
    rows = gate_options.OPTIONS
    ini = _ini(config, *(row for row in rows if not row.flag_only))
    flags = _flags(config, *rows)
    asked = flags[gate_options.RECORD.name] is not None
    if not asked and gate_options.CONTRACT.given(ini, os.environ, flags) is None:
        return
    from pytest_tcpresilience.report import hooks

    hooks.begin(config, ini, flags)


def _flags(config: pytest.Config, *rows: NamedOption) -> dict[str, Any]:
    """By name, what the command line says; ``None`` where it says nothing."""
    return {row.name: config.getoption(row.ini) for row in rows}


def _ini(config: pytest.Config, *rows: NamedOption) -> dict[str, Any]:
    """By ini name, the value, or what stands in the file if that is no number."""
    found: dict[str, Any] = {}
    for row in rows:
        try:
            found[row.ini] = config.getini(row.ini)
        except (ValueError, TypeError, pytest.UsageError) as error:  # the last since pytest 9.2
            found[row.ini] = str(error)
    return found
