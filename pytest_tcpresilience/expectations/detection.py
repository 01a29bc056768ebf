"""What came of a wait for a detection: the object that ``detects_break`` yields."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.evidence.health import Health
from pytest_tcpresilience.evidence.timeline import Event
from pytest_tcpresilience.evidence.verdict import Mechanism
from pytest_tcpresilience.expectations.loops import in_event_loop
from pytest_tcpresilience.expectations.outcome import Clocked
from pytest_tcpresilience.tcp.windows import Window


@dataclass(frozen=True)
class Result:
    """What a detection has to tell once the block has ended."""

    after: float
    nominal: float
    mechanism: Mechanism
    exception: BaseException | None
    fault: str
    window: Window
    timeline: tuple[Event, ...]
    health: Health


class Marked(Clocked):
    """What a block's object has in common: the client says so itself."""

    _name = "detection"

    def __init__(self) -> None:
        self._marked = threading.Event()
        self.marked_at: float | None = None

    def mark(self, *_ignored: object, **_also_ignored: object) -> None:
        """The client noticed now, though the block raises nothing.

        May be called from any thread, and takes any arguments, so that it can be a
        client's own callback: ``client.on_disconnect = detection.mark``. The first call
        counts.
        """
        if self.marked_at is None:
            self.marked_at = self._now()
        self._marked.set()

    def wait(self) -> None:
        """Block until :meth:`mark` is called from another thread.

        A client that never calls it is rescued like any other.

        :raises UsageError: in an asyncio or trio task, whose loop it would block.
        """
        if in_event_loop():
            raise UsageError(
                f"{self._name}.wait() would block the event loop",
                expected="a block without an event loop",
                happened="it was called in a running asyncio or trio task",
                advice="await an event of your own that the client's callback sets, and call "
                f"{self._name}.mark() there",
            )
        self._marked.wait()


class Detection(Marked):
    """How the client noticed. Its attributes can be read once the block has ended."""

    def __init__(self) -> None:
        super().__init__()
        self._result: Result | None = None

    # --- after the block -----------------------------------------------------------------

    def conclude(self, result: Result) -> None:
        self._result = result

    def _read(self) -> Result:
        if self._result is None:
            raise UsageError(
                "the detection has nothing to tell yet",
                expected="to be read after the with block",
                happened="it was read inside the block, or the block failed",
                advice="move the assertion behind the block",
            )
        return self._result

    @property
    def after(self) -> float:
        """Seconds from the moment when the fault hit."""
        return self._read().after

    @property
    def nominal(self) -> float:
        """Seconds that it would have taken in production, from the last segment received.

        As :attr:`after`, but for a connection that was fast-forwarded: then what its own
        settings take, by the same mechanism.
        """
        return self._read().nominal

    @property
    def mechanism(self) -> Mechanism:
        """By what the client noticed; compares equal to its name, ``"keepalive"``."""
        return self._read().mechanism

    @property
    def exception(self) -> BaseException | None:
        """What the block raised; ``None`` when it called :meth:`mark`."""
        return self._read().exception

    @property
    def fault(self) -> str:
        """The name of the fault that hit."""
        return self._read().fault

    @property
    def window(self) -> Window:
        """The window that the detection fell into, relative to the hit."""
        return self._read().window

    @property
    def timeline(self) -> tuple[Event, ...]:
        """All that happened on the link, with the exception, on one clock."""
        return self._read().timeline

    @property
    def health(self) -> Health:
        """CPU time, event-loop lag, threads and descriptors while the block ran."""
        return self._read().health
