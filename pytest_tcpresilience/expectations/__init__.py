"""What a test expects of its client when a link breaks.

Plain context managers for sync, asyncio and trio blocks alike: the rescue wakes whoever
is blocked, so none of them has to interrupt a healthy program.
"""

from __future__ import annotations

from pytest_tcpresilience.expectations.detection import Detection
from pytest_tcpresilience.expectations.detects_break import detects_break

__all__ = ["Detection", "detects_break"]
