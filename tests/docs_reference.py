"""The reference: options, fixtures, public names, records and commands, as the code has them."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import pytest_tcpresilience
from pytest_tcpresilience import cli, plugin
from pytest_tcpresilience.fault_methods import ConnectionFaults, LinkFaults
from pytest_tcpresilience.options import NamedOption
from pytest_tcpresilience.records import record
from pytest_tcpresilience.report import document
from pytest_tcpresilience.stream_toxics import StreamToxics
from tests.docs_markdown import slug
from tests.docs_prose import doc, fields_of, inline, markdown, one_line, signature, table

# --- options ------------------------------------------------------------------------------

OPTIONS_HEAD = """\
# Options

Command line beats environment beats ini. Numbers are seconds. The marker beats all of them for its
test. [Engines](engines.md) explains those that choose an engine.
"""


class Recorder:
    """Stands in for pytest's parser and its groups, and remembers what the plugin adds."""

    def __init__(self) -> None:
        self.flags: dict[str, dict[str, Any]] = {}
        self.ini: dict[str, str] = {}

    def getgroup(self, *_names: str) -> Recorder:
        return self

    def addoption(self, *names: str, **described: Any) -> None:
        self.flags[names[-1]] = described

    def addini(self, name: str, help: str, **_described: Any) -> None:
        self.ini[name] = help


def recorded() -> Recorder:
    recorder = Recorder()
    plugin.pytest_addoption(recorder)  # type: ignore[arg-type]
    return recorder


def variables() -> set[str]:
    """The environment variables of all options that the plugin's modules have rows for."""
    found = set()
    for name, module in list(sys.modules.items()):
        if name.startswith("pytest_tcpresilience."):
            for value in vars(module).values():
                rows = value if isinstance(value, tuple) else (value,)
                found |= {each.variable for each in rows if isinstance(each, NamedOption)}
    return found


def options_page(generated: str) -> str:
    recorder, known = recorded(), variables()
    rows = []
    for flag, described in recorder.flags.items():
        name = flag.removeprefix("--resilience-").replace("-", "_")
        ini, variable = f"resilience_{name}", f"RESILIENCE_{name.upper()}"
        text, _, default = described["help"].rpartition(" (default: ")
        rows.append(
            (
                f"`{flag}`",
                # Where a file may not set it, the environment may not either.
                f"`{variable}`" if variable in known and ini in recorder.ini else "",
                f"`{ini}`" if ini in recorder.ini else "",
                default.removesuffix(")") if text else "",
                one_line(text or described["help"]),
            )
        )
    headings = ("command line", "environment", "ini", "default", "what")
    return "\n".join(
        [OPTIONS_HEAD, generated, "", table(headings, rows), "## Markers\n", _markers()]
    )


def _markers() -> str:
    class Config:
        """As much of pytest's as is asked before the markers are known."""

        def __init__(self) -> None:
            self.lines: list[str] = []

        def addinivalue_line(self, name: str, line: str) -> None:
            if name == "markers":
                self.lines.append(line)

        def __getattr__(self, name: str) -> Any:
            raise _Enough

    config = Config()
    with contextlib.suppress(_Enough):
        plugin.pytest_configure(config)  # type: ignore[arg-type]
    rows = [line.split(": ", 1) for line in config.lines]
    return table(("marker", "what"), ((f"`@pytest.mark.{call}`", what) for call, what in rows))


class _Enough(Exception):
    """The markers are known by now."""


# --- fixtures -----------------------------------------------------------------------------

FIXTURES_HEAD = """\
# Fixtures

All are there as soon as the plugin is installed, one of each for a test. What they have made ends
with the test.
"""


def fixtures_page(generated: str) -> str:
    parts = [FIXTURES_HEAD, generated + "\n"]
    for name in plugin.__all__:
        parts += [f"## `{name}`\n", markdown(doc(getattr(plugin, name)))]
    call = signature("tcp_link", pytest_tcpresilience.LinkFactory.__call__)
    made = f"```python\n{call}\n```\n\n{markdown(doc(pytest_tcpresilience.LinkFactory.__call__))}"
    parts.insert(parts.index("## `tcp_link`\n") + 2, made)
    return "\n".join(parts)


