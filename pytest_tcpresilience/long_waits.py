"""Tests that wait long, apart from those that do not: their marker, and their place in a run.

Owns what of this concerns pytest and pytest-xdist: which items are marked, what a controller
tells its workers, and when a worker puts its items in order. Which order that is, is
:mod:`.ordering`'s. Without workers the order stays as collected.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict
from typing import Any

import pytest

from pytest_tcpresilience import ordering
from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.fixtures import SETTINGS, settings_of
from pytest_tcpresilience.ordering import Distribution
from pytest_tcpresilience.settings import LONG_WAIT as MARKER

# In workerinput: a Distribution.
HANDED_OVER = "tcpresilience_distribution"
WAIT = pytest.StashKey[float]()
# What --loadscope-reorder was before it became the workers' affair.
BY_SIZE = pytest.StashKey[bool]()


def mark(item: pytest.Item) -> None:
    """Give it the marker, if it waits long enough."""
    try:
        settings = settings_of(item)
    except UsageError:
        return  # its setup will say so
    if settings.waits_long:
        item.stash[WAIT] = settings.wait
        if item.get_closest_marker(MARKER) is None:
            item.add_marker(MARKER)


def wait_of(item: pytest.Item) -> float:
    """Seconds; 0 for a short one. Who has put the marker there by hand is taken at their word."""
    by_hand = item.get_closest_marker(MARKER) is not None
    return item.stash.get(WAIT, item.config.stash[SETTINGS].long_wait if by_hand else 0.0)


def hand_over(node: Any) -> None:
    """In the controller, for a worker that is about to begin."""
    option = node.config.option
    stash = node.config.stash
    if BY_SIZE not in stash:
        stash[BY_SIZE] = bool(getattr(option, "loadscopereorder", False))
        # xdist would sort the scopes once more. The workers do what it would have done, and
        # put those with a long wait before all others.
        option.loadscopereorder = False
    how = Distribution(
        mode=option.dist,
        workers=node.workerinput["workercount"],
        chunk=getattr(option, "maxschedchunk", None),
        by_size=stash[BY_SIZE],
    )
    node.workerinput[HANDED_OVER] = asdict(how)


def take_part(config: pytest.Config) -> None:
    """In a worker: put what it collects in order."""
    handed: dict[str, Any] | None = getattr(config, "workerinput", {}).get(HANDED_OVER)
    if handed is not None:
        config.pluginmanager.register(Ordering(Distribution(**handed)), "tcpresilience_order")


class Ordering:
    """A worker's plugin."""

    def __init__(self, how: Distribution) -> None:
        self._how = how

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None]:
        yield  # everyone else deselects, sorts, and adds what xdist knows a test by
        names = [item.nodeid for item in items]
        places = ordering.order(names, [wait_of(item) for item in items], self._how)
        items[:] = [items[place] for place in places]
