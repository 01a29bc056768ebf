"""Takes the records of a test where it runs: in a worker, or in the only process.

Owns the journal of an item, and how records leave the process: on the reports of pytest, as
one string of JSON, which every carrier of reports can transport. What a controller makes of
them is :mod:`.collecting`'s.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tcpresilience._version import __version__
from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.options import NamedOption

# Every session of pytest loads this module; what makes records is for those that make some.
if TYPE_CHECKING:
    from pytest_tcpresilience.records.journal import Journal
    from pytest_tcpresilience.records.record import Record

JOURNAL = pytest.StashKey["Journal"]()
NODE_ID = pytest.StashKey[str]()
# How many of the journal's records and deselected entries have left already.
SENT = pytest.StashKey[tuple[int, int]]()
# Versions by distribution, of those that the user names.
LIBRARIES = pytest.StashKey[Mapping[str, str]]()
LIBRARIES_OPTION = NamedOption("libraries")
LIBRARIES_HELP = (
    "packages whose versions are kept in every record, by the names under which they are "
    "installed, with spaces between; those that a test's own module imports are known anyway"
)
# The attribute of a report, and the name of a JUnit property.
ATTRIBUTE = "tcpresilience"


def choose_libraries(
    ini: Mapping[str, Any], environment: Mapping[str, str], flags: Mapping[str, Any]
) -> Mapping[str, str]:
    """The versions of the packages that were named.

    :raises UsageError: for one that is not installed.
    """
    given = LIBRARIES_OPTION.given(ini, environment, flags)
    if given is None:
        return {}
    from pytest_tcpresilience.records import libraries

    origin, names = given
    found = libraries.versions_of_distributions(str(names).split())
    missing = [name for name, version in found.items() if not version]
    if missing:
        raise UsageError(
            f"{origin}: {', '.join(missing)} cannot be found",
            expected="names of installed packages, with spaces between",
            happened=f"not installed: {', '.join(missing)}",
            advice="write the name that pip list shows",
        )
    return found


def remember_name(item: pytest.Item) -> None:
    """Before pytest-xdist adds a group to it: a test is called the same in every run."""
    item.stash[NODE_ID] = item.nodeid


def name_of(item: pytest.Item) -> str:
    return item.stash.get(NODE_ID, item.nodeid)


def begin(item: pytest.Item) -> None:
    """The test begins, or begins again: what it left the last time is void."""
    if JOURNAL in item.stash:
        del item.stash[JOURNAL]
        item.user_properties[:] = [each for each in item.user_properties if each[0] != ATTRIBUTE]
    item.stash[SENT] = 0, 0


def journal_of(item: pytest.Item) -> Journal:
    """Where the expectations of a test keep their records."""
    if JOURNAL not in item.stash:
        from pytest_tcpresilience.records.journal import Journal

        def kept(record: Record) -> None:
            # JUnit's writer takes them from the last report; the timeline is too long for it.
            text = json.dumps(record.to_json(timeline=False))
            item.user_properties.append((ATTRIBUTE, text))

        item.stash[JOURNAL] = Journal(
            name_of(item),
            client=item.name,
            versions=_versions(),
            libraries=functools.partial(_libraries, item),
            kept=kept,
        )
    return item.stash[JOURNAL]


@functools.cache
def _versions() -> Mapping[str, str]:
    import platform

    from pytest_tcpresilience.kernel import capabilities

    return {
        "python": platform.python_version(),
        "kernel": capabilities.kernel_name(),
        "pytest": pytest.__version__,
        "pytest-tcpresilience": __version__,
    }


def _libraries(item: pytest.Item, record: Record) -> Mapping[str, str]:
    from pytest_tcpresilience.records import libraries

    module: Any = getattr(item, "module", None)
    packages = set(libraries.used_by(vars(module)) if module is not None else ())
    if record.error is not None:
        packages.add(libraries.top_level(record.error.type))
    named = item.config.stash.get(LIBRARIES, {})
    return {**libraries.versions_of(packages), **named}


def hand_over(item: pytest.Item, report: pytest.TestReport) -> None:
    """Put on the report what no earlier report of this test has taken."""
    journal = item.stash.get(JOURNAL, None)
    if journal is None:
        return
    records, deselected = journal.records, journal.deselected
    sent, told = item.stash[SENT]
    if len(records) == sent and len(deselected) == told:
        return
    item.stash[SENT] = len(records), len(deselected)
    luggage = {
        "records": [record.to_json() for record in records[sent:]],
        "deselected": deselected[told:],
    }
    setattr(report, ATTRIBUTE, json.dumps(luggage))
