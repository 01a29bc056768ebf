"""Finds, starts, calls and ends engines.

The HTTP to them and toxiproxy-python are known in this room only. Nothing is imported from
there before an engine is wanted: a session without links stays free of them.
"""

from __future__ import annotations

from pytest_tcpresilience.control.carrier import Carrier
from pytest_tcpresilience.control.engine import POLL_S, Engine, Invitation
from pytest_tcpresilience.control.owner import EngineOwner

__all__ = ["POLL_S", "Carrier", "Engine", "EngineOwner", "Invitation"]
