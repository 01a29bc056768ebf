"""The pytest plugin: options, header, marker, and the session's end.

Loaded in every pytest run of the environment, so it imports nothing heavy, and starts
nothing before a test asks for a link.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tcpresilience import engine_choice, session_options
from pytest_tcpresilience import settings as options
from pytest_tcpresilience.fixtures import (
    CHOICE,
    FAILED,
    HANDED_OVER,
    OWNER,
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
from pytest_tcpresilience.report import taking

if TYPE_CHECKING:
    from pytest_tcpresilience.control.sharing import SharedEngine

__all__ = ["recording_server", "tcp_lab", "tcp_link", "tcp_matrix", "toxiproxy", "virtual_tcp"]

# Segments of a virtual run that a failed test shows; the last ones.
SHOWN_SEGMENTS = 40

SHARED = pytest.StashKey["SharedEngine"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    session_options.register(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{options.MARKER}({', '.join(options.MARKED)}): settings of "
        "pytest-tcpresilience for this test, in seconds",
    )
    config.addinivalue_line("markers", options.LONG_WAIT_DESCRIPTION)
    session_options.read(config)
    if hasattr(config, "workerinput"):
        from pytest_tcpresilience import long_waits

        long_waits.take_part(config)


def pytest_report_header(config: pytest.Config) -> str:
    """One line: the engine, the kernel, and whatever cannot be done here."""
    from pytest_tcpresilience.kernel import capabilities

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
    marked = [item for item in items if item.get_closest_marker(options.MARKER)]
    if marked:
        from pytest_tcpresilience import long_waits

        for item in marked:
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
    from pytest_tcpresilience import long_waits
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