# --- public names -------------------------------------------------------------------------

API_HEAD = """\
# Python API

Everything that `from pytest_tcpresilience import …` gives, with what its docstring says. Times are
seconds and sizes bytes, unless a name says otherwise. What a fault's method does is in
[Faults](faults.md); what an expectation expects, in [Expectations](expectations.md).
"""

GROUPS: dict[str, tuple[str, ...]] = {
    "Links": ("LinkFactory", "Link", "Connection", "Ending", "StruckFault", "Event",
              "UpstreamUnreachableWarning"),
    "Faults and toxics": ("Fault", "StreamToxic", "Middlebox"),
    "Expectations": ("detects_break", "recovers", "survives", "stays_quiet", "closes_within",
                     "Detection", "Mechanism", "Recovery", "Survival", "Quiet", "Closing",
                     "Health", "RecordingServer", "RecordedRequest"),
    "Keepalive": ("Keepalive", "Window", "keepalive_of", "KeepaliveReading", "assert_keepalive",
                  "Judgement", "UselessSettingWarning", "fast_forward", "FastForward", "advise",
                  "Advice"),
    "Virtual time": ("VirtualTcp", "VirtualLink", "VirtualConnection", "VirtualFault"),
    "The lab": ("Lab",),
    "Errors": ("ResilienceError", "UsageError", "ExpectationFailed", "HarnessError",
               "FaultUnavailable", "EngineDied"),
}  # fmt: skip


def groups() -> dict[str, tuple[str, ...]]:
    """With whatever else is public, so that nothing is left out."""
    placed = {name for names in GROUPS.values() for name in names}
    public = [name for name in pytest_tcpresilience.__all__ if not name.startswith("__")]
    more = tuple(name for name in public if name not in placed)
    return {**GROUPS, **({"More": more} if more else {})}


def api_page(generated: str) -> str:
    parts = [API_HEAD, generated + "\n"]
    for title, names in groups().items():
        parts.append(f"## {title}\n")
        if title == "Faults and toxics":
            parts += _shared()
        for name in names:
            parts.append(f"### `{name}`\n")
            parts += _described(name, getattr(pytest_tcpresilience, name))
    return "\n".join(parts)


# Objects that are fixtures, and are called.
CALLED_BY_FIXTURE = {
    "LinkFactory": "tcp_link",
    "Matrix": "tcp_matrix",
    "VirtualTcp": "virtual_tcp",
}
# Methods that several classes have: told once.
SHARED: dict[type, str] = {
    ConnectionFaults: "Faults of links and connections",
    LinkFaults: "Faults of links",
    StreamToxics: "Toxics of links and connections",
}
# Public to the rest of the package, and of no use to a test.
PLUMBING: dict[str, frozenset[str]] = {
    "Link": frozenset(
        [
            "add_toxic",
            "post_toxic",
            "events_after",
            "describe_connections",
            "in_flight",
            "listening",
            "engine_pid",
            "engine_address",
            "engine_alive",
            "engine_death",
            "now",
            "last_seq",
            "start_watch",
            "end_watch",
            "call",
            "check_usable",
            "close",
            "is_open",
            "keepalives",
            "settings_now",
        ]
    ),
    "Connection": frozenset({"link", "from_json", "add_toxic"}),
    "Detection": frozenset({"conclude"}),
    "Fault": frozenset({"never_hit", "waits_for_client"}),
    "Event": frozenset({"from_json"}),
    "Lab": frozenset({"end_host"}),
    "VirtualFault": frozenset({"called_off"}),
    "VirtualLink": frozenset(
        [
            "listening",
            "start",
            "hit",
            "lift",
            "passes",
            "inject",
            "log",
            "listen",
            "in_flight",
            "keepalive_of",
            "last_seq",
            "now",
            "never_hit",
            "rescue",
            "sync",
            "open_flows",
            "faults",
        ]
    ),
    "VirtualTcp": frozenset({"close"}),
}


def _shared() -> list[str]:
    parts = []
    for kind, title in SHARED.items():
        parts.append(f"### {title}\n")
        own = {name: each for name, each in vars(kind).items() if inspect.isfunction(each)}
        left_out = PLUMBING["Link"]
        parts += _methods("link", {n: v for n, v in own.items() if _shown(n, left_out)})
    return parts


