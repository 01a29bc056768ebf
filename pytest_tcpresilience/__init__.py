"""Test what your application does when a TCP connection dies.

The public names. Those that need the engine's client side are imported when they are
first used, so that a test session without links does not pay for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_tcpresilience._version import __version__
from pytest_tcpresilience.errors import (
    EngineDied,
    ExpectationFailed,
    FaultUnavailable,
    HarnessError,
    ResilienceError,
    UsageError,
)

if TYPE_CHECKING:
    from pytest_tcpresilience.connection import Connection, Ending, StruckFault
    from pytest_tcpresilience.evidence.health import Health
    from pytest_tcpresilience.evidence.judgements import Judgement
    from pytest_tcpresilience.evidence.readings import KeepaliveReading
    from pytest_tcpresilience.evidence.timeline import Event
    from pytest_tcpresilience.evidence.verdict import Mechanism
    from pytest_tcpresilience.expectations import (
        Closing,
        Detection,
        FastForward,
        Quiet,
        Recovery,
        Survival,
        UselessSettingWarning,
        assert_keepalive,
        closes_within,
        detects_break,
        fast_forward,
        keepalive_of,
        recovers,
        stays_quiet,
        survives,
    )
    from pytest_tcpresilience.fault import Fault
    from pytest_tcpresilience.fixtures import LinkFactory
    from pytest_tcpresilience.lab.lab import Lab
    from pytest_tcpresilience.link import Link, UpstreamUnreachableWarning
    from pytest_tcpresilience.matrix.client import Client
    from pytest_tcpresilience.matrix.faults import MatrixFault
    from pytest_tcpresilience.matrix.matrix import CellResult, Matrix, MatrixResult
    from pytest_tcpresilience.recording import RecordedRequest, RecordingServer
    from pytest_tcpresilience.stream_toxics import StreamToxic
    from pytest_tcpresilience.tcp import Keepalive, Window
    from pytest_tcpresilience.tcp.advice import Advice, advise
    from pytest_tcpresilience.tcp.middleboxes import Middlebox
    from pytest_tcpresilience.virtual.connection import VirtualConnection
    from pytest_tcpresilience.virtual.fault import VirtualFault
    from pytest_tcpresilience.virtual.link import VirtualLink
    from pytest_tcpresilience.virtual.run import VirtualTcp

__all__ = [
    "Advice",
    "CellResult",
    "Client",
    "Closing",
    "Connection",
    "Detection",
    "Ending",
    "EngineDied",
    "Event",
    "ExpectationFailed",
    "FastForward",
    "Fault",
    "FaultUnavailable",
    "HarnessError",
    "Health",
    "Judgement",
    "Keepalive",
    "KeepaliveReading",
    "Lab",
    "Link",
    "LinkFactory",
    "Matrix",
    "MatrixFault",
    "MatrixResult",
    "Mechanism",
    "Middlebox",
    "Quiet",
    "RecordedRequest",
    "RecordingServer",
    "Recovery",
    "ResilienceError",
    "StreamToxic",
    "StruckFault",
    "Survival",
    "UpstreamUnreachableWarning",
    "UsageError",
    "UselessSettingWarning",
    "VirtualConnection",
    "VirtualFault",
    "VirtualLink",
    "VirtualTcp",
    "Window",
    "__version__",
    "advise",
    "assert_keepalive",
    "closes_within",
    "detects_break",
    "fast_forward",
    "keepalive_of",
    "recovers",
    "stays_quiet",
    "survives",
]

_LAZY = {
    "Advice": "pytest_tcpresilience.tcp.advice",
    "CellResult": "pytest_tcpresilience.matrix.matrix",
    "Client": "pytest_tcpresilience.matrix.client",
    "Closing": "pytest_tcpresilience.expectations",
    "Connection": "pytest_tcpresilience.connection",
    "Detection": "pytest_tcpresilience.expectations",
    "Ending": "pytest_tcpresilience.connection",
    "Event": "pytest_tcpresilience.evidence.timeline",
    "FastForward": "pytest_tcpresilience.expectations",
    "Fault": "pytest_tcpresilience.fault",
    "Health": "pytest_tcpresilience.evidence.health",
    "Judgement": "pytest_tcpresilience.evidence.judgements",
    "Keepalive": "pytest_tcpresilience.tcp",
    "KeepaliveReading": "pytest_tcpresilience.evidence.readings",
    "Lab": "pytest_tcpresilience.lab.lab",
    "Link": "pytest_tcpresilience.link",
    "LinkFactory": "pytest_tcpresilience.fixtures",
    "Matrix": "pytest_tcpresilience.matrix.matrix",
    "MatrixFault": "pytest_tcpresilience.matrix.faults",
    "MatrixResult": "pytest_tcpresilience.matrix.matrix",
    "Mechanism": "pytest_tcpresilience.evidence.verdict",
    "Middlebox": "pytest_tcpresilience.tcp.middleboxes",
    "Quiet": "pytest_tcpresilience.expectations",
    "RecordedRequest": "pytest_tcpresilience.recording",
    "RecordingServer": "pytest_tcpresilience.recording",
    "Recovery": "pytest_tcpresilience.expectations",
    "StreamToxic": "pytest_tcpresilience.stream_toxics",
    "StruckFault": "pytest_tcpresilience.connection",
    "Survival": "pytest_tcpresilience.expectations",
    "UpstreamUnreachableWarning": "pytest_tcpresilience.link",
    "UselessSettingWarning": "pytest_tcpresilience.expectations",
    "VirtualConnection": "pytest_tcpresilience.virtual.connection",
    "VirtualFault": "pytest_tcpresilience.virtual.fault",
    "VirtualLink": "pytest_tcpresilience.virtual.link",
    "VirtualTcp": "pytest_tcpresilience.virtual.run",
    "Window": "pytest_tcpresilience.tcp",
    "advise": "pytest_tcpresilience.tcp.advice",
    "assert_keepalive": "pytest_tcpresilience.expectations",
    "closes_within": "pytest_tcpresilience.expectations",
    "detects_break": "pytest_tcpresilience.expectations",
    "fast_forward": "pytest_tcpresilience.expectations",
    "keepalive_of": "pytest_tcpresilience.expectations",
    "recovers": "pytest_tcpresilience.expectations",
    "stays_quiet": "pytest_tcpresilience.expectations",
    "survives": "pytest_tcpresilience.expectations",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
