"""An object of a request as Go's ``encoding/json`` reads it.

Pure. Owns what is the same for every body and for what is nested in one: Toxiproxy's
clients, in whatever language, are tested against that reader.
"""

from __future__ import annotations

from typing import Any

from pytest_tcpresilience.engine.errors import bad_body


def fields(document: object, what: str = "an object is wanted") -> dict[str, Any]:
    """The fields of an object as Go reads them, for whose server clients are written.

    ``null`` is an object without fields, a field that is ``null`` is not given, and
    capitals make no difference to a name; of two fields with one name the last counts.

    :raises ApiError: 400 for anything else.
    """
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise bad_body(f"json: {what}")
    return {name.lower(): value for name, value in document.items() if value is not None}
