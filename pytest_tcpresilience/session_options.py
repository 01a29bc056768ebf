"""The options of a session: on pytest's command line, in its ini files, and what they come to.

Owns how the rows of all option tables become options of pytest, and that a value with a
mistake ends the run before a test has run. What a row means is its own module's. Every
session of pytest loads this, so it imports the rows and nothing that works with them.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from pytest_tcpresilience import engine_choice
from pytest_tcpresilience import settings as options
from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.fixtures import CHOICE, SELECTION, SETTINGS
from pytest_tcpresilience.report import options as gate_options
from pytest_tcpresilience.report import paths as report_paths
from pytest_tcpresilience.report import taking
from pytest_tcpresilience.report.options import CELLS


def register(parser: pytest.Parser) -> None:
    """Add all of them."""
    group = parser.getgroup("tcpresilience", "TCP resilience")
    for option in options.OPTIONS:
        described = f"{option.help} (default: {option.default:g})"
        group.addoption(option.flag, dest=option.ini, metavar="SECONDS", help=described)
        parser.addini(option.ini, described, type="float", default=None)
    for choice in engine_choice.CHOICES:
        described = f"{choice.help} (default: {choice.default or 'empty'})"
        group.addoption(choice.flag, dest=choice.ini, metavar=choice.metavar, help=described)
        parser.addini(choice.ini, described, type="string", default=None)
    described = f"{CELLS.help} (default: all)"
    group.addoption(CELLS.flag, dest=CELLS.ini, metavar="EXPRESSION", help=described)
    parser.addini(CELLS.ini, described, type="string", default=None)
    report = report_paths.OPTION
    told = report_paths.HELP
    group.addoption(report.flag, dest=report.ini, action="append", metavar="PATH", help=told)
    parser.addini(report.ini, told, type="linelist")
    named = taking.LIBRARIES_OPTION
    told = taking.LIBRARIES_HELP
    group.addoption(named.flag, dest=named.ini, metavar="NAMES", help=told)
    parser.addini(named.ini, told, type="string", default=None)
    for each in gate_options.OPTIONS:
        described = f"{each.help} (default: {each.default or 'none'})"
        # Where an option alone means something, it is the empty text.
        alone = {"nargs": "?", "const": ""} if each.flag_only else {}
        group.addoption(each.flag, dest=each.ini, metavar=each.metavar, help=described, **alone)
        if not each.flag_only:
            parser.addini(each.ini, described, type="string", default=None)


def read(config: pytest.Config) -> None:
    """Keep what was chosen, and begin what it asks for.

    :raises pytest.UsageError: naming where a bad value came from.
    """
    try:
        settings = options.resolve(
            ini={option.ini: _ini(config, option.ini) for option in options.OPTIONS},
            environment=os.environ,
            flags={option.name: config.getoption(option.ini) for option in options.OPTIONS},
        )
        choices = engine_choice.CHOICES
        config.stash[CHOICE] = engine_choice.choose_engine(
            ini={choice.ini: _ini(config, choice.ini) for choice in choices},
            environment=os.environ,
            flags={choice.name: config.getoption(choice.ini) for choice in choices},
        )
        named = taking.LIBRARIES_OPTION
        config.stash[taking.LIBRARIES] = taking.choose_libraries(
            ini={named.ini: config.getini(named.ini)},
            environment=os.environ,
            flags={named.name: config.getoption(named.ini)},
        )
        _choose_cells(config)
        _begin_reports(config)
        _begin_gate(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[SETTINGS] = replace(settings, complete=config.get_verbosity() >= 2)


def _choose_cells(config: pytest.Config) -> None:
    ini = {CELLS.ini: _ini(config, CELLS.ini)}
    flags = {CELLS.name: config.getoption(CELLS.ini)}
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
    ini = {row.ini: config.getini(row.ini) for row in rows if not row.flag_only}
    flags = {row.name: config.getoption(row.ini) for row in rows}
    asked = flags[gate_options.RECORD.name] is not None
    if not asked and gate_options.CONTRACT.given(ini, os.environ, flags) is None:
        return
    from pytest_tcpresilience.report import hooks

    hooks.begin(config, ini, flags)


def _ini(config: pytest.Config, name: str) -> object:
    """The value, or what stands in the file if that is no number."""
    try:
        return config.getini(name)
    except (ValueError, TypeError, pytest.UsageError) as error:  # the last since pytest 9.2
        return str(error)
