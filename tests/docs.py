"""The pages of docs/ that are data: ``python -m tests.docs`` writes them.

``tests/examples/test_docs.py`` fails when a page is not what this module writes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from pytest_tcpresilience.tcp.advice_text import duration
from pytest_tcpresilience.tcp.middleboxes import EVICTIONS, MIDDLEBOXES, Middlebox
from pytest_tcpresilience.tcp.provenance import Confidence, Source
from pytest_tcpresilience.tcp.stacks import FACTS, PROFILES, Stack
from tests.docs_engines import engines_page
from tests.docs_reference import PAGES as REFERENCE

DOCS = Path(__file__).resolve().parents[1] / "docs"
CODE = "<!-- Written by `python -m tests.docs` from the code. Do not edit. -->"
GENERATED = "<!-- Written by `python -m tests.docs` from the data. Do not edit. -->"


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    first = list(headings)
    lines = [first, ["---"] * len(first), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _marks() -> str:
    return _table(("mark", "meaning"), ((f"*{mark}*", mark.meaning) for mark in Confidence))


def _marked(source: Source | None) -> str:
    return "" if source is None else f"*{source.confidence}*: {source.where}"


def _doubts(doubts: Iterable[str]) -> str:
    return "".join(f"* Doubt: {doubt}.\n" for doubt in doubts)


# --- stacks -------------------------------------------------------------------------------

STACKS_HEAD = """\
# TCP stacks

When a system's TCP probes an idle connection, repeats what nobody acknowledges, and gives
up. `pytest_tcpresilience.tcp.stacks` has a profile for each, built from the system's own
tunables in their own units: `AIX(tcp_keepidle=240)` waits for 120 s. A profile gives
`probe_times()`, `abort_at`, `retransmissions()`, `syn_schedule()` and more; none opens a socket.
Keepalive counts from the last segment received. Moments are nominal: real timers are late.
"""


def _sent(stack: Stack) -> str:
    return "RST" if stack.rst_at_abort else "nothing"


def _summary() -> str:
    rows = []
    for profile in PROFILES:
        stack = profile()
        data, syn = stack.retransmissions(), stack.syn_schedule()
        rows.append(
            (
                f"[{stack.name}](#{profile.key})",
                f"{stack.idle:g} / {stack.interval:g} s",
                str(stack.probes),
                f"{stack.abort_at:g} s, {duration(stack.abort_at)}",
                f"{_sent(stack)} (*{stack.sources['rst_at_abort'].confidence}*)",
                f"{stack.probe_payload} (*{stack.sources['probe_payload'].confidence}*)",
                f"{duration(data.abort_at)} (*{stack.sources['retransmission'].confidence}*)",
                f"{duration(syn.abort_at)} (*{stack.sources['syn'].confidence}*)",
            )
        )
    headings = (
        "system", "idle / interval", "probes", "gives up", "sends then", "bytes in a probe",
        "data given up", "`connect` fails",
    )  # fmt: skip
    return _table(headings, rows)


def _tunables(stack: Stack) -> str:
    rows = (
        (
            f"`{each.native}`",
            f"`{each.field}`",
            str(getattr(stack, each.field)),
            each.unit,
            f"{each.low} to {each.high}",
            _marked(each.source),
        )
        for each in stack.tunables
    )
    return _table(("tunable", "argument", "default", "unit", "range", "source"), rows)


def _moments(times: tuple[float, ...]) -> str:
    shown = [f"{at:g}" for at in times]
    if len(shown) > 16:
        shown = [*shown[:3], "...", shown[-1]]
    return ", ".join(shown)


def _facts(stack: Stack) -> str:
    data, syn = stack.retransmissions(), stack.syn_schedule()
    options = ", ".join(f"`{option}`" for option in sorted(stack.socket_options))
    limit = f"; user timeout: `{stack.user_timeout_option}`" if stack.user_timeout_option else ""
    default = "on" if stack.keepalive_by_default else "off"
    said = {
        "keepalive": f"{default} by default; probes at {_moments(stack.probe_times())} s; "
        f"gives up at {stack.abort_at:g} s",
        "probe_payload": f"{stack.probe_payload} bytes in a probe",
        "rst_at_abort": f"{_sent(stack)} is sent when keepalive gives up",
        "retransmission": f"RTO {stack.rto_min:g} to {stack.rto_max:g} s; to a near peer, "
        f"{len(data.times)} retransmissions, given up after {data.abort_at:.4g} s",
        "syn": f"repeated at {_moments(syn.times)} s; `connect` fails after {syn.abort_at:g} s",
        "msl": f"MSL {stack.msl:g} s, TIME_WAIT {stack.time_wait:g} s",
        "options": f"{options}{limit}",
    }
    assert said.keys() == set(FACTS)
    rows = ((what, text, _marked(stack.sources[what])) for what, text in said.items())
    return _table(("fact", "with the defaults", "source"), rows)


def stacks_page() -> str:
    parts = [STACKS_HEAD, GENERATED + "\n", "## All of them, with their defaults\n", _summary()]
    parts += ["Each number carries a mark:\n", _marks()]
    for profile in PROFILES:
        stack = profile()
        parts += [f'<a id="{profile.key}"></a>\n', f"## {stack.name}\n"]
        parts += [f"`{profile.__name__}`, by name `{profile.key}`.\n", _tunables(stack)]
        parts.append(_facts(stack))
        if stack.doubts:
            parts.append(_doubts(stack.doubts))
    return "\n".join(parts)


# --- middleboxes --------------------------------------------------------------------------

BOXES_HEAD = """\
# Middleboxes

