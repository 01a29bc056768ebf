"""``docs/engines.md``: what each engine can honestly produce."""

from __future__ import annotations

from pytest_tcpresilience.engine.toxics import TYPES
from pytest_tcpresilience.engine_choice import CHOICES
from pytest_tcpresilience.engines import DIFFERENCES, MET_BY_TOXIC, met_by_fault
from pytest_tcpresilience.faults import FAULTS
from tests.toxiproxy_server import HOW

HEAD = """\
# Engines

Links are carried by the *embedded* engine, which comes with the plugin. Teams that run Shopify's
Toxiproxy already can have the toxics of their links happen there; tests stay the same.

    pytest --resilience-engine=toxiproxy             # a server of its own for the run
    pytest --resilience-engine=http://localhost:8474 # one that runs already

A link then is a chain: the client connects to a hop of ours, which does everything below the byte
stream, observes and rescues; behind it is a proxy in Toxiproxy, where the stream toxics really
happen; behind that the upstream. The fixture `toxiproxy` is toxiproxy-python's object for the
real server, and `link.name` is the name of the link's proxy there. The header of a run says
which engine it has, with its version.

The program is looked up on PATH as `toxiproxy-server`. With Go it is had by:

    {how}

"""

SHARING = """\
## Sharing a server

* Names of our proxies begin with `tcpresilience-` and say which machine and process made them.
  Several workers, runs and users may use one server. Proxies of others are never touched, and
  `POST /reset` is never sent: `toxiproxy.reset()`, `.destroy_all()` and `.populate()` of the
  fixture's object act on what the test has made.
* What a killed run or worker leaves is deleted by the run's engine, which outlives it for a
  moment. Should that be killed as well, the next run removes the leftovers: of this machine's
  processes that have ended, and of other machines after a day.
* A server that ends or is restarted in mid-test is named as what it is: the client under test is
  not to blame, and does not hang. A server below version 2.0 is refused; one newer than those that
  were tested causes a `ToxiproxyVersionWarning`.

With pytest-xdist all workers share the run's engine, of either kind. Each has a set of proxies
of its own there: equal names do not clash, and what a crashed worker leaves is cleared away.
Workers on other machines (`--tx`) have engines of their own.

## Containers

With a Toxiproxy in a container, its proxies listen inside: publish a range of ports, name it with
`--resilience-toxiproxy-ports`, and say where it reaches the upstreams. [Toxiproxy in
Compose](howto/compose.md) has both shapes, tests outside of the containers and inside.
Clients in other containers reach the links under `--resilience-link-host` once
`--resilience-listen` lets them in; the cuts work on them as on any other.

"""


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _met(names: tuple[str, ...]) -> str:
    return "; ".join(f"[{name.replace('_', ' ')}](#differences)" for name in names) or "the same"


def engines_page(generated: str) -> str:
    """:param generated: the line that says where the page comes from."""
    faults = "".join(
        _row(f"`{row.call or row.name}`", "our hop", _met(met_by_fault(row.name)))
        for row in FAULTS.values()
    )
    toxics = "".join(
        _row(f"`{name}`", "Toxiproxy", _met(MET_BY_TOXIC.get(name, ())))
        for name, kind in TYPES.items()
        if not kind.below
    )
    choices = "".join(
        _row(
            f"`{each.flag}`",
            f"`{each.variable}`",
            f"`{each.ini}`",
            f"`{each.default}`" if each.default else "empty",
            each.help,
        )
        for each in CHOICES
    )
    differences = "".join(
        _row(name.replace("_", " "), each.embedded, each.toxiproxy)
        for name, each in DIFFERENCES.items()
    )
    return (
        f"{generated}\n"
        + HEAD.format(how=HOW)
        + "## Options\n\nCommand line beats environment beats ini.\n\n"
        + _row("command line", "environment", "ini", "default", "what")
        + _row(*["---"] * 5)
        + choices
        + "\n"
        + SHARING
        + "## What each can honestly produce\n\n"
        + "The embedded engine produces all of it. On a chain:\n\n"
        + _row("fault", "done by", "compared with the embedded engine")
        + _row(*["---"] * 3)
        + faults
        + toxics
        + "\n## Differences\n\nEach is met by a test that runs on both engines and expects it.\n\n"
        + _row("difference", "embedded", "Toxiproxy 2.12")
        + _row(*["---"] * 3)
        + differences
    )
