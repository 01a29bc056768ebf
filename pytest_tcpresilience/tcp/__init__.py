"""What is known about TCP, as values and pure functions.

No socket is opened here, nothing waits, and neither pytest nor trio is known.
"""

from __future__ import annotations

from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.middleboxes import Middlebox, middlebox_named
from pytest_tcpresilience.tcp.windows import Part, Window, within

__all__ = ["Keepalive", "Middlebox", "Part", "Window", "middlebox_named", "within"]
