"""What is known about TCP, as values and pure functions.

No socket is opened here, nothing waits, and neither pytest nor trio is known. Tables of
systems and middleboxes are not imported here: every session of pytest would pay for them.
"""

from __future__ import annotations

from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.windows import Part, Window, within

__all__ = ["Keepalive", "Part", "Window", "within"]
