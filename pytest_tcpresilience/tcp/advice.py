"""Will this client survive there? The judgement, from data alone.

Owns what follows from a client's settings, its system and a middlebox: whether probes
hold an idle flow open, and who notices what, when and how. What would help is in
:mod:`.cures`, how it reads in :mod:`.advice_text`. Nothing here waits or opens a socket.

How to think about it. Three things can happen to a connection, and each has its own
clock: the middlebox forgets it while it is idle; the peer falls silent while it is idle;
the peer falls silent, or the flow is forgotten, and then the client writes. Times count
from the break, which for a forgotten flow is the moment of forgetting. They are nominal;
whether a flow is held open, and whether a bound is kept, is judged with the latest
moment at which the system's timers may fire.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.middleboxes import Middlebox, middlebox_named
from pytest_tcpresilience.tcp.stacks import Stack, stack_named

HOUR_S = 3600.0
Held = Literal["yes", "perhaps", "no"]


@dataclass(frozen=True)
class Notice:
    """Whether, when and how a client notices.

    :param earliest: seconds from the break; infinite for never.
    :param latest: the same, at the most. Nominal: timers may be late.
    :param mechanism: as in ``detection.mechanism``; None for never.
    :param errno: the error's name; None for never, and for an orderly end of the stream.
    :param why: one sentence.
    """

    earliest: float
    latest: float
    mechanism: str | None
    errno: str | None
    why: str

    @property
    def noticed(self) -> bool:
        return self.mechanism is not None


@dataclass(frozen=True)
class Client:
    """A client's settings on its system.

    :param keepalive: what the application sets; None for the system's own numbers.
    """

    stack: Stack
    enabled: bool
    keepalive: Keepalive | None
    user_timeout: float

    @property
    def endless(self) -> bool:
        return self.keepalive is None and not self.stack.probes

    def first(self) -> float:
        """Seconds from data to the first probe."""
        if self.keepalive is not None:
            return float(self.keepalive.idle)
        return self.stack.idle

    def gap(self) -> float:
        """The longest time without a segment, while probes are sent and answered."""
        if self.endless:
            return self.stack.idle
        answered = self.stack.schedule(self.keepalive, answered_probe=True).times[0]
        return max(self.first(), answered)

    def abort(self) -> float:
        """Seconds from the last segment received until keepalive gives up."""
        return math.inf if self.endless else self.stack.schedule(self.keepalive).abort_at

    def longest(self) -> float:
        """The same after the answer to a probe, if that is later."""
        if self.endless:
            return math.inf
        answered = self.stack.schedule(self.keepalive, answered_probe=True).abort_at
        return max(answered, self.abort())

    @property
    def packets_per_hour(self) -> float:
        """Probes and their answers on an idle connection whose peer is there."""
        return 2 * HOUR_S / self.gap() if self.enabled else 0.0

    def __str__(self) -> str:
        if not self.enabled:
            text = "keepalive off"
        elif self.keepalive is None:
            stack = self.stack
            text = f"keepalive {stack.idle:g}/{stack.interval:g}/{stack.probes} (the system's)"
        else:
            ka = self.keepalive
            text = f"keepalive {ka.idle}/{ka.interval}/{ka.probes}"
        if self.user_timeout:
            text += f", user timeout {self.user_timeout:g} s"
        return f"{self.stack}, {text}"


def client_of(keepalive: Keepalive | str, stack: Stack | str) -> Client:
    """The settings that a test or a command line names.

    :raises UsageError: for other words, and for what the stack has no option for.
    """
    system = stack_named(stack) if isinstance(stack, str) else stack
    if isinstance(keepalive, Keepalive):
        if keepalive.enabled:
            system.check_options(keepalive)
        elif keepalive.user_timeout and system.user_timeout_option is None:
            system.retransmissions(user_timeout=keepalive.user_timeout)  # refuses it
        return Client(system, keepalive.enabled, keepalive, keepalive.user_timeout)
    if keepalive not in ("off", "default"):
        raise UsageError(
            f"keepalive={keepalive!r} is none of the choices",
            expected='a Keepalive, "off", or "default" for the numbers of the system',
            happened=f"got {keepalive!r}",
            advice="for example keepalive=Keepalive(60, 10, 3)",
        )
    return Client(system, keepalive == "default", None, 0.0)


NEVER = math.inf
_OFF = "SO_KEEPALIVE is off, and a client that only waits sends nothing"
_ENDLESS = "it probes for ever"


def _never(why: str) -> Notice:
    return Notice(NEVER, NEVER, None, None, why)


def held_open(client: Client, box: Middlebox) -> tuple[Held, str]:
    """Whether probes keep the box from forgetting an idle flow, and why."""
    limit = box.idle_timeout
    if not client.enabled:
        return "no", f"no probes are sent, and it forgets after {limit:g} s"
    if box.proxy:
        return "no", "a proxy answers probes itself and counts the application's bytes only"
    gap = client.gap()
    late = client.stack.latest(gap)
    if gap >= limit:
        return "no", f"{gap:g} s pass without a segment, and it forgets after {limit:g} s"
    if late >= limit:
        return "perhaps", (
            f"a probe is due after {gap:g} s, but timers may be late: up to {late:g} s, and it "
            f"forgets after {limit:g} s"
        )
    return "yes", f"a probe each {gap:g} s, and it forgets after {limit:g} s"


def _forgotten(client: Client, box: Middlebox) -> Notice:
    """What a client that waits hears of a flow that the box has forgotten."""
    limit = box.idle_timeout
    if box.eviction.at_once:
        mechanism, errno = ("fin", None) if box.then == "fin" else ("reset", "ECONNRESET")
        why = "both ends are told at once, if anything reads the socket"
        return Notice(0.0, 0.0, mechanism, errno, why)
    if not client.enabled:
        return _never(_OFF)
    if box.then == "reset":
        at = max(client.first() - limit, 0.0)
        until = max(client.gap() - limit, at)
        return Notice(at, until, "reset", "ECONNRESET", "its next probe is answered with RST")
    if box.then == "drop_inbound":
        return _never(
            f"the probe after {client.gap():g} s goes out and opens the flow again; until then "
            "what the server sends is dropped"
        )
    if client.endless:
        return _never(_ENDLESS)
    return Notice(
        max(client.abort() - limit, 0.0),
        max(client.longest() - limit, 0.0),
        "keepalive",
        "ETIMEDOUT",
        "its probes are dropped",
    )


def _silent(client: Client) -> Notice:
    """What an idle client notices of a peer that is gone."""
    if not client.enabled:
        return _never(_OFF)
    if client.endless:
        return _never(_ENDLESS)
    abort, longest = client.abort(), client.longest()
    why = "probes go unanswered"
    if client.user_timeout and client.stack.user_timeout_ends_idle:
        why += "; the user timeout takes the place of their count"
    # The break may come right after a segment, or just before a probe.
    return Notice(abort - client.first(), longest, "keepalive", "ETIMEDOUT", why)


def _writing(client: Client) -> Notice:
    """What becomes of a write to a peer that is silent, or to a box that drops it."""
    limit = client.stack.retransmissions(user_timeout=client.user_timeout).abort_at
    if client.user_timeout:
        why = f"{client.stack.user_timeout_option} ends the retransmissions"
        return Notice(limit, limit, "user_timeout", "ETIMEDOUT", why)
    why = "keepalive does not run while data is unacknowledged; retransmission has its own limit"
    return Notice(limit, limit, "retransmission_limit", "ETIMEDOUT", why)


def _forgotten_write(client: Client, box: Middlebox) -> Notice:
    """What becomes of a write on a flow that the box has forgotten."""
    if box.then == "drop":
        return _writing(client)
    if box.then == "drop_inbound":
        return _never("the write goes out and opens the flow again")
    return Notice(0.0, 0.0, "reset", "ECONNRESET", "the write is answered with RST")


@dataclass(frozen=True)
class Advice:
    """What :func:`advise` found. Times are seconds.

    :param client: whose settings were judged.
    :param behind: the middlebox; None without one.
    :param within: the bound that was asked for; None without one.
    :param held: whether probes hold an idle flow open; None without a middlebox.
    :param held_why: the reason.
    :param forgotten: what a waiting client notices of a flow that was forgotten; None where
        that does not happen.
    :param forgotten_write: what a client notices that writes on such a flow.
    :param silent: what an idle client notices of a peer that is gone.
    :param writing: what a client notices that writes to a peer that is gone.
    :param ok: the flow is held open, or its loss is heard of at once, or inside ``within``;
        and with ``within``, a silent peer is noticed inside it too, by an idle client as by
        one that writes.
    :param reasons: what stands against it, one sentence each.
    """

    client: Client
    behind: Middlebox | None
    within: float | None
    held: Held | None
    held_why: str
    forgotten: Notice | None
    forgotten_write: Notice | None
    silent: Notice
    writing: Notice
    ok: bool
    reasons: tuple[str, ...]

    @property
    def cures(self) -> tuple[Any, ...]:
        """The smallest changes that help, as :class:`~.cures.Cure`; none where all is well."""
        from pytest_tcpresilience.tcp.cures import cures_for

        return cures_for(self)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain values, with None for never."""
        from pytest_tcpresilience.tcp.advice_text import as_dict

        return as_dict(self)

    def __str__(self) -> str:
        from pytest_tcpresilience.tcp.advice_text import render

        return render(self)


