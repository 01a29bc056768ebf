"""A cell that hangs, crashes or spins is a failure of its own, and disturbs no other one."""

from __future__ import annotations

import re

import pytest

from tests.inner import Inner
from tests.plugin.matrices import CLIENTS, kept, witness

SETUP_S = 1.0
CLOSE_S = 0.5
# Connecting, the longest window with its slack, the rescue, what hangs in spite of it, closing;
# and as much again for a machine that is busy.
LONGEST_S = 2 * (SETUP_S + 2.5 + 0.5 + 1.0 + 1.5 + CLOSE_S)

BAD = (
    CLIENTS
    + f"""
    SETUP_S, CLOSE_S = {SETUP_S}, {CLOSE_S}
    """
    + """
    def spin(sock):
        while True:
            pass

    def hang(*_ignored):
        threading.Event().wait()

    def swallow(sock):
        while True:
            try:
                time.sleep(0.01)
            except BaseException:
                pass

    def leave(sock):
        sys.exit(3)

    def interrupt(sock):
        raise KeyboardInterrupt

    async def hang_later(streams):
        await asyncio.Event().wait()

    async def leave_later(stream):
        sys.exit(4)

    def close_badly(sock):
        sock.close()
        raise OSError("no farewell")

    def background(sock):
        threading.Thread(target=hang, name="of the client").start()
        hang()

    def row(name, connect=connect_alive, warm_up=ask, wait=wait, **more):
        return Client(name, connect, warm_up=warm_up, wait=wait, **more)

    CLIENTS = [
        row("good"),
        row("spins", wait=spin),
        row("spins too", wait=spin),
        row("hangs in connect", connect=hang),
        row("blocks in warm-up", warm_up=lambda sock: sock.recv(1)),
        row("hangs in warm-up", warm_up=background),
        row("swallows all", wait=swallow),
        row("exits", wait=leave),
        row("interrupts", warm_up=interrupt),
        row("closes badly", close=close_badly),
        row("hangs in close", close=hang),
        row("wrong", wait=lambda sock: sock.nonsense()),
        row("in a coroutine", connect=lambda link: open_streams(link)),
        row("asyncio hangs", open_streams, hang_later, wait_streams, close=close_streams),
        row("trio exits", open_trio, ask_trio, leave_later, runner="trio"),
        row("learnt", wait=wait),
        row("good too"),
    ]

    @pytest.mark.resilience(slack=0.1)
    def test_bad(tcp_matrix, recording_server):
        begun = time.monotonic()
        tcp_matrix(
            recording_server.address,
            clients=CLIENTS,
            faults=["silent_drop"],
            within=KEEPALIVE,
            activity="wait",
            unaware=["learnt"],
            setup_within=SETUP_S,
            close_within=CLOSE_S,
        )
        print("took", time.monotonic() - begun)

    def test_most_hang(tcp_matrix, recording_server):
        result = tcp_matrix(
            recording_server.address,
            clients=[row("good"), row("bad", hang), row("worse", hang)],
            faults=["reset"],
            within=0.5,
            activity="wait",
            setup_within=SETUP_S,
        )
        print("most hang:", [cell.passed for cell in result])
"""
)

# By client: what its failure says, and what its record says of the outcome.
WORDS = {
    "spins": ("why: the client was spinning: it kept a CPU busy for", "rescued"),
    "spins too": ("why: the client was spinning: it kept a CPU busy for", "rescued"),
    "hangs in connect": (
        "hangs in connect hung while it connected\n"
        "E expected: connect= to return on a healthy link\n"
        "E happened: no end of it in 1.",
        "hung",
    ),
    "blocks in warm-up": (
        "hung in its warm-up(.|\n)*it ended when its link was taken away",
        "hung",
    ),
    "hangs in warm-up": (
        "left behind, as daemons: 'hangs in warm-up × silent_drop', 'of the client'",
        "hung",
    ),
    "swallows all": (
        "swallows all hung in its wait after the fault\n(.|\n)*it was interrupted; it did not end; "
        "it was at:\n(.|\n)* in swallow\n"
        "E left behind, as daemons: 'swallows all × silent_drop'",
        "hung",
    ),
    "exits": ("exits failed in its wait after the fault: SystemExit: 3", "not_judged"),
    "interrupts": ("interrupts failed in its warm-up: KeyboardInterrupt", "failed"),
    "closes badly": ("closes badly failed in its close: OSError: no farewell", "failed"),
    "hangs in close": ("hangs in close hung in its close", "hung"),
    "wrong": ("wrong failed in its wait after the fault: AttributeError", "not_judged"),
    "in a coroutine": (
        'connect has returned something to await(.|\n)*runner="asyncio" or runner="trio"',
        "failed",
    ),
    "asyncio hangs": ("asyncio hangs hung in its warm-up(.|\n)* in hang_later\n", "hung"),
    "trio exits": ("trio exits failed in its wait after the fault: SystemExit: 4", "not_judged"),
    "learnt": (
        r"the client now notices the silent_drop, \d\.\d+ s after it\n(.|\n)*"
        r"noticed by keepalive: TimeoutError(.|\n)*take it off the list",
        "noticed",
    ),
}


@pytest.fixture
def sections(inner: Inner) -> dict[str, str]:
    """The inner run's output by client; "" is the end of it."""
    witness(inner)
    result = inner.run_subprocess(BAD, "-rP")
    text = re.sub(r"^E +", "E ", result.stdout.str(), flags=re.MULTILINE)
    assert "most hang: [True, False, False]" in text
    parts = re.split(r"^_+ test_bad (?:\[(.*) × silent_drop\] )?_+$", text, flags=re.MULTILINE)
    found = {name or "": part for name, part in zip(parts[1::2], parts[2::2], strict=True)}
    return {**found, "all": text}


def test_bad_cells(inner: Inner, sections: dict[str, str]) -> None:
    text = sections.pop("all")
    end = sections.pop("")
    assert list(sections) == list(WORDS)
    for client, (words, _) in WORDS.items():
        assert re.search(words.replace("(3)", "[(]3[)]"), sections[client]), client
    took = re.search(r"took (\S+)", end)
    assert took is not None, text
    assert float(took[1]) < LONGEST_S

    records = {
        each.subtest: each.records[0] for each in kept(inner.pytester.path / "reports.jsonl")
    }
    for client, (_, outcome) in WORDS.items():
        record = records[f"{client} × silent_drop"]
        assert (record["outcome"], record["passed"]) == (outcome, False), client
        assert record["summary"]
    for client in ("good", "good too"):
        record = records[f"{client} × silent_drop"]
        assert (record["mechanism"], record["outcome"]) == ("keepalive", "noticed")
    # Nobody is said to spin who does not.
    spinning = {
        each["client"]
        for each in records.values()
        if (each["cause"] or {}).get("name") == "spinning"
    }
    assert spinning == {"spins", "spins too"}
