"""The two byte streams of a connection: what is to be sent, and what has come in.

Owns sequence space: which byte has which number, what is unacknowledged, what is missing,
and the receive window (RFC 9293, sections 3.4 and 3.8.6). Numbers here never wrap. It knows
neither states nor time.
"""

from __future__ import annotations

# Linux's default for what it buffers at first, and the most that a window field without
# scaling can say.
RECEIVE_BYTES = 65535
SEND_BYTES = 65536
# Ethernet's 1500 bytes without the headers of IPv4 and TCP.
MSS = 1460


class Outgoing:
    """SND.UNA, SND.NXT, SND.WND, and the bytes behind them.

    :param first: the number of the SYN; the first byte of data has the next one.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.una = first
        self.nxt = first
        self.window = 0
        self.widest = 0
        self.fin_wanted = False
        self.fin: int | None = None
        # The byte below una, which an old-style keepalive probe repeats.
        self.last_acked = b"\0"
        self._data = bytearray()

    @property
    def _data_from(self) -> int:
        return max(self.una, self.first + 1)

    @property
    def end(self) -> int:
        """The number after the last byte that the application has written."""
        return self._data_from + len(self._data)

    @property
    def room(self) -> int:
        return SEND_BYTES - len(self._data)

    @property
    def unacknowledged(self) -> int:
        """Bytes of data sent and not acknowledged."""
        return max(min(self.nxt, self.end) - self._data_from, 0)

    @property
    def waiting(self) -> bool:
        """Whether there is data, or a FIN, that has never been sent."""
        return self.nxt < self.end or (self.fin_wanted and self.fin is None)

    def write(self, data: bytes) -> int:
        """Take what there is room for; how much that was."""
        taken = data[: self.room]
        self._data += taken
        return len(taken)

    def slice(self, start: int, most: int) -> bytes:
        offset = start - self._data_from
        return bytes(self._data[offset : offset + most])

    def next_bytes(self) -> bytes:
        """What may be sent now for the first time, at most a segment's worth."""
        usable = self.una + self.window - self.nxt
        return self.slice(self.nxt, min(usable, MSS)) if usable > 0 else b""

    def first_unacknowledged(self) -> bytes:
        """What is to be sent once more."""
        return self.slice(self._data_from, min(MSS, self.unacknowledged))

    def acknowledge(self, ack: int) -> None:
        """Everything before ``ack`` has arrived."""
        gone = min(ack, self.end) - self._data_from
        if gone > 0:
            self.last_acked = bytes(self._data[gone - 1 : gone])
            del self._data[:gone]
        self.una = ack

    @property
    def fin_acked(self) -> bool:
        return self.fin is not None and self.una > self.fin


class Incoming:
    """RCV.NXT, RCV.WND, and the bytes that wait for the application.

    :param expected: RCV.NXT.
    """

    def __init__(self, expected: int = 0) -> None:
        self.nxt = expected
        self.fin: int | None = None
        self.ended = False
        self._ready = bytearray()
        self._early: dict[int, bytes] = {}
        self._edge = expected

    @property
    def available(self) -> int:
        """Bytes that the application can read."""
        return len(self._ready)

    @property
    def position(self) -> int:
        """The number of the next byte that the application reads."""
        return self.nxt - len(self._ready) - self.ended

    @property
    def window(self) -> int:
        """RCV.WND, as it was last announced to the peer."""
        return max(self._edge - self.nxt, 0)

    def announce(self) -> int:
        """The window for the next segment that is sent.

        It grows in steps of a segment at least, so that nobody sends crumbs (RFC 9293,
        section 3.8.6.2.2), and its right edge never moves back.
        """
        edge = self.nxt + RECEIVE_BYTES - len(self._ready)
        if edge - self._edge >= min(RECEIVE_BYTES // 2, MSS):
            self._edge = edge
        return self.window

    @property
    def worth_announcing(self) -> bool:
        """Whether the peer, which may be waiting for it, should hear of a wider window."""
        grown = self.nxt + RECEIVE_BYTES - len(self._ready) - self._edge
        return grown >= MSS and self.window < MSS

    def read(self, most: int) -> bytes:
        data = bytes(self._ready[:most])
        del self._ready[:most]
        return data

    def forget(self, count: int) -> None:
        """The last bytes that came in never reach the application."""
        if count:
            del self._ready[-count:]

    def arrive(self, seq: int, data: bytes, fin: bool) -> None:
        """Bytes from ``seq`` on: keep what is new, in any order, and join what fits."""
        if fin and self.fin is None:
            self.fin = seq + len(data)
        last = self.nxt + self.window
        start, stop = max(seq, self.nxt), min(seq + len(data), last)
        if stop > start:
            known = self._early.get(start, b"")
            if stop - start > len(known):
                self._early[start] = data[start - seq : stop - seq]
        while (begin := min(self._early, default=last + 1)) <= self.nxt:
            piece = self._early.pop(begin)[self.nxt - begin :]
            self._ready += piece
            self.nxt += len(piece)
        if self.fin == self.nxt and not self.ended:
            self.ended = True
            self.nxt += 1