def _described(name: str, thing: Any) -> list[str]:
    if not inspect.isclass(thing):
        return [_code(signature(name, thing)), markdown(doc(thing))]
    parts = []
    called = _is_called(thing)
    if issubclass(thing, Enum):
        parts.append(", ".join(f"`{member.value}`" for member in thing) + "\n")
    elif called:
        parts.append(_code(signature(name, thing)))
    own = doc(thing)
    begins = thing.__dict__.get("__init__")
    if called and begins is not None and _FIELDS.search(doc(begins)):
        own += "\n\n" + doc(begins)
    parts.append(markdown(own, parameters=called or not is_dataclass(thing)))
    inherited = [f"[{title.lower()}](#{slug(title)})" for kind, title in SHARED.items()
                 if issubclass(thing, kind)]  # fmt: skip
    if inherited:
        parts.append(f"It has the {', the '.join(inherited)} as methods.\n")
    call = vars(thing).get("__call__")
    if name in CALLED_BY_FIXTURE and doc(call):
        parts += [_code(signature(CALLED_BY_FIXTURE[name], call)), markdown(doc(call))]
    values, methods = _members(thing, fields_too=not called)
    if values:
        parts.append(table(("attribute", "what"), values))
    return parts + _methods(name, methods)


_FIELDS = re.compile(r":(param|raises|returns?)\b")


def _is_called(thing: type) -> bool:
    """Whether a user makes one: results and errors are handed out."""
    return thing.__name__ in {
        "detects_break", "recovers", "survives", "stays_quiet", "closes_within", "fast_forward",
        "Keepalive", "Middlebox", "RecordingServer", "VirtualTcp", "Lab", "Client", "MatrixFault",
    }  # fmt: skip


def _members(thing: type, *, fields_too: bool) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Attributes with what they are, and methods: its own before inherited ones."""
    values: dict[str, str] = {}
    methods: dict[str, Any] = {}
    left_out = PLUMBING.get(thing.__name__, frozenset())
    for base in thing.__mro__:
        if base in SHARED or not base.__module__.startswith("pytest_tcpresilience"):
            continue
        if is_dataclass(base) and fields_too:
            said = fields_of(doc(base))
            for name in (each.name for each in fields(base) if each.repr):
                values.setdefault(name, said.get(("param", name), ""))
        for name, value in vars(base).items():
            if isinstance(value, (property, cached_property)):
                values.setdefault(name, first_paragraph(value))
            elif inspect.isfunction(_function(value)):
                methods.setdefault(name, _function(value))
    return (
        [(f"`{name}`", said) for name, said in values.items() if _shown(name, left_out)],
        {name: each for name, each in methods.items() if _shown(name, left_out)},
    )


def _shown(name: str, left_out: frozenset[str]) -> bool:
    return not name.startswith("_") and name not in left_out


def _function(value: Any) -> Any:
    return value.__func__ if isinstance(value, (staticmethod, classmethod)) else value


def _methods(owner: str, methods: dict[str, Any]) -> list[str]:
    parts = []
    for name, function in methods.items():
        if doc(function):
            parts += [_code(signature(f"{owner}.{name}", function)), markdown(doc(function))]
    return parts


def first_paragraph(thing: Any) -> str:
    said = _FIELDS.split(doc(thing), maxsplit=1)[0].split("\n\n")[0]
    return one_line(said)


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


# --- records ------------------------------------------------------------------------------

RECORDS_HEAD = """\
# Records

