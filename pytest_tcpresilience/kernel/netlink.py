"""How netlink messages are laid out: headers, attributes, errors, answers of many parts.

Owns the framing, as pure functions over bytes. What the messages mean is
:mod:`.sockdiag`'s.

Source of the layouts: uapi/linux/netlink.h.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final

REQUEST: Final = 1
DUMP: Final = 0x300
ERROR: Final = 2
DONE: Final = 3

HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_CODE = struct.Struct("=i")


def frame(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """One message. The kernel fills in the sender's port."""
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, sequence number and body of each message in what one ``recv`` returned."""
    at = 0
    while at + HEADER.size <= len(datagram):
        length, kind, _flags, sequence, _port = HEADER.unpack_from(datagram, at)
        yield kind, sequence, datagram[at + HEADER.size : at + length]
        at += _aligned(max(length, HEADER.size))


def attribute(data: bytes, start: int, wanted: int) -> bytes | None:
    """The payload of the first attribute of this type; ``None`` where there is none."""
    at = start
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if kind == wanted:
            return data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(max(length, _ATTRIBUTE.size))
    return None


def error_of(body: bytes) -> OSError | None:
    """What an error message, or the end of a dump, says went wrong."""
    code = -_CODE.unpack_from(body)[0] if len(body) >= _CODE.size else 0
    return OSError(code, os.strerror(code)) if code else None


def _aligned(length: int) -> int:
    return (length + 3) & ~3