def _too_late(
    what: str, notice: Notice, client: Client, within: float, *, ran: float = 0.0
) -> str | None:
    """``ran``: the seconds for which the client's timers had run when the break came."""
    if not notice.noticed:
        return f"{what} is never noticed: {notice.why}"
    late = client.stack.latest(ran + notice.latest) - ran if notice.latest else 0.0
    if late <= within:
        return None
    return f"{what} is noticed up to {late:g} s later, and {within:g} s are allowed"


def _against(
    client: Client,
    box: Middlebox | None,
    within: float | None,
    held: Held | None,
    forgotten: Notice | None,
    notices: tuple[Notice, Notice],
) -> list[str]:
    found: list[str | None] = []
    if forgotten is not None and box is not None:
        what = f"a flow that {box.name} forgot"
        if within is not None:
            found.append(_too_late(what, forgotten, client, within, ran=box.idle_timeout))
        elif not box.eviction.at_once:
            state = "is not" if held == "no" else "may not be"
            found.append(f"the flow {state} held open behind {box.name}")
    silent, writing = notices
    if within is not None:
        found.append(_too_late("a silent peer", silent, client, within))
        found.append(_too_late("a write to a silent peer", writing, client, within))
    elif box is None and not silent.noticed:
        found.append(f"a silent peer is never noticed: {silent.why}")
    return [each for each in found if each]


