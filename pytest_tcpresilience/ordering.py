"""In which order the tests of a run with workers are best collected.

Owns what is known of pytest-xdist's schedulers: which of the collected tests go to which
worker at the start, and which are handed out later. From that follows where tests that wait
long must stand, so that they begin first and side by side. Pure: times, names and numbers
in, positions out. All workers come to the same order, as xdist asks of them.

xdist hands out a list from its beginning and knows no durations. A *box* here is a set of
places in that list whose tests go to one worker together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

# Places in the list, in the order in which the worker comes to them.
Box = list[int]


@dataclass(frozen=True)
class Round:
    """Boxes that are handed out at about one time.

    :param asked_for: whether each goes to whoever asks first. Otherwise there is one for each
        worker, in their order, though it may be empty.
    """

    boxes: list[Box]
    asked_for: bool = False


@dataclass(frozen=True)
class Distribution:
    """How a run shares its tests out: plain data, since it travels to the workers.

    :param mode: of ``--dist``. :param chunk: of ``--maxschedchunk``; ``None`` for no limit.
    :param by_size: whether scopes of many tests come first (``--loadscope-reorder``).
    """

    mode: str
    workers: int
    chunk: int | None = None
    by_size: bool = False


def order(names: Sequence[str], waits: Sequence[float], how: Distribution) -> list[int]:
    """Indices of the tests, in the order in which they should be collected.

    Short tests keep their order, but for scopes, which come as xdist itself would have them.

    :param names: as xdist knows the tests. :param waits: seconds; 0 for a short test.
    """
    if how.mode in SCOPES:
        return _in_scopes(names, waits, how)
    rounds = {"load": _load, "worksteal": _worksteal}.get(how.mode)
    if rounds is None or not any(waits):
        return list(range(len(names)))
    return _place(waits, rounds(len(names), how), how.workers)


# --- which places go to one worker ----------------------------------------------------------


def _load(count: int, how: Distribution) -> Iterator[Round]:
    """``--dist=load``, by ``LoadScheduling.schedule`` and ``check_schedule`` (xdist 3.8).

    First one box for each worker, all at once; then one for whoever has almost nothing left.
    """
    if count < 2 * how.workers:  # one by one, in turn
        yield Round([list(range(worker, count, how.workers)) for worker in range(how.workers)])
        return
    most = count if how.chunk is None else how.chunk
    sizes = [max(2, min(count // how.workers // 4, most))] * how.workers
    begin = 0
    while begin < count:
        boxes = []
        at_start = begin == 0
        for size in sizes:
            boxes.append(list(range(begin, min(begin + size, count))))
            begin += len(boxes[-1])
        yield Round(boxes, asked_for=not at_start)
        sizes = _later(count - begin, how.workers, most)


def _later(left: int, workers: int, most: int) -> list[int]:
    """The next sizes. A worker whose tests take 0.1 s and more asks when one is left to it."""
    sizes = []
    for _ in range(workers):
        size = min(max(2, left // workers // 2) - 1, max(1, most))
        sizes.append(size)
        left = max(0, left - size)
    return sizes


def _worksteal(count: int, how: Distribution) -> Iterator[Round]:
    """``--dist=worksteal``: all of them at once; whoever is idle takes from the end of a box."""
    boxes = []
    begin = 0
    for worker in range(how.workers):
        size = (count - begin) // (how.workers - worker)
        boxes.append(list(range(begin, begin + size)))
        begin += size
    yield Round(boxes)


# --- long ones first, each worker its share -------------------------------------------------


def _longest_first(waits: Sequence[float]) -> list[int]:
    long = [index for index, wait in enumerate(waits) if wait > 0]
    return sorted(long, key=lambda index: (-waits[index], index))


def _place(waits: Sequence[float], rounds: Iterator[Round], workers: int) -> list[int]:
    """Deal the long ones into the boxes of each round; the short ones fill what is left."""
    long = _longest_first(waits)
    placed: dict[int, int] = {}
    loads = [0.0] * workers
    for each in rounds:
        if each.asked_for:
            loads.sort()  # who has the least will ask first
        long = _deal(long, waits, each.boxes, loads, placed)
        if not long:
            break
    short = (index for index, wait in enumerate(waits) if wait <= 0)
    return [placed[place] if place in placed else next(short) for place in range(len(waits))]


def _deal(
    long: Sequence[int],
    waits: Sequence[float],
    boxes: Sequence[Box],
    loads: list[float],
    placed: dict[int, int],
) -> list[int]:
    """The longest to the worker with the least, as far as there are places.

    :returns: the rest. ``loads`` and ``placed`` are brought up to date.
    """
    free = [list(box) for box in boxes]
    rest = list(long)
    while rest and any(free):
        open_boxes = [number for number, places in enumerate(free) if places]
        # Of two with nothing yet the longer one goes where less can follow it.
        least = min(open_boxes, key=lambda number: (loads[number], len(free[number]), number))
        index = rest.pop(0)
        placed[free[least].pop(0)] = index
        loads[least] += waits[index]
    return rest


# --- modes that keep tests together -----------------------------------------------------------


def _group(name: str) -> str:
    return name.split("@")[-1] if name.rfind("@") > name.rfind("]") else name


# What tests must have in common to stay together, by xdist's `_split_scope`.
SCOPES: dict[str, Callable[[str], str]] = {
    "loadscope": lambda name: name.rsplit("::", 1)[0],
    "loadfile": lambda name: name.split("::", 1)[0],
    "loadgroup": _group,
}


def _in_scopes(names: Sequence[str], waits: Sequence[float], how: Distribution) -> list[int]:
    """By ``LoadScopeScheduling.schedule``: one scope each, then one each for who has few tests.

    Later on, whoever has few tests left is given one more, so there the order alone counts.
    """
    scopes: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        scopes.setdefault(SCOPES[how.mode](name), []).append(index)
    # The long ones of a scope first: who has few tests left is then soon done with them.
    units = [sorted(unit, key=lambda index: (-waits[index], index)) for unit in scopes.values()]
    if how.by_size:
        units.sort(key=lambda unit: -len(unit))
    totals = [sum(waits[index] for index in unit) for unit in units]
    long = _longest_first(totals)
    # The first worker is the first to be given a second scope, so it begins with the shortest.
    begin = reversed(long[: how.workers])
    short = (place for place, total in enumerate(totals) if total <= 0)
    places = [*begin, *long[how.workers :], *short]
    return [index for place in places for index in units[place]]
