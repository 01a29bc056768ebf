"""What an exception says about how a client noticed.

Client libraries wrap the kernel's error in their own, in many ways. This module owns the
way back to it, by plain inspection of the exception, whatever library raised it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

# The kernel's words for "this connection is dead". EHOSTUNREACH and ENETUNREACH take the
# place of ETIMEDOUT when ICMP arrived while data was unacknowledged.
DEAD = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})
RESET = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ESHUTDOWN})
REFUSED = frozenset({errno.ECONNREFUSED})

_TIMEOUT_WORDS = ("timeout", "timedout", "tooslow")
# Names of exceptions that mean "the stream ended", where no builtin type says so.
_EOF_NAMES = frozenset(
    {"IncompleteReadError", "RemoteDisconnected", "EndOfStream", "IncompleteRead"}
)
_MOST_LINKS = 64


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and all that it wraps, outermost first, each once.

    Follows ``exceptions`` of groups, exceptions among ``args``, ``reason`` (urllib3),
    ``__cause__`` and ``__context__``.
    """
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _MOST_LINKS:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        context = None if current.__suppress_context__ else current.__context__
        members = getattr(current, "exceptions", ())
        candidates = (
            *(members if isinstance(members, (tuple, list)) else ()),
            *current.args,
            getattr(current, "reason", None),
            current.__cause__,
            context,
        )
        waiting += [item for item in candidates if isinstance(item, BaseException)]


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exception, or the members of a group at any depth."""
    members = getattr(error, "exceptions", None)
    if isinstance(members, tuple) and members:
        for member in members:
            yield from leaves(member)
    else:
        yield error


@dataclass(frozen=True)
class ErrorFacts:
    """What was found in an exception.

    :param name: type and text of the outermost exception.
    :param code: the first errno of a socket in the chain, if any.
    :param own_timeout: a timeout that carries no errno: the client's own timer, not the
        kernel's verdict. (Since Python 3.10 both are ``TimeoutError``.)
    :param end_of_stream: the library says that the peer closed.
    """

    name: str
    code: int | None
    own_timeout: bool
    end_of_stream: bool


def _socket_errno(error: BaseException) -> int | None:
    code = getattr(error, "errno", None)
    known = DEAD | RESET | REFUSED
    return code if isinstance(error, OSError) and code in known else None


def _is_timeout(error: BaseException) -> bool:
    if isinstance(error, TimeoutError):
        return error.errno is None
    name = type(error).__name__.lower()
    return any(word in name for word in _TIMEOUT_WORDS)


def _is_end(error: BaseException) -> bool:
    return isinstance(error, EOFError) or type(error).__name__ in _EOF_NAMES


def text_of(error: BaseException) -> str:
    """What the exception says; also of one whose own ``__str__`` is broken."""
    try:
        return str(error)
    except Exception as broken:
        return f"(its __str__ raises {type(broken).__name__})"


def facts(error: BaseException) -> ErrorFacts:
    """Look through an exception and everything that it wraps."""
    links = list(chain(error))
    codes = [code for link in links if (code := _socket_errno(link)) is not None]
    text = text_of(error)
    name = type(error).__name__
    return ErrorFacts(
        name=f"{name}: {text}" if text else name,
        code=codes[0] if codes else None,
        own_timeout=not codes and any(_is_timeout(link) for link in links),
        end_of_stream=any(_is_end(link) for link in links),
    )
