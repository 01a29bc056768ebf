"""A small upstream that remembers what was asked of it.

Owns :class:`RecordingServer`: requests that end with a separator, an answer to each, and
messages pushed to those who have subscribed. It knows no link and no pytest; whether a
request should have come once, twice or not at all is the expectations' to say.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from pytest_tcpresilience.errors import UsageError

# A subscriber that does not read for so long is skipped.
PUSH_S = 1.0
JOIN_S = 5.0

Answer = Callable[[bytes], bytes | None]
Subscribes = Callable[[bytes], bool]


@dataclass(frozen=True)
class RecordedRequest:
    """A request that the server has executed.

    :param at: when it was complete; CLOCK_MONOTONIC, seconds (``time.monotonic()``).
    :param connection: the server's own count, from 1.
    :param data: without its separator.
    """

    at: float
    connection: int
    data: bytes


@dataclass
class Push:
    """A message to subscribers.

    :param after: it is for connections that were accepted after this moment.
    :param at: when it was sent; ``None`` while nobody has subscribed.
    :param subscribers: how many it was sent to.
    """

    data: bytes
    after: float
    at: float | None = None
    subscribers: int = 0


@dataclass
class Session:
    """One connection, as the server has it."""

    number: int
    sock: socket.socket
    accepted_at: float = field(default_factory=time.monotonic)
    subscribed: bool = False


def echo(request: bytes) -> bytes | None:
    return request


def says_subscribe(request: bytes) -> bool:
    """Whether a request begins with the word "subscribe"."""
    return request[:9].lower() == b"subscribe"


class RecordingServer:
    """Listens on loopback, answers, and remembers. It runs in threads of this process.

    :param host: where to listen; ``"::1"`` for IPv6.
    :param separator: ends each request and each answer; a line's end by default.
    :param answer: from a request to its answer, or to ``None`` for none. An echo by
        default. It is called in the connection's thread, after the request was recorded.
    :param subscribes: whether a request makes its connection a subscriber. By default one
        that begins with "subscribe", in any case.
    :raises UsageError: for an empty separator.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        *,
        separator: bytes = b"\n",
        answer: Answer = echo,
        subscribes: Subscribes = says_subscribe,
    ) -> None:
        if not separator:
            raise UsageError(
                "RecordingServer: the separator is empty",
                expected="bytes that end each request, e.g. b'\\n'",
                happened="got b''",
                advice="name what ends a request of your protocol",
            )
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self._separator = separator
        self._answer = answer
        self._subscribes = subscribes
        self._changed = threading.Condition()
        self._sessions: list[Session] = []
        self._requests: list[RecordedRequest] = []
        self._pushes: list[Push] = []
        self._mistake: Exception | None = None
        self._threads = [self._start(self._accept)]

    # --- what a test reads ---------------------------------------------------------------

    @property
    def address(self) -> tuple[str, int]:
        """What ``tcp_link`` wants."""
        name = self._listener.getsockname()
        return str(name[0]), int(name[1])

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """What was executed so far, in this order."""
        with self._changed:
            return tuple(self._requests)

    @property
    def pushes(self) -> tuple[Push, ...]:
        """The messages that were pushed, or wait for a subscriber."""
        with self._changed:
            return tuple(self._pushes)

    @property
    def connections(self) -> int:
        """How many were accepted so far."""
        with self._changed:
            return len(self._sessions)

    def count(self, data: bytes) -> int:
        """How often a request was executed."""
        return sum(request.data == data for request in self.requests)

    def wait_for(self, count: int, timeout: float = 5.0) -> tuple[RecordedRequest, ...]:
        """The requests, once there are so many.

        :param timeout: seconds.
        :raises UsageError: when there are fewer by then.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= count, timeout):
                raise UsageError(
                    f"{len(self._requests)} of {count} requests came in {timeout:g} s",
                    expected=f"{count} requests that end with {self._separator!r}",
                    happened=f"got {[request.data for request in self._requests]}",
                    advice="let the client send them first, or wait longer",
                )
            return tuple(self._requests)

    # --- messages ------------------------------------------------------------------------

    def push(self, data: bytes) -> int:
        """Send a message to all who are subscribed now.

        :returns: how many that are.
        """
        push = Push(data, after=float("-inf"))
        with self._changed:
            self._pushes.append(push)
            self._deliver(push)
            push.at = push.at or time.monotonic()
        return push.subscribers

    def push_after(self, data: bytes, after: float) -> Push:
        """Send a message to those who subscribe on a connection accepted after a moment.

        It does not block: where nobody has subscribed yet, the first one gets it.

        :param after: CLOCK_MONOTONIC, seconds.
        """
        push = Push(data, after=after)
        with self._changed:
            self._pushes.append(push)
            self._deliver(push)
        return push

    def _deliver(self, push: Push) -> None:
        for session in self._sessions:
            if session.subscribed and session.accepted_at > push.after:
                before = push.at
                # Counted first: whoever has got it may ask at once.
                push.subscribers += 1
                push.at = time.monotonic()
                try:
                    session.sock.sendall(push.data + self._separator)
                except OSError:  # gone, or not reading: the rest would make no sense to it
                    session.subscribed = False
                    push.subscribers -= 1
                    push.at = before

    # --- life ----------------------------------------------------------------------------

    def _start(self, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name="tcpresilience-recording", daemon=True)
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # closed
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            timeout = struct.pack("@ll", int(PUSH_S), 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
            with self._changed:
                session = Session(len(self._sessions) + 1, sock)
                self._sessions.append(session)
                self._changed.notify_all()
            self._threads.append(self._start(partial(self._serve, session)))

    def _serve(self, session: Session) -> None:
        try:
            with contextlib.suppress(OSError):
                self._converse(session)
        except Exception as error:  # the test's own answer= or subscribes=
            self._mistake = self._mistake or error
        finally:
            with self._changed:
                session.subscribed = False
            session.sock.close()

    def _converse(self, session: Session) -> None:
        waiting = b""
        while data := session.sock.recv(65536):
            *requests, waiting = (waiting + data).split(self._separator)
            for request in requests:
                self._execute(session, request)

    def _execute(self, session: Session, data: bytes) -> None:
        with self._changed:
            self._requests.append(RecordedRequest(time.monotonic(), session.number, data))
            self._changed.notify_all()
        answer = self._answer(data)
        if answer is not None:
            session.sock.sendall(answer + self._separator)
        if self._subscribes(data):
            with self._changed:
                session.subscribed = True
                for push in self._pushes:
                    if push.at is None:
                        self._deliver(push)

    def close(self) -> None:
        """End all connections, and the threads.

        :raises UsageError: when ``answer`` or ``subscribes`` has raised.
        """
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads[:1]:
            thread.join(JOIN_S)
        for session in self._sessions:
            with contextlib.suppress(OSError):
                session.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(JOIN_S)
        if self._mistake is not None:
            mistake, self._mistake = self._mistake, None
            raise UsageError(
                "RecordingServer: answer= or subscribes= raised",
                expected="bytes or None, and a bool",
                happened=f"{type(mistake).__name__}: {mistake}",
                advice="correct the function; its connection was closed",
            ) from mistake

    def __enter__(self) -> RecordingServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RecordingServer {self.address}: {len(self.requests)} requests>"
