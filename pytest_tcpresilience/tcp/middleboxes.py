"""Middleboxes that forget: firewalls, NATs and load balancers, as data.

Owns what is known of a box that carries flows: for how long it remembers one that is
idle, what it does to a flow that it has forgotten, who hears of it, and how sure all of
that is. It carries nothing out: on a link the engine does. The boxes that people meet are
in :mod:`.presets`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.tcp.presets import PRESETS, Preset
from pytest_tcpresilience.tcp.provenance import Source, unknown_name

# What becomes of a flow that was forgotten; each is a mode of ``link.evict``.
EVICTION_MODES = ("reset", "drop", "drop_inbound", "reset_both", "fin")


@dataclass(frozen=True)
class Eviction:
    """What a mode of eviction means to the two ends.

    :param at_once: whether the ends hear of it when the flow is forgotten; else it takes a
        segment.
    :param hears: who is told, in words.
    :param next_segment: what becomes of the next segment of the flow.
    """

    at_once: bool
    hears: str
    next_segment: str


EVICTIONS: dict[str, Eviction] = {
    "reset": Eviction(False, "whoever sends next", "answered with RST"),
    "drop": Eviction(False, "nobody", "dropped, in either direction"),
    "drop_inbound": Eviction(
        False, "nobody", "passes if it goes out, and opens the flow again; dropped if it comes in"
    ),
    "reset_both": Eviction(True, "both ends", "answered with RST"),
    "fin": Eviction(True, "both ends", "answered with RST, the connection being closed"),
}


def _is_time(number: object) -> bool:
    return (
        not isinstance(number, bool)
        and isinstance(number, (int, float))
        and math.isfinite(number)
        and number >= 0.001
    )


@dataclass(frozen=True)
class Middlebox:
    """A box that forgets a flow which has carried no segment for ``idle_timeout``.

    Keepalive probes and their answers are segments: they keep a flow alive, but for a
    proxy. Boxes that people meet are attributes, ``Middlebox.AWS_NLB`` and others;
    :func:`middlebox_named` finds them by name.

    :param idle_timeout: seconds, at least 0.001.
    :param then: what becomes of a forgotten flow, one of :data:`EVICTION_MODES`, as for
        ``link.evict``.
    :param name: how reports call it.
    :param adjustable: the least and the greatest idle timeout in seconds that its owner
        can set; None where it is fixed or not known.
    :param proxy: whether it ends TCP on both sides. Then its own kernel answers keepalive
        probes, and only the application's bytes count as traffic.
    :param source: where the idle timeout is from.
    :param eviction_source: where ``then`` is from.
    :param doubts: what is not sure, or differs between models of the box.
    :raises UsageError: for a timeout that is no time, another ``then``, or a range that
        the timeout is outside of.
    """

    idle_timeout: float
    then: str = "drop"
    name: str = "middlebox"
    adjustable: tuple[float, float] | None = None
    proxy: bool = False
    source: Source | None = None
    eviction_source: Source | None = None
    doubts: tuple[str, ...] = ()

    # Those that people meet; :mod:`.presets` has the numbers.
    AWS_NLB: ClassVar[Middlebox]
    AWS_NLB_TLS: ClassVar[Middlebox]
    AWS_NAT_GATEWAY: ClassVar[Middlebox]
    AWS_NETWORK_FIREWALL: ClassVar[Middlebox]
    AWS_SECURITY_GROUP: ClassVar[Middlebox]
    AWS_ALB: ClassVar[Middlebox]
    AZURE_LB: ClassVar[Middlebox]
    AZURE_LB_TCP_RESET: ClassVar[Middlebox]
    AZURE_NAT_GATEWAY: ClassVar[Middlebox]
    GCP_FIREWALL: ClassVar[Middlebox]
    GCP_CLOUD_NAT: ClassVar[Middlebox]
    CLOUDFLARE: ClassVar[Middlebox]
    DOCKER_SWARM: ClassVar[Middlebox]
    KUBE_PROXY_IPVS: ClassVar[Middlebox]
    LINUX_CONNTRACK: ClassVar[Middlebox]
    CISCO_ASA: ClassVar[Middlebox]
    PALO_ALTO: ClassVar[Middlebox]
    FORTIGATE: ClassVar[Middlebox]
    JUNIPER_SRX: ClassVar[Middlebox]
    HAPROXY: ClassVar[Middlebox]
    NGINX_STREAM: ClassVar[Middlebox]
    NGINX_HTTP: ClassVar[Middlebox]
    ENVOY: ClassVar[Middlebox]
    PGBOUNCER: ClassVar[Middlebox]
    RFC5382_NAT: ClassVar[Middlebox]

    def __post_init__(self) -> None:
        if not _is_time(self.idle_timeout):
            raise UsageError(
                f"Middlebox: idle_timeout={self.idle_timeout!r} is no time",
                expected="idle_timeout in seconds, at least 0.001",
                happened=f"got {self.idle_timeout!r}",
                advice="give the seconds after which the box forgets an idle flow",
            )
        if self.then not in EVICTION_MODES:
            known = ", ".join(f'"{mode}"' for mode in EVICTION_MODES)
            raise UsageError(
                f"Middlebox: then={self.then!r} is none of the choices",
                expected=f"then= one of {known}",
                happened=f"got {self.then!r}",
                advice="pass one of them, as a string",
            )
        if self.adjustable is not None:
            self._check_range(self.adjustable)

    def _check_range(self, adjustable: tuple[float, float]) -> None:
        low, high = adjustable
        if not (_is_time(low) and _is_time(high) and low <= self.idle_timeout <= high):
            raise UsageError(
                f"Middlebox: idle_timeout={self.idle_timeout:g} is not in adjustable={adjustable}",
                expected="adjustable=(least, greatest) in seconds, with the timeout inside",
                happened=f"got {adjustable!r}",
                advice="choose a timeout that the box can be set to, or leave adjustable out",
            )

    @property
    def eviction(self) -> Eviction:
        """What ``then`` means to the two ends."""
        return EVICTIONS[self.then]

    def scaled(self, seconds: float) -> Middlebox:
        """The same box with a shorter memory, for a test that cannot wait for hours.

        :param seconds: its idle timeout in place of the real one. The name says so, and
            there is no adjustable range any more.
        :raises UsageError: for what is no time.
        """
        if not _is_time(seconds):
            raise UsageError(
                f"Middlebox.scaled: seconds={seconds!r} is no time",
                expected="the idle timeout of the scaled box in seconds, at least 0.001",
                happened=f"got {seconds!r}",
                advice=f"for example {self.name}.scaled(1.0)",
            )
        name = f"{self.name}, scaled from {self.idle_timeout:g} s"
        return replace(self, idle_timeout=float(seconds), name=name, adjustable=None)

    def with_idle_timeout(self, seconds: float) -> Middlebox:
        """The box as its owner may have set it.

        :raises UsageError: for a time that it cannot be set to.
        """
        if self.adjustable is None:
            raise UsageError(
                f"{self.name}: the idle timeout cannot be set",
                expected=f"{self.idle_timeout:g} s, or a box whose owner can choose",
                happened=f"asked for {seconds!r} s",
                advice="use scaled() for a test's shorter times",
            )
        return replace(self, idle_timeout=seconds)

    def __str__(self) -> str:
        return f"{self.name} (forgets after {self.idle_timeout:g} s, then {self.then})"


def _build(preset: Preset) -> Middlebox:
    return Middlebox(
        preset.idle_timeout,
        preset.then,
        preset.name,
        adjustable=preset.adjustable,
        proxy=preset.proxy,
        source=preset.source,
        eviction_source=preset.eviction_source,
        doubts=preset.doubts,
    )


MIDDLEBOXES: dict[str, Middlebox] = {preset.key: _build(preset) for preset in PRESETS}
for _key, _box in MIDDLEBOXES.items():
    setattr(Middlebox, _key.upper().replace("-", "_"), _box)


def middlebox_named(name: str) -> Middlebox:
    """The preset of that name: ``"aws-nlb"``, ``"cisco-asa"``, ...

    :raises UsageError: for another name, with the nearest that there is.
    """
    key = name.lower().replace("_", "-") if isinstance(name, str) else None
    if key not in MIDDLEBOXES:
        raise unknown_name("middlebox", name, MIDDLEBOXES)
    return MIDDLEBOXES[key]
