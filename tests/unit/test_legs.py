"""Waiting on a leg whose socket a fault may close at any moment."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import pytest
import trio

from pytest_tcpresilience.engine.legs import Leg, readable, writable


@pytest.mark.parametrize("wait", [readable, writable])
def test_a_closed_socket_is_said_to_be_closed_and_spoils_nothing(
    wait: Callable[[Leg], Awaitable[None]],
) -> None:
    one, other = socket.socketpair()
    one.close()
    other.close()
    legs = [Leg("client", one, "peer"), Leg("upstream", other, "peer")]

    async def main() -> None:
        # Twice: trio remembers a wait on -1, and refuses the second one.
        for leg in legs * 2:
            with pytest.raises(trio.ClosedResourceError):
                await wait(leg)

    trio.run(main)


def test_a_socket_with_data_is_readable_and_an_empty_one_is_writable() -> None:
    one, other = socket.socketpair()
    with one, other:
        other.send(b"x")

        async def main() -> None:
            await readable(Leg("client", one, "peer"))
            await writable(Leg("client", one, "peer"))

        trio.run(main)
