"""The disconnects of the literature, segment by segment, in virtual time.

Trace A and B were captured on an AIX server; the others are what the same documents say of
other stacks, and of what a connection survives.
"""

from __future__ import annotations

import errno

import pytest

from pytest_tcpresilience.tcp.middleboxes import Middlebox
from pytest_tcpresilience.tcp.stacks import AIX, Linux, Stack, Textbook
from pytest_tcpresilience.virtual.alarm import Timer
from pytest_tcpresilience.virtual.states import State
from pytest_tcpresilience.virtual.timers import Options
from pytest_tcpresilience.virtual.trace import clock_seconds
from tests.virtual.wire import Wire, connect

ON = Options(keepalive=True)
DAY = 86_400.0


def after_handshake(wire: Wire, host: str, start: str) -> list[str]:
    return list(wire.network.trace.lines(host, start=start))[3:]


def states(wire: Wire) -> tuple[State, State]:
    return wire.client.machine.state, wire.server.machine.state


def times_and_words(lines: list[str]) -> list[tuple[float, str]]:
    return [(clock_seconds(line.split()[0]), line.partition(" Flags ")[2]) for line in lines]


# --- trace A: the cable is pulled ---------------------------------------------------------

# As captured on the server, from the first probe on.
TRACE_A = (
    "04:53:54.550192",
    "04:55:09.550997",
    "04:56:24.552053",
    "04:57:39.552615",
    "04:58:54.553446",
    "05:00:09.554287",
    "05:01:24.555117",
    "05:02:39.555958",
    "05:03:54.557282",
    "05:05:09.559795",
)
START_A = "04:51:51.379291"


def pull_the_cable() -> Wire:
    """AIX, keepidle 240 half-seconds, keepintvl 150, keepcnt 8."""
    wire = connect(server=ON, server_stack=AIX(tcp_keepidle=240), latency=0.000425)
    wire.server.write(bytes(675))
    wire.run(clock_seconds("04:51:54.924058") - clock_seconds(START_A) - wire.now)
    wire.server.write(b"the last twenty byte")
    wire.run(0.01)
    wire.path.unplug()
    wire.until_dead(wire.server)
    return wire


def test_trace_a_segment_by_segment() -> None:
    wire = pull_the_cable()
    lines = after_handshake(wire, "server", START_A)
    # The last data and its acknowledgement, as captured.
    assert times_and_words(lines[2:4]) == [
        (clock_seconds("04:51:54.924058"), "[P.], seq 676:696, ack 1, win 65535, length 20"),
        (
            pytest.approx(clock_seconds("04:51:54.924909"), abs=1e-5),
            "[.], seq 1, ack 696, win 64840, length 0",
        ),
    ]
    *probes, reset = times_and_words(lines[4:])
    assert len(probes) == 9
    for (at, words), captured in zip(probes, TRACE_A[:9], strict=True):
        assert words == "[.], seq 695:696, ack 1, win 65535, length 1"
        assert at == pytest.approx(clock_seconds(captured), abs=0.4)
    assert reset[1] == "[R.], seq 696, ack 1, win 65535, length 0"
    assert reset[0] == pytest.approx(clock_seconds(TRACE_A[9]), abs=0.4)


def test_trace_a_takes_795_seconds() -> None:
    wire = pull_the_cable()
    seen = wire.network.trace.at("server")
    heard = seen[6].at
    assert [s.at - heard for s in seen[7:]] == pytest.approx([120 + 75 * n for n in range(10)])
    assert wire.server.machine.error == errno.ETIMEDOUT
    assert wire.server.machine.gave_up is Timer.KEEPALIVE
    # The client has nothing to send, and never hears of it.
    assert wire.client.machine.state is State.ESTABLISHED


@pytest.mark.parametrize(
    ("stack", "probes", "abort_at", "payload", "resets"),
    [
        pytest.param(AIX(), 9, 7200 + 75 * 9, 1, True, id="aix"),
        pytest.param(Linux(), 9, 7200 + 75 * 9, 0, True, id="linux"),
        pytest.param(Textbook(), 10, 7200 + 75 * 10, 0, False, id="textbook"),
    ],
)
def test_variants_of_trace_a(
    stack: Stack, probes: int, abort_at: float, payload: int, resets: bool
) -> None:
    """The defaults: two hours, and then each stack's own count."""
    wire = connect(server=ON, server_stack=stack)
    wire.client.write(b"the last data")
    heard = wire.run_until(lambda: bool(wire.server.machine.incoming.available))
    wire.run(0.001)
    wire.path.unplug()
    wire.until_dead(wire.server)
    assert wire.now - heard == abort_at
    sent = [s for s in wire.network.trace.at("server") if s.at > heard + 1]
    times = [s.at - heard for s in sent[:probes]]
    assert times == pytest.approx([7200 + 75 * n for n in range(probes)])
    assert {len(s.segment.payload) for s in sent[:probes]} == {payload}
    assert len(sent) == probes + resets


# --- trace B: the firewall forgot ---------------------------------------------------------

START_B = "10:18:58.881505"


def behind_firewall_b(idle_timeout: float = 3600, server: Options = ON) -> Wire:
    """The firewall is next to the server: 0.064 ms each way."""
    box = Middlebox(idle_timeout=idle_timeout, then="reset", name="firewall B")
    wire = connect(server=server, server_stack=AIX(), boxes=[box], latency=[0.000381, 0.000064])
    wire.run(clock_seconds("10:19:03.165568") - clock_seconds(START_B) - wire.now)
    wire.server.write(b"the last data")
    wire.run(1)
    return wire


