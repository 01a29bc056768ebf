"""One end of a TCP connection, sans I/O: segments and time in, segments and deadlines out.

Owns what RFC 9293, section 3.10, says happens when something arrives, when the application
calls, and when a timer fires. The rules stand in tables: :mod:`.states` (what follows
what), :mod:`.buffers` (sequence space), :mod:`.timers` and :mod:`.window` (when to send
again and when to give up), of which :mod:`.alarm` runs one at a time. It knows no network,
no trio and no clock: each call is told what time it is.

How to use it. Call :meth:`Machine.receive`, :meth:`Machine.write` and so on with the time;
then take the segments from :attr:`Machine.out`, and call :meth:`Machine.tick` at
:attr:`Machine.deadline`, if nothing came before.

Left out on purpose, because no connection dies of it: congestion control, selective
acknowledgement, timestamps, window scaling, delayed acknowledgements, urgent data.
"""

from __future__ import annotations

import errno

from pytest_tcpresilience.tcp.stacks import Stack
from pytest_tcpresilience.virtual.alarm import WAITS, Alarm, Timer
from pytest_tcpresilience.virtual.buffers import MSS, Incoming, Outgoing
from pytest_tcpresilience.virtual.segment import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    WRAP,
    Address,
    Segment,
    unwrap,
)
from pytest_tcpresilience.virtual.states import (
    BOTH_CLOSED,
    KEPT_ALIVE,
    MAY_RECEIVE,
    MAY_SEND,
    ON_FIN_ACKED,
    ON_OWN_FIN,
    ON_PEER_FIN,
    State,
    acceptable,
)
from pytest_tcpresilience.virtual.timers import Options, RoundTrips


