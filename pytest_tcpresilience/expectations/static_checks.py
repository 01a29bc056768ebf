"""``keepalive_of`` and ``assert_keepalive``: a client's real settings, read and judged at once.

Owns what a test calls and what it then reads. What the settings are worth is
:mod:`..evidence.judgements`'.
"""

from __future__ import annotations

import math
import warnings

from pytest_tcpresilience.errors import ExpectationFailed, HarnessError, UsageError
from pytest_tcpresilience.evidence.judgements import Judgement, cures, describe, judge
from pytest_tcpresilience.evidence.promises import Promise
from pytest_tcpresilience.evidence.readings import KeepaliveReading
from pytest_tcpresilience.kernel import processes
from pytest_tcpresilience.link import Link
from pytest_tcpresilience.reading import system_defaults
from pytest_tcpresilience.records.making import settings_of
from pytest_tcpresilience.records.record import Reason, Record
from pytest_tcpresilience.tcp.middleboxes import Middlebox


class UselessSettingWarning(UserWarning):
    """A client's setting has no effect, or another one than it seems to have."""


def keepalive_of(link: Link) -> tuple[KeepaliveReading, ...]:
    """What is set on the client's socket of each open connection, oldest first.

    Reads the socket itself, whoever made it (a C library, another language), in this
    process or in another of the same user. Where that is refused, the reading is partial:
    what the socket's armed timer tells, and ``partial`` says why. Nothing is changed, and
    300 connections take some 50 milliseconds.

    :raises UsageError: for anything but a link.
    """
    return check_link("keepalive_of", link).keepalives()


def assert_keepalive(
    link: Link,
    within: float | None = None,
    *,
    writes_within: float | None = None,
    behind: Middlebox | None = None,
) -> tuple[Judgement, ...]:
    """The settings of every client that is connected must keep a promise. Nothing waits.

    :param within: seconds in which an idle connection must be found dead.
    :param writes_within: seconds in which one with unacknowledged data must be, for which
        keepalive does nothing and ``TCP_USER_TIMEOUT`` is needed.
    :param behind: a box that must not forget an idle connection.
    :returns: what was judged. A useless setting is a :class:`UselessSettingWarning`.
    :raises ExpectationFailed: with the rules that are broken and settings that keep them.
    :raises HarnessError: when a client's socket is out of reach and its timer alone proves
        neither the promise nor the contrary.
    :raises UsageError: when nothing is promised, or nobody is connected.
    """
    check_link("assert_keepalive", link)
    promise = _promise(within, writes_within, behind)
    judgements = tuple(judge(one, promise) for one in connected("assert_keepalive", link))
    _keep(link, promise, judgements)
    failed = [each for each in judgements if each.failures]
    if failed:
        raise ExpectationFailed(
            f"{_count(len(failed), len(judgements))} cannot keep the promise",
            expected=str(promise),
            happened=describe(failed),
            advice=cures(failed),
        )
    unknown = [each for each in judgements if each.unknown]
    if unknown:
        raise HarnessError(
            f"{_count(len(unknown), len(judgements))} cannot be judged",
            expected=str(promise),
            happened=describe(unknown),
            advice="run the client in the test's process, or in a process of the same user",
        )
    _warn(judgements)
    return judgements


def _keep(link: Link, promise: Promise, judgements: tuple[Judgement, ...]) -> None:
    """A record of the connection that is furthest from the promise."""
    worst = min(judgements, key=lambda each: ("fails", "unknown", "holds").index(each.verdict))
    first = next(iter(worst.failures), None)
    reading = worst.reading
    link.journal.keep(
        Record(
            test="",
            entry="",
            expectation="assert_keepalive",
            outcome=worst.verdict,
            passed=worst.verdict == "holds",
            blame={"fails": "client", "unknown": "harness"}.get(worst.verdict, ""),
            client=link.client,
            link=link.name,
            upstream=link.upstream_address,
            engine=link.engine_name,
            settings=settings_of(reading.settings) if reading.complete else None,
            cause=Reason(first.rule, first.why, first.cure) if first else None,
            summary=first.why if first else "; ".join(worst.unknown),
            expected=str(promise),
            advice=first.cure if first else "",
        )
    )


def connected(call: str, link: Link) -> tuple[KeepaliveReading, ...]:
    """:raises UsageError: when nobody is."""
    readings = link.keepalives()
    if not readings:
        raise UsageError(
            f"{call}: no client is connected to this link",
            expected="a client with an open connection through the link",
            happened="there is none",
            advice="connect the client and use it once, before its settings are judged",
        )
    return readings


def check_link(call: str, link: object) -> Link:
    """:raises UsageError: for anything but a link."""
    if not isinstance(link, Link):
        raise UsageError(
            f"{call}({link!r}) needs a link",
            expected="what tcp_link(upstream) returns",
            happened=f"got a {type(link).__name__}",
            advice="pass the link, not its address",
        )
    return link


def _promise(
    within: float | None, writes_within: float | None, behind: Middlebox | None
) -> Promise:
    for name, value in (("within", within), ("writes_within", writes_within)):
        number: object = value
        if number is None:
            continue
        if (
            isinstance(number, bool)
            or not isinstance(number, (int, float))
            or not math.isfinite(number)
            or number <= 0
        ):
            raise UsageError(
                f"assert_keepalive: {name}={number!r} is no time",
                expected=f"{name} in seconds, greater than 0",
                happened=f"got {number!r}",
                advice=f"for example {name}=60.0",
            )
    if behind is not None and not isinstance(behind, Middlebox):
        raise UsageError(
            f"assert_keepalive: behind={behind!r} is no middlebox",
            expected="a Middlebox",
            happened=f"got a {type(behind).__name__}",
            advice="for example behind=Middlebox(idle_timeout=350, then='reset')",
        )
    if within is None and writes_within is None and behind is None:
        raise UsageError(
            "assert_keepalive: nothing is promised",
            expected="within=, writes_within= or behind=",
            happened="none of them was given",
            advice="say what the client must do, for example within=60.0",
        )
    return Promise(within, writes_within, behind, processes.tcp_retries2(), system_defaults())


def _count(some: int, every: int) -> str:
    if every == 1:
        return "the client's connection"
    return f"{some} of {every} connections"


def _warn(judgements: tuple[Judgement, ...]) -> None:
    said = set()
    for each in judgements:
        for note in each.notes:
            if note.rule not in said:
                said.add(note.rule)
                text = f"{each.reading.where}, {each.reading.who}: {note.why}; {note.cure}"
                # To the caller of assert_keepalive.
                warnings.warn(text, UselessSettingWarning, stacklevel=3)
