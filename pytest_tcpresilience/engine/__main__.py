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
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from pytest_tcpresilience._version import __version__
from pytest_tcpresilience.engine.api import Api
from pytest_tcpresilience.engine.http import Server


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


async def _serve(settings: dict[str, Any], version: str) -> None:
    async with trio.open_nursery() as nursery:
        scope = nursery.cancel_scope

        async def until(ends: Callable[[], Awaitable[None]]) -> None:
            await ends()
            scope.cancel()

        parent = int(settings["parent"])
        nursery.start_soon(until, _until_input_ends)
        nursery.start_soon(until, lambda: _until_parent_ends(parent))
        sock = socket.socket(fileno=int(settings["fd"]))
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        api = Api(nursery, version, seed=settings.get("seed"))
        await Server(api.handle, settings["secret"]).serve(listener)


def main() -> None:
    # The terminal's Ctrl-C is for the owner, whose end then ends the engine.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Unbuffered: what follows the first line must stay in the pipe for the other reader.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stdin:
        settings = json.loads(stdin.readline())
    trio.run(_serve, settings, __version__)


if __name__ == "__main__":
    main()
