"""What the kernel counts for one TCP connection: ``struct tcp_info``, as far as it is used.

Owns the layout and the units; times come out in seconds.

Source: uapi/linux/tcp.h. Later kernels append fields and never move one.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

# By offset: 2 retransmits, 3 probes, 8 rto, 24 unacked, 44 last_data_sent,
# 52 last_data_recv, 56 last_ack_recv, 68 rtt, 100 total_retrans.
_HEAD = struct.Struct("=2xBB4xI12xI16xI4xII8xI28xI")
# 136 segs_out, 140 segs_in.
_SEGMENTS = struct.Struct("=II")
_SEGMENTS_AT = 136


# A tuple, because it is made at each look, and a frozen dataclass takes thrice as long.
class TcpInfo(NamedTuple):
    """:param retransmissions: of the segment in front, so far (``tcpi_retransmits``).
    :param probes: keepalive or zero-window probes unanswered so far.
    :param rto: seconds, the retransmission timeout now in force.
    :param rtt: seconds, smoothed.
    :param unacknowledged: segments in flight.
    :param last_data_sent: seconds ago.
    :param last_data_received: seconds ago.
    :param last_ack_received: seconds ago. Any segment that acknowledges counts.
    :param total_retransmissions: segments, in the connection's life.
    :param segments_out: since the beginning, with or without data; 0 before Linux 4.2.
    :param segments_in: likewise.
    """

    retransmissions: int
    probes: int
    rto: float
    rtt: float
    unacknowledged: int
    last_data_sent: float
    last_data_received: float
    last_ack_received: float
    total_retransmissions: int
    segments_out: int
    segments_in: int

    @classmethod
    def parse(cls, data: bytes) -> TcpInfo:
        """:raises struct.error: for less than Linux 2.6 has."""
        front, probes, rto, flying, sent, received, acked, rtt, total = _HEAD.unpack_from(data)
        out, into = 0, 0
        if len(data) >= _SEGMENTS_AT + _SEGMENTS.size:
            out, into = _SEGMENTS.unpack_from(data, _SEGMENTS_AT)
        return cls(
            front,
            probes,
            rto / 1e6,
            rtt / 1e6,
            flying,
            sent / 1e3,
            received / 1e3,
            acked / 1e3,
            total,
            out,
            into,
        )
