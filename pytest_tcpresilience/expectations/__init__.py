"""What a test expects of its client when a link breaks.

Plain context managers for sync, asyncio and trio blocks alike: the rescue wakes whoever
is blocked, so none of them has to interrupt a healthy program.
"""

from __future__ import annotations

from pytest_tcpresilience.expectations.continues import (
    Closing,
    Quiet,
    Survival,
    closes_within,
    stays_quiet,
    survives,
)
from pytest_tcpresilience.expectations.detection import Detection
from pytest_tcpresilience.expectations.detects_break import detects_break
from pytest_tcpresilience.expectations.fast_forward import FastForward, fast_forward
from pytest_tcpresilience.expectations.recovers import Recovery, recovers
from pytest_tcpresilience.expectations.static_checks import (
    UselessSettingWarning,
    assert_keepalive,
    keepalive_of,
)

__all__ = [
    "Closing",
    "Detection",
    "FastForward",
    "Quiet",
    "Recovery",
    "Survival",
    "UselessSettingWarning",
    "assert_keepalive",
    "closes_within",
    "detects_break",
    "fast_forward",
    "keepalive_of",
    "recovers",
    "stays_quiet",
    "survives",
]
