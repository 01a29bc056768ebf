"""What an expectation leaves behind: a record of what the client did, as plain data.

Owns the shape of a record, how one is made from what was seen, and where a test keeps its
own. It knows neither pytest nor files; what is made of records is
:mod:`pytest_tcpresilience.report`'s.
"""

from __future__ import annotations
