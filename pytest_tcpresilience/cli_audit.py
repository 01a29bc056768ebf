"""``python -m pytest_tcpresilience audit``: who on this host would notice a dead peer, and when.

Owns the command's arguments, its table and its exit status: 0 when every connection keeps
the promise, 1 when one does not or cannot be judged, 2 for what cannot be done as it was
asked. Nothing is sent to any peer, and no socket is changed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.evidence.judgements import Judgement, judge
from pytest_tcpresilience.evidence.promises import (
    Promise,
    idle_death_at_least_s,
    idle_death_s,
    write_death_s,
)
from pytest_tcpresilience.evidence.readings import KeepaliveReading
from pytest_tcpresilience.evidence.units import duration
from pytest_tcpresilience.kernel import owners, processes
from pytest_tcpresilience.kernel.sockdiag import Listed
from pytest_tcpresilience.reading import list_connections, read_listed, system_defaults
from pytest_tcpresilience.tcp.addresses import join_address
from pytest_tcpresilience.tcp.middleboxes import Middlebox, middlebox_named

COMMAND = "audit"
HOLDS, FAILS, REFUSED = 0, 1, 2
COLUMNS = ("verdict", "idle death", "death with data", "keepalive", "process", "connection")
_WORST_FIRST = ("fails", "unknown", "holds")


class _Refused(Exception):
    """Told in one line."""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Make the command known."""
    command = commands.add_parser(
        COMMAND,
        help="list the TCP connections of a process or this host by when they notice a death",
        description="List every established TCP connection of a process or of this host with "
        "its keepalive settings and the time in which it notices that its peer is dead, worst "
        "first. Without a promise, keepalive has to be on. Exit status: 0 when all keep the "
        "promise, 1 when one does not or cannot be judged, 2 for an error.",
    )
    command.add_argument("--pid", type=_number, metavar="N", help="of this process only")
    command.add_argument(
        "--within", type=_time, metavar="S", help="seconds to notice the death of an idle peer"
    )
    command.add_argument(
        "--writes-within", type=_time, metavar="S", help="seconds, with unacknowledged data"
    )
    command.add_argument(
        "--behind",
        type=_box,
        metavar="BOX",
        help="must keep an idle connection alive behind it: the name of a middlebox, such as "
        "aws-nlb, or the seconds after which it forgets",
    )
    command.add_argument("--json", action="store_true", help="print JSON in place of the table")


def run(arguments: argparse.Namespace) -> int:
    """:returns: the exit status."""
    promise = Promise(
        arguments.within,
        arguments.writes_within,
        arguments.behind,
        processes.tcp_retries2(),
        system_defaults(),
    )
    try:
        judgements = worst_first(
            [judge(reading, promise) for reading in read_listed(_listed(arguments.pid))],
        )
    except _Refused as error:
        print(f"audit: {error}", file=sys.stderr)
        return REFUSED
    show = as_json if arguments.json else as_text
    try:
        print(show(judgements, promise), flush=True)
    except BrokenPipeError:  # as of `audit | head`; Python would complain at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return HOLDS if all(each.verdict == "holds" for each in judgements) else FAILS


# --- arguments ----------------------------------------------------------------------------


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _time(text: str) -> float:
    time = float(text)
    if not math.isfinite(time) or time <= 0:
        raise ValueError(text)
    return time


def _box(text: str) -> Middlebox:
    try:
        seconds = float(text)
    except ValueError:
        try:
            return middlebox_named(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(f"{error.summary}; {error.advice}") from error
    try:
        return Middlebox(seconds, name="the middlebox")
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.summary) from error


# argparse names the type: "invalid time value".
_number.__name__, _time.__name__ = "process", "time"


# --- what there is ------------------------------------------------------------------------