Each expectation, and each cell of a [matrix](matrix.md), leaves a record of what it has seen. A
run's records are its *document*, a JSON file with these fields. It names its `schema` and its
`version`, which counts up when a field changes its meaning or goes; a new field does not count.
Times are seconds.
"""


def records_page(generated: str) -> str:
    parts = [RECORDS_HEAD, generated + "\n", "## The document\n"]
    parts += [f'`"schema": "{document.SCHEMA}"`, `"version": {document.VERSION}`.\n']
    parts += [_fields(document.Document, document), "States of a test:\n"]
    parts += ["".join(f"* `{state.value}`\n" for state in document.State)]
    parts += ["## A record\n"]
    parts += [f'`"schema": "{record.SCHEMA}"`, `"version": {record.VERSION}`.\n']
    parts += [_fields(record.Record, record)]
    for kind in _NESTED:
        parts += [f"## {kind.__name__}\n", inline(_text(doc(kind))) + "\n", _fields(kind, record)]
    return "\n".join(parts)


_NESTED = (record.Happening, record.Failure, record.Settings, record.Promised, record.Reason)
# Of those that their docstrings leave to others.
_SAID_ELSEWHERE = {
    "Record.timeline": "what happened, in order",
    "Settings.enabled": "`SO_KEEPALIVE`",
    "Settings.idle": "`TCP_KEEPIDLE`, seconds",
    "Settings.interval": "`TCP_KEEPINTVL`, seconds",
    "Settings.probes": "`TCP_KEEPCNT`",
    "Settings.user_timeout_ms": "`TCP_USER_TIMEOUT`, milliseconds; 0 is off",
    "Reason.name": "as in the table of [causes](expectations.md#causes)",
    "Reason.why": "the sentence for it",
    "Reason.cure": "what to do",
}


def _text(docstring: str) -> str:
    return _FIELDS.split(docstring, maxsplit=1)[0].strip()


def _fields(kind: Any, module: Any) -> str:
    said = fields_of(doc(kind))
    rows = [
        (f"`{each.name}`", _json_type(each, module), _meaning(kind, each.name, said))
        for each in fields(kind)
    ]
    return table(("field", "type", "what"), rows)


def _meaning(kind: Any, name: str, said: dict[tuple[str, str], str]) -> str:
    own = said.get(("param", name)) or _SAID_ELSEWHERE.get(f"{kind.__name__}.{name}", "")
    if own:
        return own
    (told,) = [other for (_, other), text in said.items() if f"`{name}`" in text]
    return f"see `{told}`"


_TYPES: dict[str, str] = {
    "str": "text",
    "bool": "true or false",
    "int": "whole number",
    "float": "number",
    "tuple[str, ...]": "list of texts",
    "tuple[Record, ...]": "list of [records](#a-record)",
    "tuple[Happening, ...]": "list of [events](#happening)",
    "Mapping[str, str]": "texts by name",
    "Mapping[str, Any]": "values by name",
    "Mapping[str, State]": "state by node id",
    "Failure": "[failure](#failure)",
    "Settings": "[settings](#settings)",
    "Promised": "[promised](#promised)",
    "Reason": "[reason](#reason)",
}


def _json_type(each: Field[Any], module: Any) -> str:
    name, _, none = str(each.type).partition(" | None")
    optional = " or null" if " | None" in str(each.type) else ""
    assert not none
    assert each.default is MISSING or not optional or each.default is None
    return _TYPES[name] + optional


# --- commands -----------------------------------------------------------------------------

CLI_HEAD = """\
# Command line

`python -m pytest_tcpresilience COMMAND`. What `pytest` itself takes is in [Options](options.md).
"""


def cli_page(generated: str) -> str:
    parts = [CLI_HEAD, generated + "\n"]
    (commands,) = [action for action in cli._parser()._actions if isinstance(action.choices, dict)]
    for name, parser in commands.choices.items():  # type: ignore[union-attr]
        parts += [f"## `{name}`\n", inline(" ".join((parser.description or "").split())) + "\n"]
        rows = [_argument(action) for action in parser._actions if action.dest != "help"]
        parts.append(table(("argument", "what"), rows))
    return "\n".join(parts)


def _argument(action: argparse.Action) -> tuple[str, str]:
    call = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    if action.option_strings and action.nargs != 0:
        call += f" {action.metavar or action.dest.upper()}"
    if action.nargs in ("*", "+"):
        call += " ..."
    if isinstance(action, argparse._AppendAction):
        call += " ..."
    said = (action.help or "") % {"default": action.default, "prog": "", "dest": action.dest}
    if action.choices:
        said += f" ({', '.join(map(str, action.choices))})"
    return f"`{call}`", one_line(said)


PAGES: dict[str, Callable[[str], str]] = {
    "options.md": options_page,
    "fixtures.md": fixtures_page,
    "api.md": api_page,
    "records.md": records_page,
    "cli.md": cli_page,
}
