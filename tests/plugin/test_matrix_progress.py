"""The progress on a real terminal: below pytest's own line, and gone at the end."""

from __future__ import annotations

import os
import pty
import re
import sys
from subprocess import Popen

import pytest

from tests.inner import LEAN, STRICT, Inner
from tests.plugin.matrices import CLIENTS

SLOW = (
    CLIENTS
    + """
    def test_slow(tcp_matrix, recording_server):
        tcp_matrix(
            recording_server.address,
            clients=[SOCKET, ASYNCIO],
            faults=["reset", "stall"],
            within=1.2,
            activity="wait",
            unaware="stall",
        )
        print("this is captured")
"""
)
# What the progress writes: to its own line and back.
ITS_OWN = re.compile(r"\x1bD\x1bM\x1b7|\x1b8\x1bD\r([^\x1b]*)\x1b\[K\x1b8")


def run(inner: Inner, *args: str, term: str = "xterm") -> str:
    """What a terminal gets of a run."""
    path = inner.pytester.makepyfile(SLOW)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pytest", *STRICT, *LEAN, "--color=no", str(path), *args]
    environment = {**os.environ, "TERM": term, "COLUMNS": "100"}
    with Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                more = os.read(ours, 65536)
            except OSError:  # how a terminal says that nobody writes to it any more
                break
            written += more
    os.close(ours)
    assert process.returncode == 0
    return written.decode()


def test_on_a_terminal(inner: Inner) -> None:
    written = run(inner)
    lines = [text for text in ITS_OWN.findall(written) if text]
    assert "tcp_matrix: 2 of 4 cells, longest wait 1 s more" in lines
    words = r"tcp_matrix: \d of 4 cells(, longest wait [12] s more)?"
    assert all(re.fullmatch(words, text) for text in lines)
    # The last it does is to erase its line, and the rest is as without it.
    assert ITS_OWN.findall(written)[-1] == ""
    rest = ITS_OWN.sub("", written)
    assert "\x1b" not in rest
    assert re.search(r"test_on_a_terminal\.py \.  +\[100%\]\r\n", rest)
    assert "captured" not in rest


@pytest.mark.parametrize(
    ("args", "term"), [(["-q"], "xterm"), ([], "dumb")], ids=["quiet", "dumb-terminal"]
)
def test_where_nothing_is_wanted(inner: Inner, args: list[str], term: str) -> None:
    assert "tcp_matrix" not in run(inner, *args, term=term)


def test_without_a_terminal(inner: Inner) -> None:
    result = inner.run_subprocess(SLOW)
    assert "tcp_matrix" not in result.stdout.str()
    assert "\x1b" not in result.stdout.str()
