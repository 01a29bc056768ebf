"""``docs/ground-truth.md``: every row, on a link, in the lab and in virtual time, in one table."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pytest_tcpresilience.control import Engine
from tests.groundtruth import labs, links, on_virtual
from tests.groundtruth.ends import WAIT_S
from tests.groundtruth.scenarios import (
    CAUSES,
    DIFFERENCES,
    DOES,
    SCENARIOS,
    Observed,
    Scenario,
    disagreement,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ground-truth.md"
# A lab costs four processes for a moment; two cores take some of them at a time.
SIDE_BY_SIDE = 64

HEAD = """\
# Ground truth

What a link's faults show to a client, and what real networks do. Each row ran on a link of the
engine, on loopback, and for each of its causes in the lab: a client, a router and a server in
network namespaces, where cables are pulled and a firewall forgets. And it ran in virtual time, on
a link of `virtual_tcp` between two simulated Linux hosts. The mechanism on a link is
`detects_break`'s; in the lab it is read from a capture at the watched end; in virtual time it is
both. All must agree with each other and with the window, and a test holds them to that in every
run; the seconds are those of one run. Real timers are late, which is why windows are wide.
Virtual ones are not: there each window ends 20 ms after its nominal time.

`python -m tests.groundtruth --write` runs everything and writes this page.
"""


def run_links(rows: Iterable[Scenario], engine: Engine) -> dict[str, Observed]:
    """Each row on a link of its own, side by side, by name."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        running = {row.name: pool.submit(links.run, row, engine) for row in rows if row.fault}
        return {name: each.result() for name, each in running.items()}


def run_labs(rows: Iterable[Scenario]) -> dict[tuple[str, str], Observed]:
    """Each cause of each row in a lab of its own, side by side, by name and cause."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        running = {
            (row.name, cause): pool.submit(labs.run, row, cause)
            for row in rows
            for cause in row.causes
        }
        return {key: each.result()[0] for key, each in running.items()}


def run_virtual(rows: Iterable[Scenario]) -> dict[str, Observed]:
    """Each row that virtual time can play, in a network of its own, by name."""
    return {row.name: on_virtual.run(row) for row in rows if on_virtual.playable(row)}


def _settings(row: Scenario) -> str:
    if row.attempts:
        return f"`TCP_SYNCNT` {row.attempts}"
    if row.retries2 != 15:
        return f"`tcp_retries2` {row.retries2}"
    text = str(row.settings)
    if not row.settings.enabled and row.settings.user_timeout:
        text += f", user timeout {row.settings.user_timeout:g} s"
    return text


def _how(row: Scenario) -> str:
    if row.mechanism is None:
        return "never"
    return row.mechanism.replace("_", " ") + (f", {row.error}" if row.error else "")


def _after(row: Scenario, seen: Observed, *, punctual: bool = False) -> str:
    wrong = disagreement(row, seen, punctual=punctual)
    if row.mechanism is None and not wrong:
        return f"not in {seen.after:.1f} s"
    return f"{seen.after:.2f} s" + (f" (**{wrong}**)" if wrong else "")


def _virtual(row: Scenario, seen: Observed | None) -> str:
    if seen is None:
        return "not in virtual time"
    after = _after(row, seen, punctual=True)
    return f"`{row.fault or row.causes[0]}`: {after}, {seen.evidence}"


def _row(
    row: Scenario, on_link: Observed | None, cells: Sequence[str], in_virtual: Observed | None
) -> str:
    end = f"{row.end} {DOES[row.does]}; {_settings(row)}"
    window = "none" if row.mechanism is None else str(row.window)
    link = f"`{row.fault}`: {_after(row, on_link)}" if on_link else "not on a link"
    ways = f"{link} | {'; '.join(cells)} | {_virtual(row, in_virtual)}"
    return f"| {row.name} | {end} | {_how(row)} | {window} | {ways} |\n"


def page(
    on_links: dict[str, Observed],
    in_labs: dict[tuple[str, str], Observed],
    in_virtual: dict[str, Observed],
    system: str,
) -> str:
    """The page for these observations."""

    def table(rows: Iterable[Scenario]) -> str:
        text = (
            "| what is true | who does what | how it ends | window | on a link | in the lab "
            "| in virtual time |\n| --- | --- | --- | --- | --- | --- | --- |\n"
        )
        for row in rows:
            found = [(cause, in_labs[row.name, cause]) for cause in row.causes]
            cells = [f"`{c}`: {_after(row, each)}, {each.evidence}" for c, each in found]
            text += _row(row, on_links.get(row.name), cells, in_virtual.get(row.name))
        return text

    causes = "".join(f"* `{name}`: {words}\n" for name, words in CAUSES.items())
    differences = "".join(f"* *{row.name}*: {row.differs}.\n" for row in DIFFERENCES)
    unplayed = "".join(f"* `{name}`: {why}.\n" for name, why in on_virtual.UNPLAYED.items())
    return (
        f"{HEAD}\nWritten on {system}.\n\n## What links show as real networks do\n\n"
        f"{table(SCENARIOS)}\nCauses in the lab:\n\n{causes}\n"
        "## What real networks do and links do not\n\n"
        f"{table(DIFFERENCES)}\n{differences}\n"
        f"Causes that virtual time does not play:\n\n{unplayed}"
    )


def measure() -> str:
    """Run everything, and write it down."""
    engine = Engine(timeout_s=WAIT_S)
    try:
        on_links = run_links(SCENARIOS, engine)
    finally:
        engine.stop()
    rows = (*SCENARIOS, *DIFFERENCES)
    in_labs, in_virtual = run_labs(rows), run_virtual(rows)
    release = platform.release().partition("-")[0]
    system = f"{platform.system()} {release}, {platform.machine()}"
    return page(on_links, in_labs, in_virtual, system)
