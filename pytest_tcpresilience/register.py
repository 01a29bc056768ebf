"""The faults that a test has begun on a link, and the way of a new one to the engine.

Owns the list, and what is refused before the engine hears of it: two schedules, and two
faults that contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.fault import Fault, byte_count, seconds
from pytest_tcpresilience.faults import FAULTS, check_compatible, meeting

if TYPE_CHECKING:
    from pytest_tcpresilience.link import Link


class FaultRegister:
    """The faults of one link and of its connections."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._faults: list[Fault] = []

    def __bool__(self) -> bool:
        return bool(self._faults)

    def start(
        self,
        name: str,
        *,
        connection: int = 0,
        when_idle: float | None = None,
        after: float | None = None,
        after_bytes: int | None = None,
        timeout_ms: int | None = None,
        words: Mapping[str, str] | None = None,
    ) -> Fault:
        """Have the engine begin a fault of the table.

        :param connection: the number of the only connection that it acts on; 0 for all.
        :param timeout_ms: the length of a stall, for the fault that has one.
        :param words: attributes that are no numbers.
        :raises UsageError: for a schedule that makes no sense, a connection that is not
            open, and a fault that contradicts one in force.
        """
        schedules = {"when_idle": when_idle, "after": after, "after_bytes": after_bytes}
        given = {key: value for key, value in schedules.items() if value is not None}
        check_schedule(name, given)
        attributes: dict[str, int | str] = {"when_idle": seconds("when_idle", when_idle)}
        attributes.update(words or {})
        if timeout_ms is None:
            attributes["after"] = seconds("after", after)
        else:
            attributes["timeout"] = timeout_ms
        if after_bytes is not None:
            attributes["after_bytes"] = byte_count("after_bytes", after_bytes)
        scheduled = bool(given) or FAULTS[name].must_hit
        return self.begin(name, attributes, connection=connection, scheduled=scheduled)

    def begin(
        self,
        name: str,
        attributes: Mapping[str, int | str],
        *,
        connection: int = 0,
        scheduled: bool = False,
    ) -> Fault:
        """As :meth:`start`, for the engine's own attributes.

        :param scheduled: whether it must hit before the link ends.
        """
        self._check(name, connection, scheduled=scheduled)
        target = {"connection": connection} if connection else {}
        toxic = self._link.post_toxic(name, {"attributes": {**attributes, **target}})
        fault = Fault(self._link, FAULTS[name], toxic, scheduled, connection)
        self._faults.append(fault)
        return fault

    def _check(self, name: str, connection: int, *, scheduled: bool) -> None:
        self._link.check_usable()
        if not self._link.enabled and not scheduled and FAULTS[name].new_connections == "pass":
            raise UsageError(
                f"{name} on a link that is not enabled acts on nothing",
                expected="connections for it to act on: it leaves new ones alone",
                happened="the link has none, and takes none before link.enable()",
                advice="give it a schedule (when_idle=, after= or after_bytes=), or begin it "
                "once link.wait_for_connection() has returned",
            )
        # Asking each whether it is in force is a question to the engine.
        others = meeting(name, connection, [(each.name, each.connection) for each in self._faults])
        if set(others) & set(FAULTS[name].excludes):
            active = [(each.name, each.connection) for each in self._faults if each.active]
            check_compatible(name, meeting(name, connection, active))

    def check_all_hit(self, events: Iterable[Event]) -> None:
        """:raises UsageError: for a scheduled fault that neither hit nor was called off."""
        hit = {event["toxic"] for event in events if event.kind == "fault_hit"}
        for fault in self._faults:
            if fault.never_hit(hit):
                raise UsageError(
                    f"the {'armed' if fault.waits_for_client else 'scheduled'} {fault.name} "
                    "never hit",
                    expected="a fault that acts before the test ends",
                    happened="the test ended first, or no client closed its connection"
                    if fault.waits_for_client
                    else "the test ended first, or no connection was idle for long enough "
                    "or carried enough bytes",
                    advice="wait for it with fault.wait_until_hit(), or lift it",
                )


def check_schedule(name: str, given: Mapping[str, object]) -> None:
    """:raises UsageError: for more than one schedule."""
    if len(given) > 1:
        raise UsageError(
            f"{name}: {' and '.join(f'{key}=' for key in given)} together",
            expected="one schedule",
            happened="got " + " and ".join(f"{key}={value!r}" for key, value in given.items()),
            advice="drop one of them",
        )
