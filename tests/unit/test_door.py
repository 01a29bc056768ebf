"""The port of a proxy, in the moment that a client could slip through."""

from __future__ import annotations

import socket

import pytest
import trio

from pytest_tcpresilience.engine import endpoints
from pytest_tcpresilience.engine.door import Door
from pytest_tcpresilience.kernel import cuts


def test_a_listener_is_silent_before_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    listening: list[int] = []

    def silence(listener: socket.socket) -> None:
        listening.append(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    monkeypatch.setattr(cuts, "silence_listener", silence)
    served: list[socket.socket] = []

    async def main() -> None:
        opened = Door(served.append, lambda listener: None)
        opened.keep(await endpoints.listen("127.0.0.1:0"))
        assert (opened.kept, opened.listener, listening) == (True, None, [])
        opened.silence("dark")
        opened.open_again()
        assert not opened.kept
        assert served == [opened.listener]
        opened.close()

    trio.run(main)
    assert listening[0] == 0
