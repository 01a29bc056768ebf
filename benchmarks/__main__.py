"""The data path and the control of the embedded engine, beside Toxiproxy's server.

``python -m benchmarks`` measures, round after round and in each round one after the
other, the upstream itself, the embedded engine, and where ``toxiproxy-server`` is found,
that. It prints medians, ratios and whether the budgets are kept; the exit status is 1 if
one is not.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import trio

from benchmarks import measures, peers, table, targets
from benchmarks.measures import QUICK, Effort, Upstreams
from benchmarks.targets import Server
from pytest_tcpresilience import __version__

Samples = dict[str, dict[str, list[float]]]
# Of each idle connection a server has two sockets; and it has some descriptors for itself.
SPARE_DESCRIPTORS = 100
_START: dict[str, Callable[[str | None], Server]] = {
    "embedded": lambda program: targets.embedded(),
    "toxiproxy": lambda program: targets.Toxiproxy(program or ""),
}


def _add(samples: Samples, target: str, figures: dict[str, float]) -> None:
    for key, value in figures.items():
        samples.setdefault(target, {}).setdefault(key, []).append(value)


def _measure(effort: Effort, program: str | None, upstreams: Upstreams) -> Samples:
    samples: Samples = {}
    names = ["embedded"] + (["toxiproxy"] if program else [])
    servers: dict[str, Server | None] = {"direct": None}
    for name in names:
        servers[name] = _START[name](program)
    for turn in range(effort.rounds):
        for measure in measures.MEASURES:
            for name, server in servers.items():
                _add(samples, name, measure(server, upstreams, effort))
        print(f"round {turn + 1} of {effort.rounds}", file=sys.stderr)
    for server in servers.values():
        if server is not None:
            server.stop()
    for _ in range(min(effort.rounds, 3)):
        for name in names:
            _measure_fresh(samples, name, program, upstreams, effort)
    return samples


def _measure_fresh(
    samples: Samples, name: str, program: str | None, upstreams: Upstreams, effort: Effort
) -> None:
    """What needs a server of its own."""
    begun = time.perf_counter()
    server = _START[name](program)
    _add(samples, name, {"start": (time.perf_counter() - begun) * 1e3})
    for count, row in zip(effort.idle, ("memory 1000", "memory 10000"), strict=True):
        most = _most_idle(count)
        _add(samples, name, {row: measures.memory(server, upstreams, most)})
        server.stop()
        server = _START[name](program)
    _add(samples, name, measures.blocked_control(server, upstreams, effort))
    server.stop()


def _most_idle(wanted: int) -> int:
    """How many idle connections the limit on descriptors allows in one server."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return min(wanted, (limit - SPARE_DESCRIPTORS) // 2)


def _raise_limit() -> None:
    """As many descriptors as we need, or may have. The servers inherit it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = max(hard, 2 * max(Effort.idle) + SPARE_DESCRIPTORS)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    except (ValueError, OSError):  # only root may have more than the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _waited_s() -> float:
    """For how long something waited for a CPU so far (pressure stall information)."""
    try:
        line = Path("/proc/pressure/cpu").read_text().splitlines()[0]
    except OSError:
        return 0.0
    return int(line.rpartition("total=")[2]) / 1e6


def _machine(version: str, effort: Effort, waited: float) -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} CPUs, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"{platform.machine()}; Python {platform.python_version()}, trio {trio.__version__}, "
        f"pytest-tcpresilience {__version__}; {version}; {_most_idle(effort.idle[-1]):,} idle "
        f"connections at most, by the limit on descriptors. For {waited:.0%} of the time "
        "something waited for a CPU, the measured processes included."
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--toxiproxy", metavar="PATH", help="Toxiproxy's server")
    parser.add_argument("--quick", action="store_true", help="see that it works; measures nothing")
    parser.add_argument("--rounds", type=int, help=f"how many ({Effort.rounds})")
    parser.add_argument("--write", metavar="PAGE", help="put the table into a Markdown page")
    parsed = parser.parse_args(arguments)
    effort = QUICK if parsed.quick else Effort(rounds=parsed.rounds or Effort.rounds)
    program = targets.find_toxiproxy(parsed.toxiproxy)
    _raise_limit()
    begun, waited = time.monotonic(), _waited_s()
    with peers.servers() as upstreams:
        samples = _measure(effort, program, upstreams)
    rows = table.medians(samples)
    share = (_waited_s() - waited) / (time.monotonic() - begun)
    version = "Toxiproxy 2.12.0" if program else "no toxiproxy-server was found"
    generated = f"{_machine(version, effort, share)}\n\n{table.render(rows)}"
    print(generated)
    if parsed.write:
        page = Path(parsed.write)
        page.write_text(table.replace(page.read_text(), generated))
    for title in table.missed(rows):
        print(f"missed: {title}", file=sys.stderr)
    return 1 if table.missed(rows) and not parsed.quick else 0


if __name__ == "__main__":
    sys.exit(main())