def _listed(pid: int | None) -> list[Listed]:
    try:
        listed = list_connections()
        if pid is not None:
            inodes = owners.of_process(pid)
            listed = [each for each in listed if each.seen.inode in inodes]
    except FileNotFoundError as error:
        raise _Refused(
            "this system has neither sock_diag nor /proc/net/tcp"
            if pid is None
            else f"there is no process {pid}"
        ) from error
    except PermissionError as error:
        raise _Refused(f"process {pid} is another user's") from error
    established = [each for each in listed if each.seen.state == "established"]
    if not established:
        # A gate with nothing to judge must not pass.
        whose = "on this host" if pid is None else f"in process {pid}"
        raise _Refused(f"there is no established TCP connection {whose}")
    return established


def worst_first(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Failures before what is unknown before what holds; in each, the slowest first."""

    def rank(each: Judgement) -> tuple[int, float, float]:
        idle = idle_death_s(each.reading)
        slowness = idle_death_at_least_s(each.reading) if idle is None else idle
        return _WORST_FIRST.index(each.verdict), -slowness, -(write_death_s(each.reading) or 0.0)

    return sorted(judgements, key=rank)


# --- how it is shown ----------------------------------------------------------------------


def as_text(judgements: Sequence[Judgement], promise: Promise) -> str:
    """An aligned table, what is wrong, and a summary."""
    rows = [COLUMNS, *(_row(each, promise) for each in judgements)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    counts = [
        f"{word}: {count}"
        for word in _WORST_FIRST
        if (count := sum(each.verdict == word for each in judgements))
    ]
    summary = f"{_connections(len(judgements))}: {', '.join(counts)} (promised: {promise})"
    return "\n".join([*lines, "", *_reasons(judgements), summary])


def _row(each: Judgement, promise: Promise) -> tuple[str, ...]:
    reading = each.reading
    data = write_death_s(reading, promise.retries2)
    who = f"{reading.pid} {reading.process}" if reading.pid else "?"
    return (
        each.verdict,
        _idle_words(reading),
        "?" if data is None else duration(data),
        reading.known,
        who,
        f"{join_address(*reading.client)} > {join_address(*reading.server)}",
    )


def _idle_words(reading: KeepaliveReading) -> str:
    idle = idle_death_s(reading)
    if idle is not None:
        return "never" if idle == math.inf else duration(idle)
    if reading.next_probe_in is not None:
        return f"> {duration(idle_death_at_least_s(reading))}"
    return "?"


def _reasons(judgements: Sequence[Judgement]) -> list[str]:
    """Each sentence once, with how many connections it is true of."""
    counted: dict[str, int] = {}
    for each in judgements:
        partial = [f"partly known: {each.reading.partial}"] if each.reading.partial else []
        for why in [*(finding.why for finding in each.findings), *partial]:
            counted[why] = counted.get(why, 0) + 1
    lines = [f"{_connections(count)}: {why}" for why, count in counted.items()]
    return [*lines, ""] if lines else []


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def as_json(judgements: Sequence[Judgement], promise: Promise) -> str:
    """One document; a time that is not known, or endless, is null."""
    return json.dumps(
        {
            "promise": str(promise),
            **{word: sum(each.verdict == word for each in judgements) for word in _WORST_FIRST},
            "connections": [_document(each, promise) for each in judgements],
        },
        indent=2,
    )


def _document(each: Judgement, promise: Promise) -> dict[str, Any]:
    reading = each.reading
    idle = idle_death_s(reading)
    return {
        "verdict": each.verdict,
        "local": list(reading.client),
        "peer": list(reading.server),
        "pid": reading.pid,
        "process": reading.process or None,
        "enabled": reading.enabled,
        "idle_s": reading.idle,
        "interval_s": reading.interval,
        "probes": reading.probes,
        "user_timeout_s": reading.user_timeout,
        "never_notices_idle_death": idle == math.inf,
        "notices_idle_death_after_s": None if idle == math.inf else idle,
        "notices_death_with_data_after_s": write_death_s(reading, promise.retries2),
        "partial": reading.partial or None,
        "unknown": list(each.unknown),
        "findings": [
            {"rule": found.rule, "fails": found.fails, "why": found.why, "cure": found.cure}
            for found in each.findings
        ],
    }
