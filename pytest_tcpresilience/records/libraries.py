"""The client's own packages, by the names and versions under which they are installed.

Owns the way from the code of a test to the distributions that it uses. A change of what a
client does is often a change of its library, and the version in a record is what tells.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from types import ModuleType

# Those that run the test, and whose versions say nothing of the client.
OURS = frozenset({"pytest", "_pytest", "pytest_tcpresilience", "pluggy", "xdist", "builtins"})


def top_level(name: str) -> str:
    return name.partition(".")[0]


def used_by(namespace: Mapping[str, object]) -> frozenset[str]:
    """Top-level packages from which a module's names come, without the standard library's."""
    found = set()
    for value in list(namespace.values()):
        if isinstance(value, ModuleType):
            name = value.__name__
        else:
            name = getattr(value, "__module__", None) or ""
        if isinstance(name, str):
            found.add(top_level(name))
    return frozenset(found - sys.stdlib_module_names - OURS - {""})


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The distributions of top-level packages; those that are none are left out."""
    found: dict[str, str] = {}
    for package in sorted(set(packages)):
        installed = _installed(package)
        if installed is not None:
            found[installed[0]] = installed[1]
    return found


def versions_of_distributions(names: Iterable[str]) -> dict[str, str]:
    """By the names of distributions, as in a requirements file; "" for one that is not there."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


@functools.cache
def _installed(package: str) -> tuple[str, str] | None:
    if package in sys.stdlib_module_names or package in OURS:
        return None
    try:
        distribution = metadata.distribution(package)
    except (metadata.PackageNotFoundError, ValueError):
        names = _providers().get(package)
        if not names:
            return None
        distribution = metadata.distribution(sorted(names)[0])
    if _is_editable(distribution):
        return None
    return distribution.metadata["Name"], distribution.version


@functools.cache
def _providers() -> Mapping[str, list[str]]:
    # Reads the metadata of everything that is installed, so only for packages that are not
    # called like their distribution.
    return metadata.packages_distributions()


def _is_editable(distribution: metadata.Distribution) -> bool:
    # The project under test itself: its version changes with each commit of its own.
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable"))