Firewalls, NATs, load balancers and proxies that forget idle flows. Each preset is an attribute
of `Middlebox` and has a name for the command line: `Middlebox.AWS_NLB` is `aws-nlb`. A test does
not wait for hours: `Middlebox.AWS_NLB.scaled(1.0)` forgets after a second, in the same way.

    python -m pytest_tcpresilience advise --keepalive 7200/75/9 --behind aws-nlb

Every system's keepalive begins after two hours by default, later than most of these forget:
`SO_KEEPALIVE` alone neither keeps a flow alive nor detects its loss in useful time.
"""

PROXIES = """\
A proxy ends TCP on both sides: its own kernel answers keepalive probes, and only the
application's bytes count as traffic.
"""


def _modes() -> str:
    rows = (
        (
            f"`{mode}`",
            "at once" if each.at_once else "with its next segment",
            each.hears,
            each.next_segment,
        )
        for mode, each in EVICTIONS.items()
    )
    return _table(("then", "an end hears", "who hears", "next segment"), rows)


def _range(box: Middlebox) -> str:
    if box.adjustable is None:
        return "fixed, or not known"
    low, high = box.adjustable
    return "any" if math.isclose(high, 2_147_483) and low == 1 else f"{low:.0f} to {high:.0f}"


def _presets() -> str:
    rows = []
    for key, box in MIDDLEBOXES.items():
        assert box.source is not None
        assert box.eviction_source is not None
        rows.append(
            (
                f"`{key}`",
                box.name + (" (a proxy)" if box.proxy else ""),
                f"{box.idle_timeout:g} (*{box.source.confidence}*)",
                _range(box),
                f"`{box.then}` (*{box.eviction_source.confidence}*)",
            )
        )
    headings = ("name", "middlebox", "idle timeout (s)", "can be set to (s)", "then")
    return _table(headings, rows)


def _sources() -> str:
    parts = []
    for key, box in MIDDLEBOXES.items():
        parts.append(f"### `{key}`\n")
        lines = f"* Idle timeout, {_marked(box.source)}.\n"
        lines += f"* What comes then, {_marked(box.eviction_source)}.\n"
        parts.append(lines + _doubts(box.doubts))
    return "\n".join(parts)


def middleboxes_page() -> str:
    return "\n".join(
        [
            BOXES_HEAD,
            GENERATED + "\n",
            "## Presets\n",
            _presets(),
            "Each number carries a mark:\n",
            _marks(),
            "## What becomes of a forgotten flow\n",
            _modes(),
            PROXIES,
            "## Sources and doubts\n",
            _sources(),
        ]
    )


PAGES: dict[str, Callable[[], str]] = {
    "stacks.md": stacks_page,
    "middleboxes.md": middleboxes_page,
    "engines.md": lambda: engines_page(GENERATED),
    **{name: partial(page, CODE) for name, page in REFERENCE.items()},
}


def main() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