class Machine:
    """One end of one connection.

    :param first: the initial sequence number.
    :param error: the errno with which it ended, 0 for an orderly end or none yet.
    :param gave_up: the timer that ended it, if one did.
    """

    def __init__(
        self, stack: Stack, options: Options, local: Address, peer: Address, first: int
    ) -> None:
        self.stack = stack
        self.options = options
        self.local = local
        self.peer = peer
        self.state = State.CLOSED
        self.out: list[Segment] = []
        self.error = 0
        self.gave_up: Timer | None = None
        self.outgoing = Outgoing(first)
        self.incoming = Incoming()
        self.was_established = False
        self.abandoned = False
        self._trips = RoundTrips(stack)
        self._alarm = Alarm(stack, options)
        self._passive = False
        self._timed: tuple[int, float] | None = None
        self._recover = first
        self._soft_error = 0
        self._updated_by = (0, 0)

    # --- how it begins -------------------------------------------------------------------

    def open(self, now: float) -> None:
        """Active open: send the SYN."""
        self.state = State.SYN_SENT
        self._send_syn(now)

    def open_passive(self, syn: Segment, now: float) -> None:
        """A listener's answer to a SYN."""
        self._passive = True
        self.state = State.SYN_RECEIVED
        self._synchronize(syn, now)
        self._send_syn(now)

    def _send_syn(self, now: float) -> None:
        self.outgoing.nxt = self.outgoing.first + 1
        self._timed = (self.outgoing.nxt, now)
        self._emit_syn()
        self._arm(now, restart=True)

    def _synchronize(self, syn: Segment, now: float) -> None:
        self.incoming = Incoming(syn.seq + 1)
        self.outgoing.window = self.outgoing.widest = syn.window
        self._updated_by = (syn.seq, 0)
        self._alarm.hear(now)

    # --- what the application asks for ---------------------------------------------------

    @property
    def writable(self) -> bool:
        return self.state in MAY_SEND and self.outgoing.room > 0 and not self.outgoing.fin_wanted

    @property
    def has_news(self) -> bool:
        """Whether a read would return at once: data, the end, or an error."""
        return bool(self.incoming.available or self.incoming.ended or self.state is State.CLOSED)

    def write(self, data: bytes, now: float) -> int:
        """Bytes taken, which may be fewer than given, or none."""
        taken = self.outgoing.write(data)
        self._output(now)
        return taken

    def read(self, most: int, now: float) -> bytes:
        """Up to ``most`` bytes; none when there are none."""
        data = self.incoming.read(most)
        if self.incoming.worth_announcing and self.state in MAY_RECEIVE:
            self._emit_ack()
        return data

    def shutdown(self, now: float) -> None:
        """FIN, once everything written has been sent: half-close."""
        self.outgoing.fin_wanted = True
        self._output(now)

    def close(self, now: float) -> None:
        """The application lets go. What it has not read, it loses, and the peer is told so.

        RFC 1122, section 4.2.2.13: RST, if data would be lost; FIN otherwise.
        """
        self.abandoned = True
        if self.state is State.SYN_SENT:
            self._end()
        elif self.incoming.available or self.options.linger == 0:
            self.abort(now)
        else:
            self.shutdown(now)
            self._arm(now, restart=True)

    def abort(self, now: float, error: int = 0) -> None:
        """RST now."""
        if self.state not in (State.CLOSED, State.SYN_SENT, State.TIME_WAIT):
            self._emit(RST | ACK, self.outgoing.nxt)
        self._end(error)

    def vanish(self, error: int) -> None:
        """The host has lost power: nothing is sent."""
        self._end(error)

    def options_changed(self, now: float, *, keepalive_on: bool) -> None:
        """After a change of :attr:`options`: the armed timer follows it at once."""
        if keepalive_on:
            self._alarm.keepalive_since = now
        self._arm(now, restart=self.timer is Timer.KEEPALIVE)

    def unreachable(self, error: int) -> None:
        """ICMP says that the peer, or its network, cannot be reached.

        RFC 1122, section 4.2.3.9: a hint, not an end. It ends a connection that is being
        opened (as on Linux), is remembered while data is unacknowledged, and is ignored
        otherwise: a keepalive probe's number is outside the window.
        """
        if self.state is State.SYN_SENT:
            self._end(error)
        elif self.outgoing.una < self.outgoing.nxt:
            self._soft_error = error

    # --- what arrives --------------------------------------------------------------------

    def receive(self, segment: Segment, now: float) -> None:
        """RFC 9293, section 3.10.7."""
        if self.state is State.SYN_SENT:
            self._receive_in_syn_sent(segment, now)
        elif self.state is not State.CLOSED:
            self._receive_synchronized(segment, now)
        self._output(now)

    def _receive_in_syn_sent(self, segment: Segment, now: float) -> None:
        """Section 3.10.7.3."""
        acked = bool(segment.flags & ACK)
        ack = unwrap(segment.ack, self.outgoing.nxt)
        if acked and ack != self.outgoing.nxt:
            if not segment.flags & RST:
                self.out.append(Segment(self.local, self.peer, segment.ack, 0, RST))
            return
        if segment.flags & RST:
            if acked:
                self._end(errno.ECONNREFUSED)
            return
        if not segment.flags & SYN:
            return
        self._synchronize(segment, now)
        if acked:
            self.outgoing.acknowledge(ack)
            self._establish(now)
            self._emit_ack()
        else:  # both have opened at once
            self.state = State.SYN_RECEIVED
            self._emit_syn()
        self._arm(now, restart=True)

    def _receive_synchronized(self, segment: Segment, now: float) -> None:
        """Section 3.10.7.4, with RFC 5961's caution towards RST and SYN."""
        seq = unwrap(segment.seq, self.incoming.nxt)
        if not acceptable(seq, segment.length, self.incoming.nxt, self.incoming.window):
            self._reject(segment, seq, now)
        elif segment.flags & RST:
            self._receive_reset(seq)
        elif segment.flags & SYN:
            self._emit_ack()  # a challenge: a peer that restarted answers it with RST
        elif segment.flags & ACK and self._receive_ack(segment, seq, now):
            self._receive_data(segment, seq, now)

    def _reject(self, segment: Segment, seq: int, now: float) -> None:
        """Outside the window: an old segment, or a keepalive probe. Answer, and forget it."""
        if segment.flags & RST:
            return
        if self.state is State.SYN_RECEIVED and segment.flags & SYN:
            if segment.flags & ACK:  # both have opened at once: RFC 9293, figure 8
                self._receive_ack(segment, seq, now)
            else:
                self._emit_syn()  # our SYN+ACK was lost
            return
        self._emit_ack()
        if self.state is State.TIME_WAIT:
            self._arm(now, restart=True)  # the peer has not seen our last ACK
        elif segment.flags & ACK and seq + segment.length == self.incoming.nxt:
            self._receive_ack(segment, seq, now)  # its last segment once more: it is alive

    def _receive_reset(self, seq: int) -> None:
        """RFC 5961, section 3.2: believed at once only with the very next number."""
        if seq != self.incoming.nxt:
            self._emit_ack()
        elif self.state in BOTH_CLOSED or (self.state is State.SYN_RECEIVED and self._passive):
            self._end()
        else:
            self._end(errno.EPIPE if self.state is State.CLOSE_WAIT else errno.ECONNRESET)

    def _receive_ack(self, segment: Segment, seq: int, now: float) -> bool:
        """Step 5. Whether the segment's data may be looked at."""
        out = self.outgoing
        ack = unwrap(segment.ack, out.una)
        if self.state is State.SYN_RECEIVED:
            if not out.una < ack <= out.nxt:
                self.out.append(Segment(self.local, self.peer, segment.ack, 0, RST))
                return False
            self._establish(now)
        if ack > out.nxt:
            self._emit_ack()  # for something that was never sent
            return False
        self._alarm.hear(now)
        advanced = ack > out.una
        if advanced:
            self._acknowledged(ack, now)
        if ack >= out.una and self._updated_by <= (seq, ack):
            self._updated_by = (seq, ack)
            out.window = segment.window
            out.widest = max(out.widest, segment.window)
        if out.fin_acked and self.state in ON_FIN_ACKED:
            self._enter(ON_FIN_ACKED[self.state], now)
        self._arm(now, restart=advanced or self.timer is Timer.KEEPALIVE)
        return self.state is not State.CLOSED

    def _acknowledged(self, ack: int, now: float) -> None:
        self.outgoing.acknowledge(ack)
        self._soft_error = 0
        if self._timed is not None and ack >= self._timed[0]:
            self._trips.sample(now - self._timed[1])
            self._timed = None
        if ack < self._recover:
            self._retransmit()  # the next hole, without waiting for it (RFC 6582)

    def _receive_data(self, segment: Segment, seq: int, now: float) -> None:
        """Steps 7 and 8."""
        if not segment.payload and not segment.flags & FIN:
            return
        if self.state not in MAY_RECEIVE:
            return
        if self.abandoned and segment.payload:
            self.abort(now)  # RFC 1122, section 4.2.2.13: nobody is there to read it
            return
        self.incoming.arrive(seq, segment.payload, bool(segment.flags & FIN))
        if self.incoming.ended:
            self._enter(ON_PEER_FIN[self.state], now)
        self._emit_ack()

    # --- moves ---------------------------------------------------------------------------

    def _establish(self, now: float) -> None:
        self.state = State.ESTABLISHED
        self.was_established = True
        if self._timed is not None:
            self._trips.sample(now - self._timed[1])
            self._timed = None

    def _enter(self, state: State, now: float) -> None:
        self.state = state
        if state is State.CLOSED:
            self._end()
        else:
            self._arm(now, restart=True)

    def _end(self, error: int = 0) -> None:
        self.state = State.CLOSED
        self.error = error
        self._alarm.off()

    # --- what goes out -------------------------------------------------------------------

    def _output(self, now: float) -> None:
        """Send what the peer's window allows, and the FIN behind it."""
        out = self.outgoing
        if self.state in MAY_SEND:
            while payload := out.next_bytes():
                if self._timed is None:
                    self._timed = (out.nxt + len(payload), now)
                self._emit(PSH | ACK, out.nxt, payload)
                out.nxt += len(payload)
            if out.fin_wanted and out.fin is None and out.nxt == out.end:
                out.fin = out.nxt
                self._emit(FIN | ACK, out.nxt)
                out.nxt += 1
                self.state = ON_OWN_FIN[self.state]
        self._arm(now)

    def _emit(self, flags: int, seq: int, payload: bytes = b"") -> None:
        self.out.append(
            Segment(
                self.local,
                self.peer,
                seq % WRAP,
                self.incoming.nxt % WRAP,
                flags,
                self.incoming.announce(),
                payload,
            )
        )

    def _emit_ack(self) -> None:
        self._emit(ACK, self.outgoing.nxt)

    def _emit_syn(self) -> None:
        first, window = self.outgoing.first % WRAP, self.incoming.announce()
        if self.state is State.SYN_SENT:
            # The window of a SYN is that of a connection which has received nothing.
            syn = Segment(self.local, self.peer, first, 0, SYN, Incoming().announce(), mss=MSS)
        else:
            expected = self.incoming.nxt % WRAP
            syn = Segment(self.local, self.peer, first, expected, SYN | ACK, window, mss=MSS)
        self.out.append(syn)

    def _emit_probe(self) -> None:
        """RFC 1122, section 4.2.3.6: a number one below the next, which the peer must answer.

        Old stacks put the byte with that number into it, for peers that answer nothing else.
        """
        payload = self.outgoing.last_acked[: self.stack.probe_payload]
        self._emit(ACK, self.outgoing.una - 1, payload)

    def _retransmit(self) -> None:
        """The first thing that is unacknowledged: SYN, data or FIN (RFC 6298, rule 5.4)."""
        out = self.outgoing
        self._timed = None
        self._recover = out.nxt
        if self.state in (State.SYN_SENT, State.SYN_RECEIVED):
            self._emit_syn()
            return
        payload = out.first_unacknowledged()
        if payload:
            self._emit(PSH | ACK, out.una, payload)
        elif out.fin is not None and out.una <= out.fin:
            self._emit(FIN | ACK, out.fin)

    # --- timers --------------------------------------------------------------------------

    @property
    def timer(self) -> Timer:
        """What it is waiting for."""
        return self._alarm.timer

    @property
    def deadline(self) -> float:
        """The moment for the next :meth:`tick`; infinite for none."""
        return self._alarm.deadline

    @property
    def unanswered(self) -> int:
        """Probes or retransmissions sent since the peer was last heard of."""
        return self._alarm.unanswered

    def _due_timer(self) -> Timer:
        """Which clock runs: the first row that applies."""
        out = self.outgoing
        rows = (
            (self.state is State.CLOSED, Timer.OFF),
            (self.state in (State.SYN_SENT, State.SYN_RECEIVED), Timer.CONNECT),
            (self.state is State.TIME_WAIT, Timer.TIME_WAIT),
            (out.una < out.nxt, Timer.RETRANSMISSION),
            (out.waiting, Timer.PERSIST),
            (self.state is State.FIN_WAIT_2 and self.abandoned, Timer.FIN_WAIT_2),
            (self.options.keepalive and self.state in KEPT_ALIVE, Timer.KEEPALIVE),
        )
        return next((timer for applies, timer in rows if applies), Timer.OFF)

    def _arm(self, now: float, *, restart: bool = False) -> None:
        self._alarm.arm(
            self._due_timer(),
            now,
            rto=self._trips.rto,
            restart=restart,
            answering=self.state is State.SYN_RECEIVED,
            orphan=self.abandoned,
        )

    def tick(self, now: float) -> None:
        """The deadline has come."""
        if now < self.deadline:
            return
        if not self._alarm.fire(now):
            self._give_up(now)
        elif self.timer in (Timer.KEEPALIVE, Timer.PERSIST):
            self._emit_probe()
        else:
            self._retransmit()

    def _give_up(self, now: float) -> None:
        """The end of a ladder. What the application hears of it is an errno."""
        timer = self.timer
        if timer in WAITS:
            self._end()
            return
        self.gave_up = timer
        # Linux, measured: RST when keepalive gives up, silence when data was unacknowledged.
        if timer is Timer.KEEPALIVE and self.stack.rst_at_abort:
            self._emit(RST | ACK, self.outgoing.nxt)
        self._end(self._soft_error or errno.ETIMEDOUT)
