"""The pytest plugin: options, header, marker, and the session's end.

Loaded in every pytest run of the environment, so it imports nothing heavy, and starts
nothing before a test asks for a link.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import replace

import pytest

from pytest_tcpresilience import settings as options
from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.fixtures import (
    FAILED,
    OWNER,
    SETTINGS,
    recording_server,
    settings_of,
    tcp_link,
    toxiproxy,
)
from pytest_tcpresilience.kernel import capabilities

__all__ = ["recording_server", "tcp_link", "toxiproxy"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tcpresilience", "TCP resilience")
    for option in options.OPTIONS:
        described = f"{option.help} (default: {option.default:g})"
        group.addoption(option.flag, dest=option.ini, metavar="SECONDS", help=described)
        parser.addini(option.ini, described, type="float", default=None)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{options.MARKER}(slack, hit_timeout, engine_timeout): settings of "
        "pytest-tcpresilience for this test, in seconds",
    )
    try:
        settings = options.resolve(
            ini={option.ini: _ini(config, option.ini) for option in options.OPTIONS},
            environment=os.environ,
            flags={option.name: config.getoption(option.ini) for option in options.OPTIONS},
        )
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[SETTINGS] = replace(settings, complete=config.get_verbosity() >= 2)


def _ini(config: pytest.Config, name: str) -> object:
    """The value, or what stands in the file if that is no number."""
    try:
        return config.getini(name)
    except (ValueError, TypeError, pytest.UsageError) as error:  # the last since pytest 9.2
        return str(error)


def pytest_report_header() -> str:
    """One line: the engine, the kernel, and whatever cannot be done here."""
    found = capabilities.probe()
    line = f"tcpresilience: embedded engine, {capabilities.kernel_name()}"
    if found.missing:
        reasons = "; ".join(sorted(set(found.missing.values())))
        line += f"; cannot do {', '.join(found.missing)} ({reasons})"
    return "; ".join([line, *found.notes])


def pytest_runtest_setup(item: pytest.Item) -> None:
    # Also where no link is asked for: a marker with a mistake would be silently useless.
    settings_of(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        # After a test that failed, or stopped in its middle, a link has no news about
        # faults that never hit.
        item.stash[FAILED] = not report.passed
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    owner = config.stash.get(OWNER, None)
    if owner is not None:
        owner.stop()
