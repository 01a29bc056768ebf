"""The pytest plugin: options, header, marker, and the session's end.

Loaded in every pytest run of the environment, so it imports nothing heavy, and starts
nothing before a test asks for a link.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tcpresilience import engine_choice, long_waits
from pytest_tcpresilience import settings as options
from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.fixtures import (
    CHOICE,
    FAILED,
    HANDED_OVER,
    OWNER,
    SELECTION,
    SETTINGS,
    VIRTUAL,
    recording_server,
    settings_of,
    tcp_lab,
    tcp_link,
    tcp_matrix,
    toxiproxy,
    virtual_tcp,
)
from pytest_tcpresilience.kernel import capabilities
from pytest_tcpresilience.matrix.selection import CELLS, choose_cells
from pytest_tcpresilience.report import options as gate_options
from pytest_tcpresilience.report import paths as report_paths
from pytest_tcpresilience.report import taking

if TYPE_CHECKING:
    from pytest_tcpresilience.control.sharing import SharedEngine

__all__ = ["recording_server", "tcp_lab", "tcp_link", "tcp_matrix", "toxiproxy", "virtual_tcp"]

# Segments of a virtual run that a failed test shows; the last ones.
SHOWN_SEGMENTS = 40

SHARED = pytest.StashKey["SharedEngine"]()


def pytest_addoption(parser: pytest.Parser) -> None:
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


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{options.MARKER}({', '.join(options.MARKED)}): settings of "
        "pytest-tcpresilience for this test, in seconds",
    )
    config.addinivalue_line("markers", long_waits.DESCRIPTION)
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
        config.stash[SELECTION] = choose_cells(
            ini={CELLS.ini: _ini(config, CELLS.ini)},
            environment=os.environ,
            flags={CELLS.name: config.getoption(CELLS.ini)},
        )
        _begin_reports(config)
        _begin_gate(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[SETTINGS] = replace(settings, complete=config.get_verbosity() >= 2)
    long_waits.take_part(config)


def _begin_reports(config: pytest.Config) -> None:
    """Only for a run that was asked for one."""
    where, paths = report_paths.choose_paths(
        config.getini(report_paths.OPTION.ini),
        os.environ,
        config.getoption(report_paths.OPTION.ini),
        started_in=config.invocation_params.dir,
        ini_directory=(config.inipath or config.rootpath / "ini").parent,
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


def pytest_report_header(config: pytest.Config) -> str:
    """One line: the engine, the kernel, and whatever cannot be done here."""
    found = capabilities.probe()
    choice = config.stash[CHOICE]
    carrier = "embedded engine"
    if choice.engine != engine_choice.EMBEDDED:
        from pytest_tcpresilience.control.toxiproxy import describe

        carrier = f"{describe(choice, config.stash[SETTINGS].engine_timeout)} behind our hop"
    line = f"tcpresilience: {carrier}, {capabilities.kernel_name()}"
    if found.missing:
        reasons = "; ".join(sorted(set(found.missing.values())))
        line += f"; cannot do {', '.join(found.missing)} ({reasons})"
    return "; ".join([line, *found.notes])


def pytest_itemcollected(item: pytest.Item) -> None:
    taking.remember_name(item)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # After those of conftest files, which may add markers, and before `-m` deselects.
    for item in items:
        long_waits.mark(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    taking.begin(item)
    # Also where no link is asked for: a marker with a mistake would be silently useless.
    settings_of(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    taking.hand_over(item, report)
    if report.when == "call":
        # After a test that failed, or stopped in its middle, a link has no news about
        # faults that never hit.
        item.stash[FAILED] = not report.passed
        virtual = item.stash.get(VIRTUAL, None)
        if report.failed and virtual is not None and virtual.trace.sent:
            lines = virtual.trace.text().splitlines()
            left_out = len(lines) - SHOWN_SEGMENTS
            head = [f"({left_out} earlier segments)"] if left_out > 0 else []
            shown = "\n".join([*head, *lines[-SHOWN_SEGMENTS:]])
            report.sections.append(("virtual TCP trace", shown))
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: a worker begins, or the successor of one that crashed."""
    from pytest_tcpresilience.control import sharing

    long_waits.hand_over(node)
    # A worker on another machine has an engine of its own. One that is started by a proxy
    # (`popen//via=…`) is where that is.
    spec = node.gateway.spec
    if not sharing.can_share() or not spec.popen or spec.via:
        return
    stash = node.config.stash
    if SHARED not in stash:
        stash[SHARED] = sharing.SharedEngine()
    node.workerinput[HANDED_OVER] = stash[SHARED].invitation.to_json()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    shared: SharedEngine | None = config.stash.get(SHARED, None)
    if shared is not None and shared.failure:
        terminalreporter.write_line(
            f"tcpresilience: the run's shared engine could not live. The last one {shared.failure}"
        )


def pytest_unconfigure(config: pytest.Config) -> None:
    owner = config.stash.get(OWNER, None)
    if owner is not None:
        owner.stop()
    shared: SharedEngine | None = config.stash.get(SHARED, None)
    if shared is not None:
        shared.stop()
