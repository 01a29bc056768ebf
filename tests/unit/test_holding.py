"""What holds a connection, by name; and that one which is ending takes no more work."""

from __future__ import annotations

from typing import cast
from unittest.mock import Mock

import pytest
import trio
import trio.testing

from pytest_tcpresilience.engine.connection import Connection
from pytest_tcpresilience.engine.holding import Held
from pytest_tcpresilience.engine.legs import Leg
from pytest_tcpresilience.engine.proxy import Proxy


def state(held: Held) -> tuple[bool, bool, bool]:
    return held.held, held.halted("upstream"), held.halted("downstream")


def test_each_holds_by_its_own_name() -> None:
    held = Held()
    held.hold("one")
    held.hold("two")
    held.leave_unread("three", ("upstream",))
    assert state(held) == (True, True, True)
    held.release("one")
    assert state(held) == (True, True, True)
    held.release("two")
    assert state(held) == (False, True, False)
    held.release("three")  # which is another thing
    assert state(held) == (False, True, False)
    held.read_again("three")
    assert state(held) == (False, False, False)


def test_whoever_waits_goes_on_with_the_last_that_lets_go() -> None:
    async def main() -> list[str]:
        held, gone_on = Held(), []

        async def wait(name: str) -> None:
            await (held.released() if name == "all" else held.resumed("upstream"))
            gone_on.append(name)

        held.hold("one")
        held.leave_unread("two", ("upstream",))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "all")
            nursery.start_soon(wait, "upstream")
            await trio.testing.wait_all_tasks_blocked()
            held.release("one")
            await trio.testing.wait_all_tasks_blocked()
            gone_on.append("then")
            held.read_again("two")
        return gone_on

    assert trio.run(main) == ["all", "then", "upstream"]


@pytest.mark.parametrize("by_its_end", [True, False])
def test_a_connection_that_is_ending_takes_no_more_work(by_its_end: bool) -> None:
    """Whoever asks is the engine: what is raised there ends all connections."""
    leg = cast(Leg, Mock())

    async def main() -> None:
        worked = []

        async def work() -> None:
            worked.append("begun")
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            proxy = cast(Proxy, Mock(seed="s", start_soon=nursery.start_soon))
            connection = Connection(proxy, 1, leg, ("c", 1), ("l", 1))
            connection.timers.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
            if by_its_end:
                connection.timers.end()
            else:
                connection._scope.cancel()
            connection.timers.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
            connection.timers.end()
        # Past the nursery: what was begun has been cancelled.
        assert worked == ["begun"]

    trio.run(main)