def _check_within(within: object) -> None:
    if within is None:
        return
    if (
        isinstance(within, bool)
        or not isinstance(within, (int, float))
        or not math.isfinite(within)
        or within <= 0
    ):
        raise UsageError(
            f"within={within!r} is no bound",
            expected="seconds greater than 0",
            happened=f"got {within!r}",
            advice="give the longest time in which the client may notice, e.g. within=30",
        )


def advise(
    keepalive: Keepalive | str = "default",
    *,
    stack: Stack | str = "linux",
    behind: Middlebox | str | None = None,
    within: float | None = None,
) -> Advice:
    """Judge a client's settings without waiting for anything.

    :param keepalive: the client's settings; ``"default"`` for ``SO_KEEPALIVE`` with the
        numbers of its system, ``"off"`` for none.
    :param stack: the client's system, as a profile or its name.
    :param behind: the middlebox on its way, or a preset's name.
    :param within: seconds in which every silent break must be noticed. Without it, a
        client behind a middlebox is asked only whether its idle flow survives, and one
        without whether it ever notices a silent peer.
    :raises UsageError: for a name that is not known, settings that the stack has no socket
        option for, or a bound that is none.
    """
    client = client_of(keepalive, stack)
    box = middlebox_named(behind) if isinstance(behind, str) else behind
    _check_within(within)
    held: Held | None = None
    why, forgotten, forgotten_write = "", None, None
    if box is not None:
        held, why = held_open(client, box)
        if held != "yes":
            forgotten, forgotten_write = _forgotten(client, box), _forgotten_write(client, box)
    silent, writing = _silent(client), _writing(client)
    reasons = _against(client, box, within, held, forgotten, (silent, writing))
    return Advice(
        client=client,
        behind=box,
        within=within,
        held=held,
        held_why=why,
        forgotten=forgotten,
        forgotten_write=forgotten_write,
        silent=silent,
        writing=writing,
        ok=not reasons,
        reasons=tuple(reasons),
    )
