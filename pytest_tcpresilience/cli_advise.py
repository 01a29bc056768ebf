"""``python -m pytest_tcpresilience advise``: will this client survive there?

Owns the arguments and the exit status: 0 when all is well, 1 when it is not, 2 for what
makes no sense. The judgement is :mod:`pytest_tcpresilience.tcp.advice`'s.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.tcp.advice import Advice, advise
from pytest_tcpresilience.tcp.advice_text import as_dict, render, table
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.middleboxes import (
    EVICTION_MODES,
    MIDDLEBOXES,
    Middlebox,
    middlebox_named,
)
from pytest_tcpresilience.tcp.provenance import unknown_name
from pytest_tcpresilience.tcp.stacks import STACKS, Stack, stack_named

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

COMMAND = "advise"
WELL, NOT_WELL, USAGE = 0, 1, 2
ALL = "all"


def add_to(commands: Commands) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser(
        COMMAND,
        help="say whether a client survives behind a middlebox, and what cures it",
        description="Judge a client's keepalive without waiting for anything. Exit status: 0 "
        "when its idle flow is held open, or its loss heard of in time; 1 when not; 2 for "
        "what makes no sense.",
    )
    command.add_argument(
        "--keepalive",
        default="default",
        metavar="IDLE/INTERVAL/PROBES",
        help='in seconds; "off", or "default" for the numbers of the system (%(default)s)',
    )
    command.add_argument(
        "--user-timeout", type=float, default=0.0, metavar="S", help="TCP_USER_TIMEOUT in seconds"
    )
    command.add_argument(
        "--stack", default="linux", metavar="NAME", help=f"{', '.join(STACKS)} (%(default)s)"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TUNABLE=N",
        help="a setting of the system in its own unit, such as tcp_keepidle=240",
    )
    command.add_argument(
        "--behind",
        metavar="NAME",
        help='a middlebox, SECONDS/THEN for one of your own (900/drop), or "all"',
    )
    command.add_argument(
        "--within", type=float, metavar="S", help="the longest time in which to notice, in seconds"
    )
    command.add_argument("--json", action="store_true", help="print JSON")


def _stack(name: str, settings: list[str]) -> Stack:
    stack = stack_named(name)
    for setting in settings:
        wanted, equals, number = setting.partition("=")
        found = [each for each in stack.tunables if wanted in (each.field, each.native)]
        if not found:
            raise unknown_name("tunable", wanted, [each.field for each in stack.tunables])
        digits = number.removeprefix("-")
        if not (equals and digits.isascii() and digits.isdigit()):
            raise UsageError(
                f"--set {setting} is no setting",
                expected=f"{wanted}=N with a whole number of {found[0].unit}",
                happened=f"got {setting!r}",
                advice=f"for example {wanted}={getattr(stack, found[0].field)}",
            )
        stack = replace(stack, **{found[0].field: int(number)})
    return stack


def _keepalive(text: str, user_timeout: float, stack: Stack) -> Keepalive | str:
    if text == "off":
        # The numbers do not matter; the user timeout does.
        off = Keepalive.linux_defaults(enabled=False)
        return replace(off, user_timeout=user_timeout) if user_timeout else text
    if text == "default":
        own = stack.keepalive()
        if not user_timeout:
            return text
        if own is None:
            raise UsageError(
                f"--user-timeout needs the numbers of --keepalive on {stack}",
                expected="IDLE/INTERVAL/PROBES",
                happened=f"the keepalive of {stack} is not evenly spaced",
                advice="for example --keepalive 60/10/3",
            )
        return replace(own, user_timeout=user_timeout)
    parts = text.split("/")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(
            f"--keepalive {text} is no setting",
            expected='IDLE/INTERVAL/PROBES in whole seconds, "off" or "default"',
            happened=f"got {text!r}",
            advice="for example --keepalive 7200/75/9",
        )
    idle, interval, probes = (int(part) for part in parts)
    return Keepalive(idle, interval, probes, user_timeout=user_timeout)


def _middlebox(text: str) -> Middlebox:
    seconds, slash, then = text.partition("/")
    if not slash:
        return middlebox_named(text)
    try:
        limit = float(seconds)
    except ValueError:
        raise UsageError(
            f"--behind {text} is no middlebox",
            expected=f"SECONDS/THEN, with THEN one of {', '.join(EVICTION_MODES)}",
            happened=f"{seconds!r} is no number of seconds",
            advice="for example --behind 900/drop",
        ) from None
    return Middlebox(limit, then)


def _judge(parsed: argparse.Namespace) -> list[Advice]:
    stack = _stack(parsed.stack, parsed.set)
    keepalive = _keepalive(parsed.keepalive, parsed.user_timeout, stack)
    boxes: list[Middlebox | None]
    if parsed.behind == ALL:
        boxes = [*MIDDLEBOXES.values()]
    else:
        boxes = [None if parsed.behind is None else _middlebox(parsed.behind)]
    return [advise(keepalive, stack=stack, behind=box, within=parsed.within) for box in boxes]


def run(parsed: argparse.Namespace) -> int:
    """:returns: the exit status."""
    try:
        advices = _judge(parsed)
    except UsageError as error:
        print(error, file=sys.stderr)
        return USAGE
    if parsed.json:
        plain = [as_dict(advice) for advice in advices]
        print(json.dumps(plain if parsed.behind == ALL else plain[0], indent=2))
    else:
        print(table(advices) if parsed.behind == ALL else render(advices[0]))
    return WELL if all(advice.ok for advice in advices) else NOT_WELL
