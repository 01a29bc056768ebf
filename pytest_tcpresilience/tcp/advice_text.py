"""How advice reads: a page for one middlebox, a table for many, plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pytest_tcpresilience.tcp.advice import Advice, Notice
from pytest_tcpresilience.tcp.cures import Cure


def duration(seconds: float) -> str:
    """``7875`` as ``2 h 11 min 15 s``, a day as ``24 h``, and what is below 2 min in seconds."""
    if math.isinf(seconds):
        return "never"
    if seconds < 120:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    parts = ((whole // 3600, "h"), (whole % 3600 // 60, "min"), (whole % 60, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def when(notice: Notice) -> str:
    """The time of a notice in words."""
    if not notice.noticed:
        return "never"
    if not notice.latest:
        return "at once"
    if notice.earliest == notice.latest:
        return f"after {duration(notice.latest)}"
    return f"after {duration(notice.earliest)} to {duration(notice.latest)}"


def how(notice: Notice) -> str:
    """Its mechanism and error in words."""
    if notice.mechanism is None:
        return ""
    return f" by {notice.mechanism} ({notice.errno or 'end of stream'})"


def _line(label: str, notice: Notice) -> str:
    return f"  {label:<17}{when(notice)}{how(notice)}: {notice.why}"


def _rate(packets: float) -> str:
    return f"{packets:.1f} packets per connection and hour"


def _cure(number: int, cure: Cure, before: float) -> str:
    mark = "" if cure.possible else "no: "
    cost = f" [{_rate(cure.packets_per_hour)}, now {before:.1f}]" if cure.possible else ""
    return f"    {number}. {cure.where}: {mark}{cure.change}{cost}"


def render(advice: Advice) -> str:
    """All of it, a line for each finding."""
    lines = [str(advice.client) + (f"; behind {advice.behind}" if advice.behind else "")]
    if advice.held is not None:
        lines.append(f"  {'flow held open':<17}{advice.held}: {advice.held_why}")
    if advice.forgotten is not None:
        lines.append(_line("forgotten, idle", advice.forgotten))
    if advice.forgotten_write is not None:
        lines.append(_line("forgotten, write", advice.forgotten_write))
    lines.append(_line("dead peer, idle", advice.silent))
    lines.append(_line("dead peer, write", advice.writing))
    packets = advice.client.packets_per_hour
    lines.append(f"  {'keepalive costs':<17}{_rate(packets)} while idle")
    asked = "" if advice.within is None else f" within {advice.within:g} s"
    lines.append(f"  {'verdict':<17}{'well' if advice.ok else 'not well'}{asked}")
    lines += [f"    because {reason}" for reason in advice.reasons]
    if advice.cures:
        lines.append("  cures")
        lines += [_cure(i, cure, packets) for i, cure in enumerate(advice.cures, 1)]
    doubts = (*advice.client.stack.doubts, *(advice.behind.doubts if advice.behind else ()))
    lines += [f"  {'doubt':<17}{doubt}" for doubt in doubts]
    return "\n".join(lines)


HEADINGS = ("middlebox", "forgets after", "then", "held open", "idle client notices", "", "cure")


def _row(advice: Advice) -> tuple[str, ...]:
    box, notice = advice.behind, advice.forgotten or advice.silent
    assert box is not None
    possible = [cure for cure in advice.cures if cure.possible]
    cure = "" if advice.ok else (possible[0].change if possible else "none of its own")
    return (
        box.name,
        duration(box.idle_timeout),
        box.then,
        advice.held or "",
        when(notice) + how(notice),
        "well" if advice.ok else "not well",
        cure,
    )


def table(advices: Sequence[Advice]) -> str:
    """A line for each middlebox that the same client is behind."""
    rows = [HEADINGS, *(_row(advice) for advice in advices)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([f"{advices[0].client}", *lines])


def _notice(notice: Notice | None) -> dict[str, Any] | None:
    if notice is None:
        return None
    plain = asdict(notice)
    for key in ("earliest", "latest"):
        if math.isinf(plain[key]):
            plain[key] = None
    return {**plain, "noticed": notice.noticed}


def as_dict(advice: Advice) -> dict[str, Any]:
    """Plain values: times in seconds, None for never."""
    box, client = advice.behind, advice.client
    return {
        "client": str(client),
        "stack": client.stack.key,
        "behind": box and {"name": box.name, "idle_timeout": box.idle_timeout, "then": box.then},
        "within": advice.within,
        "ok": advice.ok,
        "reasons": list(advice.reasons),
        "held": advice.held,
        "held_why": advice.held_why,
        "forgotten": _notice(advice.forgotten),
        "forgotten_write": _notice(advice.forgotten_write),
        "silent": _notice(advice.silent),
        "writing": _notice(advice.writing),
        "packets_per_hour": client.packets_per_hour,
        "cures": [asdict(cure) for cure in advice.cures],
    }
