"""Scenarios on links of the embedded engine, judged as a test that uses them is.

What breaks is judged by ``detects_break``, where the client is watched. A server's kernel is
followed by ``sock_diag``.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator

from pytest_tcpresilience import Keepalive, detects_break
from pytest_tcpresilience.control import Engine
from pytest_tcpresilience.fault import Fault
from pytest_tcpresilience.kernel.sockdiag import SockDiag, SocketState
from pytest_tcpresilience.link import Link
from pytest_tcpresilience.settings import Settings
from pytest_tcpresilience.upstream import Upstream
from tests.groundtruth.ends import (
    LATE,
    WAIT_S,
    Ended,
    act,
    connect,
    exchange,
    name_of,
    read_to_the_end,
)
from tests.groundtruth.scenarios import (
    CLOSES,
    CONNECTS,
    CUT_S,
    NEVER_S,
    OUTLIVES,
    WRITES,
    Observed,
    Scenario,
)

_names = itertools.count(1)
_POLL_S = 0.002

# One for each fault of the table.
STRIKES: dict[str, Callable[[Link], Fault]] = {
    "silent_drop": lambda link: link.silent_drop(),
    "evict_reset": lambda link: link.evict(then="reset"),
    "evict_drop": lambda link: link.evict(then="drop"),
    "evict_drop_inbound": lambda link: link.evict(then="drop_inbound"),
    "lose_close": lambda link: link.lose_close(),
    "evict_reset_both": lambda link: link.evict(then="reset_both"),
    "evict_fin": lambda link: link.evict(then="fin"),
    "ignore_connections": lambda link: link.ignore_connections(),
    "refuse_connections": lambda link: link.refuse_connections(),
    "stall": lambda link: link.stall(),
    "reset": lambda link: link.reset(),
    "hang_up": lambda link: link.hang_up(),
}


@contextlib.contextmanager
def _link(engine: Engine, upstream: tuple[str, int]) -> Iterator[Link]:
    link = Link(
        engine, f"groundtruth-{next(_names)}", Upstream.parse(upstream), Settings(), "127.0.0.1"
    )
    try:
        yield link
    finally:
        link.close()


def run(scenario: Scenario, engine: Engine) -> Observed:
    """One scenario on a link of its own."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        _link(engine, listener.getsockname()) as link,
        socket.socket() as client,
    ):
        if scenario.does == CONNECTS:
            return _connect(link, client, scenario)
        if scenario.end == "client":
            scenario.settings.apply(client)
        client.settimeout(WAIT_S)
        client.connect((link.host, link.port))
        server, _ = listener.accept()
        with server:
            if scenario.end == "server":
                scenario.settings.apply(server)
            # The last segment falls into the exchange: before its end, which may be late.
            last = time.monotonic()
            exchange(client, server)
            return _play(link, client, server, scenario, last)


def _play(
    link: Link, client: socket.socket, server: socket.socket, scenario: Scenario, last: float
) -> Observed:
    if scenario.does == OUTLIVES:
        return _outlive(link, client, server)
    if scenario.end == "server":
        return _follow(link, client, server, scenario, last)
    if scenario.mechanism is None:
        hit = _hit(link, scenario)
        act(client, scenario)
        ended = read_to_the_end(client, hit)
        return Observed(None, ended.error, ended.at - hit, hit - last, "no error came")
    return _detect(link, client, scenario, last)


def _hit(link: Link, scenario: Scenario) -> float:
    return STRIKES[scenario.fault](link).wait_until_hit()


def within(scenario: Scenario) -> Keepalive | float:
    """What a user's test would promise of its client."""
    # A reset ends at its first probe, and not at its last.
    at_first_probe = scenario.window.nominal == scenario.settings.idle
    if scenario.idle and not at_first_probe:
        return scenario.settings
    return scenario.window.latest + 1


def _detect(link: Link, client: socket.socket, scenario: Scenario, last: float) -> Observed:
    """As a user's test would have it: the block must raise, and the verdict says by what."""
    begun = 0.0
    with detects_break(link, within=within(scenario)) as detection:
        hit = _hit(link, scenario)
        begun = time.monotonic() if scenario.does == WRITES else hit
        act(client, scenario)
        client.settimeout(WAIT_S)
        if not client.recv(1):
            raise EOFError("end of the stream")
    error = detection.exception
    name = "EOF" if isinstance(error, EOFError) else name_of(_os_error(error))
    assert detection.after is not None
    after = hit + detection.after - begun
    return Observed(str(detection.mechanism), name, after, hit - last, "detects_break")


def _os_error(error: BaseException | None) -> OSError:
    assert isinstance(error, OSError), error
    return error


def _connect(link: Link, client: socket.socket, scenario: Scenario) -> Observed:
    begun = 0.0
    with detects_break(link, within=within(scenario)) as detection:
        _hit(link, scenario)
        begun = time.monotonic()
        ended = connect(client, (link.host, link.port), scenario.attempts)
        if ended.own_timeout:
            raise TimeoutError("timed out")
        raise OSError(_number(ended), "connect")
    return Observed(str(detection.mechanism), ended.error, ended.at - begun, 0.0, "detects_break")


def _number(ended: Ended) -> int:
    import errno

    assert ended.error is not None
    return int(getattr(errno, ended.error))


def _outlive(link: Link, client: socket.socket, server: socket.socket) -> Observed:
    with link.silent_drop():
        for sock in (client, server):
            sock.sendall(LATE)
        time.sleep(CUT_S)
    lifted = time.monotonic()
    for sock in (client, server):
        sock.settimeout(WAIT_S)
        assert sock.recv(len(LATE), socket.MSG_WAITALL) == LATE
    return Observed("survives", "data", time.monotonic() - lifted, 0.0, "both ends' bytes came")


class _Witness:
    """The last state of a socket that its kernel has ended."""

    def __init__(self, sock: socket.socket) -> None:
        self._ends = sock.getsockname(), sock.getpeername()
        self.last: SocketState | None = None
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        deadline = time.monotonic() + NEVER_S + WAIT_S
        with SockDiag() as kernel:
            while (state := kernel.lookup(*self._ends)) is not None:
                if state.state == "listen":
                    return  # the kernel names the listener once the connection is gone
                self.last = state
                assert time.monotonic() < deadline
                time.sleep(_POLL_S)

    def seen(self) -> SocketState:
        self._thread.join(WAIT_S)
        assert self.last is not None
        return self.last


def _follow(
    link: Link, client: socket.socket, server: socket.socket, scenario: Scenario, last: float
) -> Observed:
    """A server is not what ``detects_break`` watches. Its kernel says which timer ran."""
    witness = _Witness(server)
    fault = STRIKES[scenario.fault](link)
    if scenario.does == CLOSES:
        client.close()  # and so it hits
    hit = fault.wait_until_hit()
    ended = read_to_the_end(server, hit)
    if ended.error == "ECONNRESET":
        mechanism: str | None = "reset"
        evidence = "RST came"
    else:
        state = witness.seen()
        assert not state.unacknowledged
        mechanism = "keepalive" if ended.error == "ETIMEDOUT" and state.unanswered else None
        evidence = f"{state.unanswered} probes unanswered"
    return Observed(mechanism, ended.error, ended.at - hit, hit - last, evidence)
