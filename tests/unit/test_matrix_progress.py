"""The line of a matrix's progress, and where there is none."""

from __future__ import annotations

import contextlib
import os
import pty
from collections.abc import Iterator

import pytest

from pytest_tcpresilience.matrix.progress import Progress, can_show, line


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)


def everything(ours: int) -> str:
    """What was written, until the other side was closed. A terminal hands it on in parts."""
    written = b""
    with contextlib.suppress(OSError):
        while part := os.read(ours, 1000):
            written += part
    return written.decode()


@pytest.mark.parametrize(
    ("done", "wait_s", "text"),
    [
        (31, 3.2, "tcp_matrix: 31 of 48 cells, longest wait 4 s more"),
        (48, 0.0, "tcp_matrix: 48 of 48 cells"),
    ],
)
def test_the_line(done: int, wait_s: float, text: str) -> None:
    assert line(done, 48, wait_s) == text


def test_it_is_written_once_and_taken_away(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    with Progress(theirs) as progress:
        progress.show("1 of 2")
        progress.show("1 of 2")
        progress.show("2 of 2")
    written = everything(ours)
    place = "\x1b8\x1bD\r"
    assert written == (
        f"\x1bD\x1bM\x1b7{place}1 of 2\x1b[K\x1b8{place}2 of 2\x1b[K\x1b8{place}\x1b[K\x1b8"
    )
    with pytest.raises(OSError, match="Bad file descriptor"):  # it was the line's own
        os.fstat(theirs)


def test_silence(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress(None) as progress:
        progress.show("1 of 2")
    assert capfd.readouterr() == ("", "")


def test_where_it_can_be_shown(terminal: tuple[int, int]) -> None:
    _, theirs = terminal
    assert can_show(theirs, {"TERM": "xterm"})
    assert not can_show(theirs, {"TERM": "dumb"})
    assert not can_show(theirs, {})
    reader, writer = os.pipe()
    assert not can_show(writer, {"TERM": "xterm"})
    os.close(reader)
    os.close(writer)
    assert not can_show(writer, {"TERM": "xterm"})
    os.close(theirs)
