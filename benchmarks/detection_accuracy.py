"""How far the detection times that the plugin reports are from what the kernel did.

Each detection runs through the plugin's own engine, a link and ``detects_break``, each in
a thread of its own. Beside them an observer process, which shares nothing with the plugin
but the machine's clock, looks for the moment in which the client's kernel ended the
connection. Compared are, on CLOCK_MONOTONIC, ``fault.hit_at + detection.after`` and that
moment:

============ ===================================== ==================================
mechanism    with AF_PACKET (root)                 without
============ ===================================== ==================================
keepalive    the client's RST as it gives up       its socket is gone (sock_diag)
user_timeout its socket is gone (sock_diag): a client that gives up so sends nothing
reset        the RST to the client                 its socket is gone (sock_diag)
fin          the FIN to the client                 its socket has left "established"
============ ===================================== ==================================

Run it with ``python benchmarks/detection_accuracy.py``. The exit status is 1 if any
difference is larger than 5 ms.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.context import SpawnProcess

from pytest_tcpresilience import Keepalive, Link, detects_break
from pytest_tcpresilience.control import Engine
from pytest_tcpresilience.kernel.sockdiag import Address, SockDiag
from pytest_tcpresilience.settings import Settings
from pytest_tcpresilience.upstream import Upstream

LIMIT_MS = 5.0
KEEPALIVE = Keepalive(idle=1, interval=1, probes=1)
USER_TIMEOUT = Keepalive(idle=60, interval=60, probes=9, user_timeout=1.0)
# A reset and a FIN come this long after their block has begun.
SCHEDULED_S = 0.2
# Between one detection's beginning and the next one's. They overlap, but no two are to begin
# or end together: Python runs one thread at a time, so that one would wait for the other.
# Detections end 0.20, 1.43 and 2.0 to 2.06 s after their beginning, and all of these fall
# into the middle of a step of this length. (Without steps at all, the kernel's timer wheel
# would end those of one second together, for it puts them into slots of 32 ms.)
STAGGER_S = 0.15
SOCK_DIAG_POLL_S = 0.0005
# A clock that was set meanwhile would shift the capture's timestamps by as much.
CLOCK_STEP_S = 0.0005

# asm-generic/socket.h; linux/if_ether.h; netinet/tcp.h
SO_ATTACH_FILTER = 26
SO_TIMESTAMPNS = 35
ETH_P_IP = 0x0800
FIN, RST = 0x01, 0x04
# linux/filter.h: IPv4 packets with TCP's FIN or RST. Whatever else is busy on loopback
# would keep the observer from looking at the sockets.
FIN_OR_RST = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 9),  # ldb [9]: the protocol
        (0x15, 0, 4, socket.IPPROTO_TCP),  # jne reject
        (0xB1, 0, 0, 0),  # ldxb 4*([0]&0xf): the header's length
        (0x50, 0, 0, 13),  # ldb [x + 13]: TCP's flags
        (0x45, 0, 1, FIN | RST),  # jset accept, reject
        (0x06, 0, 0, 0xFFFF),
        (0x06, 0, 0, 0),
    )
)

Flow = tuple[Address, Address]
"""The client's address, and the link's as the client sees it."""


# --- the observer, in a process of its own --------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """What the observer looks for.

    :param kind: ``"segment"`` or ``"socket"``.
    :param flags: any of these TCP flags, in the first segment from ``source``.
    :param source: sender of the segment; the other end of ``flow`` gets it.
    """

    flow: Flow
    kind: str
    flags: int = 0
    source: Address = ("", 0)


@dataclass(frozen=True)
class Seen:
    """What the observer has seen.

    :param ends: the moments looked for.
    :param longest_gap: the longest time between two looks at the sockets, in seconds. By
        so much can what sock_diag shows be late.
    """

    ends: dict[Flow, float]
    longest_gap: float


def realtime_to_monotonic() -> float:
    """What to add to a CLOCK_REALTIME time; from the tightest of some pairs of readings."""
    pairs = []
    for _ in range(50):
        before, real, after = time.monotonic(), time.time(), time.monotonic()
        pairs.append((after - before, (before + after) / 2 - real))
    return min(pairs)[1]


def open_capture() -> socket.socket | None:
    """A packet socket on the loopback interface, or ``None`` where that is forbidden."""
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
    except PermissionError:
        return None
    code = ctypes.create_string_buffer(FIN_OR_RST)
    program = struct.pack("HP", len(FIN_OR_RST) // 8, ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.bind(("lo", ETH_P_IP))
    sock.setblocking(False)
    return sock


def captured(sock: socket.socket) -> Iterator[tuple[float, Address, Address, int]]:
    """Time (CLOCK_REALTIME), source, destination and flags of each waiting TCP segment.

    Bound to one protocol, a packet socket sees what arrives. On loopback that is the moment
    of sending, too, and also what the receiver then drops: it includes segments under a cut.
    """
    while True:
        try:
            data, control, _, _ = sock.recvmsg(128, 64)
        except BlockingIOError:
            return
        seconds, nanoseconds = struct.unpack("qq", control[0][2])
        tcp = data[(data[0] & 15) * 4 :]
        source_port, destination_port = struct.unpack_from("!HH", tcp)
        source = (socket.inet_ntoa(data[12:16]), source_port)
        destination = (socket.inet_ntoa(data[16:20]), destination_port)
        yield seconds + nanoseconds / 1e9, source, destination, tcp[13]


def observe(wanted: list[Wanted], pipe: Pipe) -> None:
    """Look until told to stop; then send what was seen."""
    found: dict[Flow, float] = {}
    with suppress(PermissionError):
        # What sock_diag shows is as late as this process, so it goes before all others.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    segments = {each.source: each for each in wanted if each.kind == "segment"}
    capture = open_capture() if segments else None
    offset = realtime_to_monotonic()
    with SockDiag() as diag:
        pipe.send("ready")
        longest_gap, looked_at = 0.0, time.monotonic()
        while not pipe.poll():
            now = time.monotonic()
            longest_gap, looked_at = max(longest_gap, now - looked_at), now
            look_at_sockets(diag, [each.flow for each in wanted if each.kind == "socket"], found)
            if capture is not None:
                look_at_segments(capture, segments, offset, found)
            time.sleep(SOCK_DIAG_POLL_S)
    if abs(realtime_to_monotonic() - offset) > CLOCK_STEP_S:
        pipe.send("the clock was set meanwhile")
    else:
        pipe.send(Seen(found, longest_gap))


def look_at_sockets(diag: SockDiag, flows: Iterable[Flow], found: dict[Flow, float]) -> None:
    for flow in flows:
        if flow in found:
            continue
        now = time.monotonic()
        state = diag.lookup(*flow)
        if state is None or state.state != "established":
            found[flow] = now


def look_at_segments(
    capture: socket.socket,
    segments: dict[Address, Wanted],
    offset: float,
    found: dict[Flow, float],
) -> None:
    for at, source, destination, flags in captured(capture):
        want = segments.get(source)
        if want is None or destination not in want.flow or not flags & want.flags:
            continue
        found.setdefault(want.flow, at + offset)


# --- the detections -------------------------------------------------------------------------


def by_keepalive(link: Link, client: socket.socket) -> float:
    # Only now, so that the stagger also spreads the timers.
    KEEPALIVE.apply(client)
    with detects_break(link, within=KEEPALIVE) as detection:
        fault = link.silent_drop()
        client.recv(1)
    assert detection.mechanism == "keepalive", detection.mechanism
    return (fault.hit_at or 0.0) + detection.after


def by_user_timeout(link: Link, client: socket.socket) -> float:
    USER_TIMEOUT.apply(client)
    with detects_break(link, within=3.0) as detection:
        fault = link.silent_drop()
        client.sendall(b"?")
        client.recv(1)
    assert detection.mechanism == "user_timeout", detection.mechanism
    return (fault.hit_at or 0.0) + detection.after


def by_reset(link: Link, client: socket.socket) -> float:
    # Scheduled, as in a test whose client is blocked when the fault hits.
    with detects_break(link, within=1.0) as detection:
        fault = link.reset(after=SCHEDULED_S)
        client.recv(1)
    assert detection.mechanism == "reset", detection.mechanism
    return (fault.hit_at or 0.0) + detection.after


def by_fin(link: Link, client: socket.socket) -> float:
    with detects_break(link, within=1.0) as detection:
        fault = link.hang_up(after=SCHEDULED_S)
        if client.recv(1) == b"":
            detection.mark()
    assert detection.mechanism == "fin", detection.mechanism
    return (fault.hit_at or 0.0) + detection.after


DETECTIONS: dict[str, Callable[[Link, socket.socket], float]] = {
    "keepalive": by_keepalive,
    "user_timeout": by_user_timeout,
    "reset": by_reset,
    "fin": by_fin,
}


@dataclass(frozen=True)
class Subject:
    """A client behind a link of its own, and how its connection is to end."""

    mechanism: str
    link: Link
    client: socket.socket
    flow: Flow

    def wanted(self, *, capture: bool) -> Wanted:
        client, link = self.flow
        if not capture or self.mechanism == "user_timeout":
            return Wanted(self.flow, "socket")
        if self.mechanism == "keepalive":
            return Wanted(self.flow, "segment", RST, client)
        return Wanted(self.flow, "segment", FIN if self.mechanism == "fin" else RST, link)

    def detect(self, start_at: float) -> float:
        time.sleep(max(start_at - time.monotonic(), 0))
        return DETECTIONS[self.mechanism](self.link, self.client)


@contextmanager
def subjects(count: int) -> Iterator[list[Subject]]:
    """Connected through links to a server that never says anything."""
    with ExitStack() as stack:
        engine = Engine(10.0)
        stack.callback(engine.stop)
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        upstream = Upstream.parse(server.getsockname())
        made: list[Subject] = []
        for number in range(count * len(DETECTIONS)):
            mechanism = list(DETECTIONS)[number % len(DETECTIONS)]
            link = Link(engine, f"bench-{number}", upstream, Settings(), "127.0.0.1")
            stack.callback(link.close)
            address = (link.host, link.port)
            client = stack.enter_context(socket.create_connection(address))
            stack.enter_context(server.accept()[0])
            made.append(Subject(mechanism, link, client, (client.getsockname(), address)))
        yield made


@contextmanager
def observer(wanted: list[Wanted]) -> Iterator[Pipe]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process: SpawnProcess = context.Process(target=observe, args=(wanted, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.recv()  # it is ready
        yield ours
    finally:
        ours.close()  # which it sees, as an end of file, if it was not told to stop
        process.join()


def cpu_waits() -> float | None:
    """Seconds in which anything on this machine waited for a CPU; ``None`` if unknown."""
    try:
        with open("/proc/pressure/cpu") as pressure:
            return int(pressure.readline().rpartition("total=")[2]) / 1e6
    except (OSError, ValueError):
        return None


def measure(count: int, *, capture: bool) -> dict[str, list[float]]:
    """Differences in milliseconds, by mechanism; positive where the report is later."""
    with subjects(count) as made, observer([s.wanted(capture=capture) for s in made]) as pipe:
        begin = time.monotonic() + STAGGER_S
        with ThreadPoolExecutor(len(made)) as threads:
            reports = [
                threads.submit(subject.detect, begin + number * STAGGER_S)
                for number, subject in enumerate(made)
            ]
        pipe.send("stop")
        seen = pipe.recv()
        if isinstance(seen, str):
            raise SystemExit(seen)
        print(f"the observer looked at the sockets at least every {seen.longest_gap * 1e3:.1f} ms")
        differences: dict[str, list[float]] = {mechanism: [] for mechanism in DETECTIONS}
        for subject, report in zip(made, reports, strict=True):
            truth = seen.ends.get(subject.flow)
            if truth is None:
                raise SystemExit(f"the observer missed the end of a {subject.mechanism}")
            differences[subject.mechanism].append((report.result() - truth) * 1000)
    return differences


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-n", type=int, default=10, help="detections by each mechanism")
    parser.add_argument("--sock-diag", action="store_true", help="do not capture, even as root")
    arguments = parser.parse_args()
    if arguments.n < 1:
        parser.error("-n: at least 1")
    probe = None if arguments.sock_diag else open_capture()
    if probe is not None:
        probe.close()
    waits, begin = cpu_waits(), time.monotonic()
    differences = measure(arguments.n, capture=probe is not None)
    waits_since, took = cpu_waits(), time.monotonic() - begin
    print(f"report - {'packet capture' if probe is not None else 'sock_diag'}, in ms")
    print(f"{'mechanism':14}{'n':>4}{'min':>9}{'median':>9}{'max':>9}")
    for mechanism, values in differences.items():
        middle = statistics.median(values)
        print(
            f"{mechanism:14}{len(values):4}{min(values):9.2f}{middle:9.2f}{max(values):9.2f}"
            + ("  (sock_diag)" if mechanism == "user_timeout" else "")
        )
    worst = max(abs(value) for values in differences.values() for value in values)
    if waits is not None and waits_since is not None:
        # On a machine with other work to do, a client is woken late.
        print(f"something waited for a CPU {(waits_since - waits) / took:.0%} of the time")
    print(f"largest: {worst:.2f} ms; limit: {LIMIT_MS:g} ms")
    return 1 if worst > LIMIT_MS else 0


if __name__ == "__main__":
    sys.exit(main())
