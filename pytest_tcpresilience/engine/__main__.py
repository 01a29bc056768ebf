"""The engine's process: ``python -m pytest_tcpresilience.engine``.

Owns how it begins and how it ends. Its first line on standard input is a JSON object:
``fd``, the number of an inherited listening socket for the API; ``secret``, which each
request must show; ``parent``, the process id of its owner; and, if wanted, ``seed``, an
integer from which all that is random follows. It ends when standard input
ends or when that process does, whichever it learns first. An owner that is killed can
do nothing more, and a forked child of the owner may hold the pipe open, hence both.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

import trio

from pytest_tcpresilience.engine.service import Options, serve


async def _until_input_ends() -> None:
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        while await stream.receive_some(1024):
            pass


async def _until_parent_ends(parent: int) -> None:
    if sys.platform != "linux":
        await trio.sleep_forever()  # no pidfd there; the pipe has to do
    try:
        descriptor = os.pidfd_open(parent)
    except OSError as error:
        if not isinstance(error, ProcessLookupError) and os.getppid() == parent:
            await trio.sleep_forever()  # no pidfd here; the pipe has to do
        return
    try:
        if os.getppid() == parent:  # else the number has gone to another process
            await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def main() -> None:
    # The terminal's Ctrl-C is for the owner, whose end then ends the engine.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Unbuffered: what follows the first line must stay in the pipe for the other reader.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stdin:
        settings = json.loads(stdin.readline())
    parent = int(settings["parent"])
    trio.run(
        serve,
        socket.socket(fileno=int(settings["fd"])),
        Options(secret=settings["secret"], seed=settings.get("seed")),
        (_until_input_ends, lambda: _until_parent_ends(parent)),
    )


if __name__ == "__main__":
    main()
