"""One frozen object with everything that a user can set.

Owns the options: their names, defaults, checks, and the order ini < environment <
command line < marker. Each option is one row of a table, from which the command line, the
ini file, the environment variable and the documentation follow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.options import NamedOption

MARKER = "resilience"
LONG_WAIT = "long_wait"
LONG_WAIT_DESCRIPTION = (
    f"{LONG_WAIT}: the test waits at least --resilience-long-wait; added to those whose "
    f"@pytest.mark.{MARKER}(wait=…) says so"
)
# What only the marker can say: no session waits.
WAIT = "wait"


@dataclass(frozen=True)
class Option(NamedOption):
    """One setting, in seconds. ``name`` is the field of :class:`Settings`.

    :param of_session: whether it is the same for all tests, so that no marker may set it.
    """

    default: float
    help: str
    of_session: bool = False


OPTIONS = (
    Option(
        "slack",
        0.5,
        "seconds after the end of its window in which a late client is still waited for, "
        "before it is woken",
    ),
    Option(
        "hit_timeout",
        60.0,
        "seconds that an expectation waits for a fault to hit",
    ),
    Option(
        "engine_timeout",
        10.0,
        "seconds that the engine may take to start, or to answer a call",
    ),
    Option(
        "long_wait",
        10.0,
        "seconds that a test must be going to wait to be a long_wait",
        of_session=True,
    ),
)
# The keyword arguments of the marker.
MARKED = (*(option.name for option in OPTIONS if not option.of_session), WAIT)


@dataclass(frozen=True)
class Settings:
    """What is in force for one test. Times are in seconds.

    :param wait: how long the test says that it is going to wait; 0 when it says nothing.
    :param complete: show all of a long timeline (``pytest -vv``).
    """

    slack: float = OPTIONS[0].default
    hit_timeout: float = OPTIONS[1].default
    engine_timeout: float = OPTIONS[2].default
    long_wait: float = OPTIONS[3].default
    wait: float = 0.0
    complete: bool = False

    @property
    def waits_long(self) -> bool:
        return self.wait >= self.long_wait


def _seconds(text: object, origin: str) -> float:
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(text, bool) or not math.isfinite(value) or value <= 0:
        raise UsageError(
            f"{origin}: {text!r} is no time",
            expected="seconds greater than 0",
            happened=f"got {text!r}",
            advice=f"correct {origin}",
        )
    return value


def resolve(
    ini: Mapping[str, Any], environment: Mapping[str, str], flags: Mapping[str, Any]
) -> Settings:
    """The settings of a session.

    :param ini: values by ini name, ``None`` or "" where not given.
    :param environment: the process's.
    :param flags: values by option name, ``None`` where not given.
    :raises UsageError: naming where a bad value came from.
    """
    values: dict[str, Any] = {}
    for option in OPTIONS:
        given = option.given(ini, environment, flags)
        if given is not None:
            origin, value = given
            values[option.name] = _seconds(value, origin)
    return Settings(**values)


def with_marker(settings: Settings, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Settings:
    """The settings of a test that carries ``@pytest.mark.resilience(...)``.

    :raises UsageError: for positional or unknown arguments, or bad values.
    """
    unknown = [*map(repr, args), *(name for name in kwargs if name not in MARKED)]
    if unknown:
        raise UsageError(
            f"@pytest.mark.{MARKER}: cannot use {', '.join(unknown)}",
            expected=f"keyword arguments out of {', '.join(MARKED)}",
            happened=f"got {', '.join(unknown)}",
            advice=f"write for example @pytest.mark.{MARKER}(slack=1.0)",
        )
    checked: dict[str, Any] = {
        name: _seconds(value, f"@pytest.mark.{MARKER}({name}=…)") for name, value in kwargs.items()
    }
    return replace(settings, **checked)
