"""What an exception says about how a client noticed, whatever library raised it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator

import pytest
import trio

from pytest_tcpresilience.evidence.causes import DEAD, REFUSED, RESET, chain, facts, leaves

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup  # trio brings it


class LibraryError(Exception):
    """As a client library wraps what it got."""


class ReadTimeoutError(Exception):
    """As urllib3 calls it."""


class RemoteDisconnected(Exception):
    """As http.client calls it."""


def kernel(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def by_cause(inner: BaseException) -> Exception:
    outer = LibraryError("lost")
    outer.__cause__ = inner
    return outer


def by_context(inner: BaseException) -> Exception:
    outer = LibraryError("lost")
    outer.__context__ = inner
    return outer


def by_reason(inner: BaseException) -> Exception:
    outer = LibraryError("lost")
    outer.reason = inner  # type: ignore[attr-defined]
    return outer


def by_argument(inner: BaseException) -> Exception:
    return LibraryError("lost", inner)


def by_group(inner: BaseException) -> Exception:
    assert isinstance(inner, Exception)
    group: Exception = ExceptionGroup("lost", [LibraryError("first"), inner])
    return group


WRAPPERS = [by_cause, by_context, by_reason, by_argument, by_group]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_what_is_wrapped_is_found(wrap: Callable[[BaseException], Exception]) -> None:
    inner = kernel(errno.ETIMEDOUT)
    for error in (wrap(inner), wrap(wrap(inner))):
        links = list(chain(error))
        assert links[0] is error
        assert inner in links
        assert facts(error).code == errno.ETIMEDOUT


def test_a_suppressed_context_is_not_followed() -> None:
    """``raise … from None`` says that it does not matter."""
    outer = by_context(kernel(errno.ETIMEDOUT))
    outer.__suppress_context__ = True
    assert list(chain(outer)) == [outer]


def test_a_circle_ends() -> None:
    one, two = LibraryError("one"), LibraryError("two")
    one.__cause__, two.__cause__ = two, one
    assert list(chain(one)) == [one, two]


def test_an_endless_chain_ends() -> None:
    class Endless(Exception):
        @property
        def reason(self) -> Exception:
            return Endless()

    assert len(list(chain(Endless()))) <= 64


@pytest.mark.parametrize("odd", [None, 7, "text", {"host": OSError()}])
def test_exceptions_that_are_something_else(odd: object) -> None:
    """A library may use the name for a thing of its own."""
    error = LibraryError("lost")
    error.exceptions = odd  # type: ignore[attr-defined]
    assert list(chain(error)) == [error]
    assert list(leaves(error)) == [error]


def test_the_outermost_code_wins() -> None:
    outer = kernel(errno.ECONNRESET)
    outer.__context__ = kernel(errno.ETIMEDOUT)
    assert facts(outer).code == errno.ECONNRESET


@pytest.mark.parametrize("code", sorted(DEAD | RESET | REFUSED), ids=errno.errorcode.get)
def test_errnos_of_sockets(code: int) -> None:
    found = facts(kernel(code))
    assert (found.code, found.own_timeout, found.end_of_stream) == (code, False, False)


def test_the_families_of_errnos_do_not_overlap() -> None:
    assert {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH} == DEAD
    assert len(DEAD | RESET | REFUSED) == len(DEAD) + len(RESET) + len(REFUSED)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(kernel(errno.ENOENT), id="another-errno"),
        pytest.param(socket.gaierror(-2, "no such name"), id="resolver"),
        pytest.param(LibraryError("lost"), id="nothing"),
    ],
)
def test_what_says_nothing(error: BaseException) -> None:
    found = facts(error)
    assert (found.code, found.own_timeout, found.end_of_stream) == (None, False, False)


def _timeouts() -> Iterator[BaseException]:
    yield TimeoutError("timed out")
    yield TimeoutError()
    yield asyncio.TimeoutError()
    yield trio.TooSlowError()
    yield ReadTimeoutError("read")


@pytest.mark.parametrize("error", list(_timeouts()), ids=lambda error: type(error).__name__)
def test_the_clients_own_timeout(error: BaseException) -> None:
    assert facts(error).own_timeout
    assert facts(error).code is None
    assert facts(by_cause(error)).own_timeout


def test_the_kernels_timeout_is_not_the_clients() -> None:
    """Both are TimeoutError; only the errno tells them apart."""
    error = kernel(errno.ETIMEDOUT)
    assert isinstance(error, TimeoutError)
    assert not facts(error).own_timeout
    wrapped = ReadTimeoutError("read")
    wrapped.__cause__ = error
    assert not facts(wrapped).own_timeout


@pytest.mark.parametrize(
    "error",
    [
        EOFError(),
        asyncio.IncompleteReadError(b"", 4),
        trio.EndOfChannel(),
        RemoteDisconnected(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_end_of_the_stream(error: BaseException) -> None:
    expected = not isinstance(error, trio.EndOfChannel)  # a channel is no connection
    assert facts(error).end_of_stream is expected


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (LibraryError("lost"), "LibraryError: lost"),
        (LibraryError(), "LibraryError"),
        (kernel(errno.ECONNRESET), "ConnectionResetError: [Errno 104] Connection reset by peer"),
    ],
)
def test_names(error: BaseException, name: str) -> None:
    assert facts(error).name == name


def test_leaves_of_nested_groups() -> None:
    one, two, three = (LibraryError(name) for name in ("one", "two", "three"))
    group = ExceptionGroup("outer", [one, ExceptionGroup("inner", [two, three])])
    assert list(leaves(group)) == [one, two, three]
    assert list(leaves(one)) == [one]
