"""What keeps the bytes of a connection where they are, and lets them go again.

Owns the names of those that hold a connection, or leave a direction of it unread. It moves
no bytes, and touches no socket: who moves them asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from pytest_tcpresilience.engine.toxics import Stream


class Held:
    """Something whose bytes can be held. Each one that holds does so by its own name."""

    def __init__(self) -> None:
        self._holds: set[str] = set()
        # The directions of which nothing is read, each by the name of a fault.
        self._unread: dict[str, tuple[Stream, ...]] = {}
        self._changed = trio.Event()

    @property
    def held(self) -> bool:
        """Whether nothing may cross at the moment."""
        return bool(self._holds)

    async def released(self) -> None:
        """Wait until nobody holds it any more."""
        while self._holds:
            await self._changed.wait()

    def halted(self, stream: Stream) -> bool:
        """Whether nothing of this direction may be read, or written, at the moment."""
        return bool(self._holds) or any(stream in each for each in self._unread.values())

    async def resumed(self, stream: Stream) -> None:
        """Wait until this direction may go on."""
        while self.halted(stream):
            await self._changed.wait()

    def hold(self, name: str) -> None:
        """Let nothing cross; ``name`` is what :meth:`release` wants."""
        self._holds.add(name)
        self._look_again()

    def release(self, name: str) -> None:
        self._holds.discard(name)
        self._look_again()

    def leave_unread(self, name: str, streams: tuple[Stream, ...]) -> None:
        """Leave what comes from one side, or from both, in the kernel's buffer.

        Once that is full the kernel closes the window, and the peer's writes have to wait.
        The buffer is left as it is: to make it smaller than what the window promises has
        the kernel drop data, and a peer whose data is lost sees no closed window. What has
        been read already waits where it is, so that nothing crosses any more.
        """
        self._unread[name] = streams
        self._look_again()

    def read_again(self, name: str) -> None:
        """Undo :meth:`leave_unread`."""
        self._unread.pop(name, None)
        self._look_again()

    def _look_again(self) -> None:
        """Something has changed. Those that wait look whether it was for them."""
        self._changed.set()
        self._changed = trio.Event()