def test_trace_b_segment_by_segment() -> None:
    wire = behind_firewall_b()
    wire.until_dead(wire.server)
    lines = times_and_words(after_handshake(wire, "server", START_B))
    assert lines[0][0] == clock_seconds("10:19:03.165568")
    assert lines[1][0] == pytest.approx(clock_seconds("10:19:03.166457"), abs=1e-5)
    (probed, probe), (answered, answer) = lines[2:]
    assert probe == "[.], seq 13:14, ack 1, win 65535, length 1"
    # AIX's slow timer was 2.3 s late in two hours.
    assert probed == pytest.approx(clock_seconds("12:19:05.445336"), abs=2.5)
    assert answer == "[R], seq 1, win 0, length 0"
    assert answered - probed == pytest.approx(0.000128, abs=1e-6)
    assert wire.server.machine.error == errno.ECONNRESET


def test_the_client_of_trace_b_learns_nothing() -> None:
    wire = behind_firewall_b()
    wire.until_dead(wire.server)
    wire.run(DAY)
    last = list(wire.network.trace.lines("client", start=START_B))[-1]
    assert last.startswith("10:19:03.1")  # of two minutes past ten, not of noon
    assert wire.client.machine.state is State.ESTABLISHED
    assert "forged by firewall B" in wire.network.trace.text()
    # Its next operation meets the firewall as well: "reset by foreign host".
    wire.client.write(b"SELECT 1")
    wire.until_dead(wire.client, most=1)
    assert wire.client.machine.error == errno.ECONNRESET


# --- what is survived ---------------------------------------------------------------------


def test_a_cable_may_be_out_for_days() -> None:
    """Two endpoints that remember each other need no traffic."""
    wire = connect()
    wire.run(60)
    wire.path.unplug()
    wire.run(9 * DAY)
    wire.path.plug()
    wire.client.write(b"still there?")
    wire.run(0.01)
    assert wire.server.read(100) == b"still there?"
    assert wire.network.trace.sent == 5


def test_data_that_was_on_its_way_arrives_when_the_cable_is_back() -> None:
    wire = connect()
    wire.path.unplug()
    wire.client.write(b"patience")
    wire.run(300)
    wire.path.plug()
    wire.run(120)  # the longest distance between two retransmissions
    assert wire.server.read(100) == b"patience"


def test_keepalive_that_is_faster_than_the_repair_ends_it() -> None:
    wire = connect(Options(True, 1, 1, 3))
    wire.path.unplug()
    wire.run(5)
    wire.path.plug()
    assert wire.client.machine.error == errno.ETIMEDOUT


# --- half-open connections ----------------------------------------------------------------


def test_a_crashed_client_leaves_the_server_half_open() -> None:
    wire = connect()
    wire.client_host.crash()
    wire.run(30 * DAY)
    assert wire.server.machine.state is State.ESTABLISHED
    assert wire.client_host.endpoints == {}


def test_a_server_with_keepalive_finds_the_crashed_client() -> None:
    wire = connect(server=ON)
    begun = wire.now
    wire.client_host.crash()
    wire.until_dead(wire.server)
    assert wire.now - begun == pytest.approx(7875, abs=0.01)


def test_a_rebooted_client_answers_the_first_probe_with_rst() -> None:
    wire = connect(server=ON)
    begun = wire.now
    wire.client_host.crash()
    wire.run(60)
    wire.client_host.boot()
    wire.until_dead(wire.server)
    assert wire.server.machine.error == errno.ECONNRESET
    assert wire.now - begun == pytest.approx(7200, abs=0.01)


def test_a_lost_fin_leaves_the_server_half_open() -> None:
    """A node in the middle failed, and the client's close never arrived."""
    wire = connect()
    wire.path.unplug()
    wire.client.close()
    wire.until_dead(wire.client)
    wire.path.plug()
    wire.run(DAY)
    assert wire.server.machine.state is State.ESTABLISHED


def test_an_ordinary_close_takes_four_segments_and_two_msl() -> None:
    wire = connect(latency=0.001)
    wire.run(1)
    before = wire.network.trace.sent
    wire.client.close()
    wire.run(0.1)
    assert states(wire) == (State.FIN_WAIT_2, State.CLOSE_WAIT)
    wire.server.close()
    begun = wire.run_until(lambda: wire.client.machine.state is State.TIME_WAIT)
    wire.until_dead(wire.client)
    lines = list(wire.network.trace.lines())[before:]
    flags = [line.split("Flags ")[1].split(",")[0] for line in lines]
    assert flags == ["[F.]", "[.]", "[F.]", "[.]"]
    assert states(wire) == (State.CLOSED, State.CLOSED)
    assert wire.now - begun == Linux().time_wait == 2 * Linux().msl


# --- both cures ---------------------------------------------------------------------------


def test_the_first_cure_is_a_firewall_that_remembers_for_longer() -> None:
    wire = behind_firewall_b(idle_timeout=7200 + 60)
    wire.run(7 * DAY)
    assert wire.server.machine.state is State.ESTABLISHED


def test_the_second_cure_is_keepalive_that_is_faster_than_the_firewall() -> None:
    """tcp_keepidle below the firewall's hour: probes keep the flow alive."""
    wire = behind_firewall_b(server=Options(True, 3000, 75, 8))
    wire.run(7 * DAY)
    assert wire.server.machine.state is State.ESTABLISHED
    # and still find a peer that is gone
    wire.path.unplug()
    assert wire.until_dead(wire.server) <= 3000 + 75 * 9
    assert wire.server.machine.error == errno.ETIMEDOUT


def test_the_cures_have_their_price() -> None:
    """The second costs packets: two for each probe."""
    wire = behind_firewall_b(server=Options(True, 3000, 75, 8))
    before = wire.network.trace.sent
    wire.run(7 * DAY)
    assert wire.network.trace.sent - before == pytest.approx(2 * 7 * DAY / 3000, abs=3)
