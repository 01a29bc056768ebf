"""Which engine a session uses, and how the machines around it reach each other.

Owns these options, which are for a whole session: their names, defaults, checks, and the
order ini < environment < command line. Settings of single tests are :mod:`.settings`'.
What is chosen here is started and called in :mod:`.control`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.options import NamedOption

EMBEDDED = "embedded"
TOXIPROXY = "toxiproxy"
# What a program of this name on PATH is taken for.
SERVER_PROGRAM = "toxiproxy-server"


def _refuse(origin: str, text: str, expected: str) -> UsageError:
    return UsageError(
        f"{origin}: {text!r} cannot be used",
        expected=expected,
        happened=f"got {text!r}",
        advice=f"correct {origin}",
    )


def _engine(text: str, origin: str) -> str:
    if text in (EMBEDDED, TOXIPROXY):
        return text
    try:
        parts = urlsplit(text)
        usable = parts.scheme == "http" and bool(parts.hostname) and parts.path in ("", "/")
        usable = usable and bool(parts.port) and not (parts.query or parts.fragment)
    except ValueError:
        usable = False
    if not usable:
        raise _refuse(origin, text, f'"{EMBEDDED}", "{TOXIPROXY}", or "http://host:port"')
    return text.rstrip("/")


def _text(text: str, origin: str) -> str:
    return text


def _host(text: str, origin: str) -> str:
    if re.search(r"[\s/@\[\]]", text) or text.count(":") == 1:
        raise _refuse(origin, text, "a host name or an address, without a port")
    return text


def _ports(text: str, origin: str) -> str:
    ports_of(text, origin)
    return text


def ports_of(text: str, origin: str = "the port range") -> range:
    """``"8666-8690"`` as a range; an empty text is an empty range.

    :raises UsageError: for anything else.
    """
    if not text:
        return range(0)
    found = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= 65535:
        raise _refuse(origin, text, 'two ports from 1 to 65535, as in "8666-8690"')
    return range(int(found[1]), int(found[2]) + 1)


@dataclass(frozen=True)
class ChoiceOption(NamedOption):
    """One option. ``name`` is the field of :class:`EngineChoice`.

    :param metavar: what help calls its value.
    :param check: gives the value, or raises :class:`UsageError`, from a text and where it
        came from.
    """

    metavar: str
    default: str
    help: str
    check: Callable[[str, str], str]


CHOICES = (
    ChoiceOption(
        "engine",
        "ENGINE",
        EMBEDDED,
        '"embedded", "toxiproxy" (a server of its own for the run), or the URL of a Toxiproxy '
        "that runs already",
        _engine,
    ),
    ChoiceOption(
        "toxiproxy",
        "PROGRAM",
        SERVER_PROGRAM,
        'the server that --resilience-engine="toxiproxy" starts, by path or by its name on PATH',
        _text,
    ),
    ChoiceOption(
        "toxiproxy_listen",
        "HOST",
        "",
        "where a running Toxiproxy's proxies listen, on its own machine; empty: on loopback if "
        "its URL is, else everywhere",
        _host,
    ),
    ChoiceOption(
        "toxiproxy_ports",
        "FIRST-LAST",
        "",
        "the ports that its container publishes; empty: any free one",
        _ports,
    ),
    ChoiceOption(
        "toxiproxy_host",
        "HOST",
        "",
        "where its proxies are reached from here; empty: at the URL's host",
        _host,
    ),
    ChoiceOption(
        "upstream_host",
        "HOST",
        "",
        "where it reaches upstreams that are given on loopback here; empty: on its own loopback",
        _host,
    ),
    ChoiceOption(
        "listen",
        "HOST",
        "127.0.0.1",
        "where links listen; 0.0.0.0 for clients in other containers",
        _host,
    ),
    ChoiceOption(
        "link_host",
        "HOST",
        "",
        "where clients reach the links; empty: where they listen",
        _host,
    ),
)


@dataclass(frozen=True)
class EngineChoice:
    """What is in force for a session. The fields are described by :data:`CHOICES`."""

    engine: str = EMBEDDED
    toxiproxy: str = SERVER_PROGRAM
    toxiproxy_listen: str = ""
    toxiproxy_ports: str = ""
    toxiproxy_host: str = ""
    upstream_host: str = ""
    listen: str = "127.0.0.1"
    link_host: str = ""

    @property
    def url(self) -> str | None:
        """Of a server that runs already."""
        return self.engine if self.engine.startswith("http://") else None


def choose_engine(
    ini: Mapping[str, Any], environment: Mapping[str, str], flags: Mapping[str, Any]
) -> EngineChoice:
    """The choice of a session.

    :param ini: values by ini name, ``None`` or "" where not given.
    :param environment: the process's.
    :param flags: values by option name, ``None`` where not given.
    :raises UsageError: naming where a bad value came from.
    """
    values: dict[str, str] = {}
    for option in CHOICES:
        given = option.given(ini, environment, flags)
        if given is not None:
            origin, value = given
            values[option.name] = option.check(str(value).strip(), origin)
    return replace(EngineChoice(), **values)
