"""A client of a matrix: how it connects, and what it does with its connection.

Owns the public :class:`Client`, and which activities there are. It starts nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from pytest_tcpresilience.errors import UsageError

if TYPE_CHECKING:
    from pytest_tcpresilience.expectations.block import Promise, Raises
    from pytest_tcpresilience.link import Link

Connected = TypeVar("Connected")
Runner = Literal["thread", "asyncio", "trio"]
Activity = Literal["read", "write", "checkout", "wait", "connect"]

# What a client can be doing when the fault hits. Each but the last is an argument of Client.
ACTIVITIES: Mapping[str, str] = {
    "read": "ask the server for something and get it",
    "write": "send something, and wait for nothing",
    "checkout": "take a connection out of a pool, and give it back",
    "wait": "block until the server sends something by itself",
    "connect": "open another connection",
}
# Those that end on a healthy link, and so can prove that a client works there.
_PROVE = ("read", "write", "checkout")
RUNNERS = ("thread", "asyncio", "trio")


class Client(Generic[Connected]):
    """One row of a matrix.

    Each cell has a client of its own: ``connect`` is called once in each, in a thread of its
    own, or for coroutine functions in an event loop of its own.

    :param name: how reports, records and selections call it.
    :param connect: from a link, to whose ``host`` and ``port`` (or ``url``) it connects, to
        whatever the other functions take.
    :param read: ask the server for something and get it. Each of these is repeated until it
        raises.
    :param write: send something, and wait for nothing.
    :param checkout: take a connection out of a pool, and give it back.
    :param wait: block until the server sends something by itself, as a subscriber does.
    :param warm_up: prove on the healthy link that the client works. By default the cell's
        activity itself, and for ``wait``, which would block, the first that there is of
        ``read``, ``write`` and ``checkout``.
    :param close: by default the method ``aclose`` or ``close`` of what ``connect`` has
        returned, where it has one.
    :param runner: ``"thread"``, ``"asyncio"`` or ``"trio"``. By default asyncio where one of
        the functions is a coroutine function.
    :param within: when it must notice, as for :class:`detects_break`; the matrix's own by
        default.
    :param raises: what it should raise, likewise.
    """

    # What is awaited comes first: to a type checker it is a plain result as well.
    @overload
    def __init__(
        self,
        name: str,
        connect: Callable[[Link], Awaitable[Connected]],
        *,
        read: Callable[[Connected], object] | None = None,
        write: Callable[[Connected], object] | None = None,
        checkout: Callable[[Connected], object] | None = None,
        wait: Callable[[Connected], object] | None = None,
        warm_up: Callable[[Connected], object] | None = None,
        close: Callable[[Connected], object] | None = None,
        runner: Runner | None = None,
        within: Promise | None = None,
        raises: Raises | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        name: str,
        connect: Callable[[Link], Connected],
        *,
        read: Callable[[Connected], object] | None = None,
        write: Callable[[Connected], object] | None = None,
        checkout: Callable[[Connected], object] | None = None,
        wait: Callable[[Connected], object] | None = None,
        warm_up: Callable[[Connected], object] | None = None,
        close: Callable[[Connected], object] | None = None,
        runner: Runner | None = None,
        within: Promise | None = None,
        raises: Raises | None = None,
    ) -> None: ...

    def __init__(
        self,
        name: str,
        connect: Callable[[Link], Any],
        *,
        read: Callable[[Connected], object] | None = None,
        write: Callable[[Connected], object] | None = None,
        checkout: Callable[[Connected], object] | None = None,
        wait: Callable[[Connected], object] | None = None,
        warm_up: Callable[[Connected], object] | None = None,
        close: Callable[[Connected], object] | None = None,
        runner: Runner | None = None,
        within: Promise | None = None,
        raises: Raises | None = None,
    ) -> None:
        check_name("Client", name)
        self.name = name
        self.connect = connect
        given = {"read": read, "write": write, "checkout": checkout, "wait": wait}
        self.activities: Mapping[str, Callable[[Connected], object]] = {
            activity: function for activity, function in given.items() if function is not None
        }
        self._warm_up = warm_up
        self.close = _close if close is None else close
        functions = {"connect": connect, "warm_up": warm_up, "close": close, **given}
        _check_callable(name, functions)
        self.runner = _runner(name, runner, functions)
        self.within = within
        self.raises = raises

    def warm_up_for(self, activity: str) -> tuple[str, Callable[[Connected], object]] | None:
        """What to do on the healthy link, and what that is called; ``None`` for nothing."""
        if self._warm_up is not None:
            return "warm_up", self._warm_up
        wanted = (activity, *_PROVE) if activity in _PROVE else _PROVE
        found = [each for each in wanted if each in self.activities]
        return (found[0], self.activities[found[0]]) if found else None

    def __repr__(self) -> str:
        return f"<Client {self.name!r}: {self.runner}>"


def check_name(what: str, name: object) -> None:
    """:raises UsageError: for what reports cannot show in a line."""
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise UsageError(
            f"{what}: {name!r} is no name",
            expected="a text in one line",
            happened=f"got {name!r}",
            advice="give it the name that a report should show",
        )


def _check_callable(name: str, functions: Mapping[str, object]) -> None:
    for role, function in functions.items():
        if function is not None and not callable(function):
            raise UsageError(
                f"Client {name!r}: {role}={function!r} is no function",
                expected=f"a function, or lambda, for {role}",
                happened=f"got a {type(function).__name__}",
                advice=f"pass the function itself, and not what it returns: {role}=lambda c: …",
            )


def _is_coroutine(function: object) -> bool:
    call = getattr(type(function), "__call__", None)  # noqa: B004 # an object's own
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _runner(name: str, runner: object, functions: Mapping[str, object]) -> str:
    if runner is None:
        asynchronous = any(map(_is_coroutine, functions.values()))
        return "asyncio" if asynchronous else "thread"
    if runner not in RUNNERS:
        known = ", ".join(f'"{each}"' for each in RUNNERS)
        raise UsageError(
            f"Client {name!r}: runner={runner!r} is none of the choices",
            expected=f"runner= one of {known}",
            happened=f"got {runner!r}",
            advice="leave it out: coroutine functions run on asyncio, all others in a thread",
        )
    return str(runner)


def _close(connected: object) -> object:
    for name in ("aclose", "close"):
        method = getattr(connected, name, None)
        if callable(method):
            return method()
    return None
