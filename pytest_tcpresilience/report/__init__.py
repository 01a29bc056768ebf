"""What a run keeps and shows: its document, the contract gate, and the reports.

Owns everything that is made of records once they have been taken. How a record comes about
is :mod:`pytest_tcpresilience.records`'. Nothing here opens a socket.
"""

from __future__ import annotations
