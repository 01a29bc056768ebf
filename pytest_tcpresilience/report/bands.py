"""Times that two runs agree on: a band in the place of a measured moment.

Owns which band a time belongs to, and whether a later time still fits. A contract holds bands
and no measurements, so that two runs of the same code write the same file, on a quiet machine
and on a busy one. Pure arithmetic.

Four rules, the first that applies:

* What was fast-forwarded has a time by arithmetic alone, in production: that, exactly.
* A keepalive or a user timeout of a client whose settings were read: the kernel's own window for
  these settings. It begins early, since nobody can say for how long the connection had been
  idle when the fault came, whether its last probe was answered, or when the client wrote.
* The reset that answers the first probe after an eviction, of such a client: from the fault to
  the latest moment of that probe, likewise.
* Anything else, a timer of the client's, a FIN, an orderly retry: a class of
  :data:`CLASSES_S`. Timers are late and hardly ever early, so a class begins a little *below*
  its number, where no timer of that number comes to lie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.records.record import Record, Settings
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.windows import (
    EARLY_S,
    SCHEDULING_S,
    WHEEL_FLOOR_S,
    WHEEL_SHARE,
    first_probe_s,
    first_probe_window,
    unacknowledged_window,
)
from pytest_tcpresilience.tcp.windows import within as window_of

# Where the classes begin, in seconds: each about four times the one before, in numbers that
# timers are set to.
CLASSES_S = (0.0, 1.0, 4.0, 15.0, 60.0, 240.0, 900.0)
# By so much a class begins below its number. A timer of the number itself is at most EARLY_S
# early; one in the class below, up to 0.67 s, 3.1 s, 12.1 s, …, is still there at its latest.
BELOW_SHARE = 0.08
# The lateness that a window allows a timer (tcp/windows.py), beyond WHEEL_SHARE of it.
LATE_S = WHEEL_FLOOR_S + SCHEDULING_S


@dataclass(frozen=True)
class Band:
    """Seconds. :param latest: ``None`` for no upper end."""

    earliest: float
    latest: float | None

    def agrees(self, seconds: float) -> bool:
        """Whether a later time is the same, as far as times can be.

        That is so when a timer within the band may have fired then: as late as a window
        allows it to, or as early.
        """
        if self == class_of(seconds):
            return True
        at_least = (seconds - LATE_S) / (1 + WHEEL_SHARE)
        return self.earliest <= seconds + EARLY_S and (
            self.latest is None or at_least <= self.latest
        )

    def to_json(self) -> dict[str, float]:
        document = {"earliest": self.earliest}
        return document if self.latest is None else {**document, "latest": self.latest}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Band:
        """:raises ValueError: for what is no band. :raises KeyError: likewise."""
        earliest, latest = document["earliest"], document.get("latest")
        for number in (earliest, 0 if latest is None else latest):
            wrong = isinstance(number, bool) or not isinstance(number, (int, float))
            if wrong or not 0 <= number < math.inf:
                raise ValueError(f"{number!r} is no time")
        return cls(float(earliest), None if latest is None else float(latest))

    def __str__(self) -> str:
        if self.latest is None:
            return f"{self.earliest:g} s or more"
        if self.earliest == self.latest:
            return f"{self.latest:g} s"
        if not self.earliest:
            return f"less than {self.latest:g} s"
        return f"{self.earliest:g} s to {self.latest:g} s"


def class_of(seconds: float) -> Band:
    """The class that a measured time belongs to."""
    begun = max(
        number for number, low in enumerate(CLASSES_S) if seconds >= low * (1 - BELOW_SHARE) - 1e-9
    )
    ends = (*CLASSES_S[1:], None)
    return Band(CLASSES_S[begun], ends[begun])


def kernels_band(mechanism: str, settings: Settings) -> Band | None:
    """The kernel's window for these settings, whenever the fault came.

    :returns: ``None`` where that is no matter of these settings.
    """
    keepalive = _keepalive(settings)
    if keepalive is None:
        return None
    if mechanism == "keepalive" and keepalive.enabled:
        window = window_of(keepalive, idle_for=math.inf)
        return Band(round(window.earliest, 2), round(window.latest, 2))
    if mechanism == "user_timeout" and keepalive.user_timeout:
        # Its clock starts with the client's own write, which may have come before the fault.
        return Band(0.0, round(unacknowledged_window(keepalive).latest, 2))
    return None


def _keepalive(settings: Settings) -> Keepalive | None:
    try:
        return Keepalive(
            settings.idle,
            settings.interval,
            settings.probes,
            user_timeout=settings.user_timeout_ms / 1000,
            enabled=settings.enabled,
        )
    except UsageError:  # numbers that no kernel has
        return None


def probes_band(record: Record) -> Band | None:
    """For a reset that answered a probe: up to the latest moment of one.

    :returns: ``None`` where it was something else, such as a write, that was answered.
    """
    seconds = time_of(record)
    evicted = record.mechanism == "reset" and record.effect == "evict_reset"
    if not evicted or seconds is None or record.settings is None:
        return None
    keepalive = _keepalive(record.settings)
    if keepalive is None or not keepalive.enabled:
        return None
    idle_for = [
        each.fields.get("idle_for", 0.0) for each in record.timeline if each.kind == "fault_hit"
    ]
    due = first_probe_s(keepalive) - idle_for[0] if idle_for else 0.0
    # After a probe that was answered nobody can say when the next is due.
    earliest = due - EARLY_S - LATE_S if due > 0 else 0.0
    latest = first_probe_window(keepalive).latest
    return Band(0.0, round(latest, 2)) if earliest <= seconds <= latest else None


def time_of(record: Record) -> float | None:
    """When the client noticed, in seconds after the fault, in production if that is known.

    ``None`` too for what came before the fault: how long before is chance.
    """
    seconds = record.after if record.nominal is None else record.nominal
    return None if seconds is None or seconds < 0 else seconds


def noticed(record: Record) -> Band | None:
    """For the time after which the client noticed."""
    seconds = time_of(record)
    if seconds is None:
        return None
    if record.nominal is not None and record.nominal != record.after:
        return Band(round(seconds, 2), round(seconds, 2))
    if record.settings is not None:
        band = kernels_band(record.mechanism, record.settings) or probes_band(record)
        if band is not None and band.agrees(seconds):
            return band
    return class_of(seconds)


def recovered(record: Record) -> Band | None:
    """For the time that the recovery took."""
    return None if record.recovery is None else class_of(record.recovery)
