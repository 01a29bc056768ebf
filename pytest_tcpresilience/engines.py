"""What each engine can honestly produce, as data.

Owns the differences between the embedded engine and a real Toxiproxy behind a hop of ours.
``docs/engines.md`` is written from it, and the contract tests expect each difference where
they meet it: one that is gone fails them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same.

    :param embedded: what the embedded engine does.
    :param toxiproxy: what happens with a real Toxiproxy.
    """

    embedded: str
    toxiproxy: str


DIFFERENCES: dict[str, Difference] = {
    "server_is_spared": Difference(
        "a fault below the byte stream acts on the server, too: silence, RST, forgetting",
        "it acts on the client and on Toxiproxy. The server is connected to Toxiproxy's kernel, "
        "which goes on answering; it learns of what ends Toxiproxy's own connection, as FIN",
    ),
    "reset_becomes_fin": Difference(
        "an RST of one side reaches the other one as RST",
        "Toxiproxy ends the other side with FIN",
    ),
    "half_close_ends_all": Difference(
        "a half-close stays half-closed, and the reply arrives",
        "Toxiproxy closes both directions, and what was under way is lost",
    ),
    "refusal_becomes_fin": Difference(
        "a client of an upstream that cannot be reached is reset, with an event that says why",
        "Toxiproxy accepts, cannot dial, and closes with FIN or RST; only its log says why",
    ),
    "reset_peer_waits": Difference(
        "`reset_peer` resets an idle connection when its time has come",
        "it waits for input, and sends FIN to a connection that was established before; "
        "removing it meanwhile may hang its API",
    ),
    "toxicity_is_drawn_again": Difference(
        "a toxic with a toxicity of 0 does nothing, also when it is removed",
        "removing `timeout` closes connections on which it did not act",
    ),
    "latency_is_not_updated": Difference(
        "a new `latency` holds for data that waits already, and several add up from the moment "
        "at which the data came",
        "data that waits keeps what was drawn for it, or is let go by an update; a `bandwidth` "
        "before it takes its own time first",
    ),
    "limit_data_closes_one_way": Difference(
        "`limit_data` closes the connection, and the event says that it did",
        "our hop sees a FIN from upstream; the event says that the connection ended",
    ),
    "toxics_lose_data": Difference(
        "toxics that come and go in the middle of a stream lose nothing",
        "together with a half-close they do",
    ),
    "not_on_one_connection": Difference(
        "stream toxics may act on one connection of a link",
        "they act on all: `FaultUnavailable`",
    ),
}

# The differences that a stream toxic meets; what is not named here is the same.
MET_BY_TOXIC: dict[str, tuple[str, ...]] = {
    "latency": ("latency_is_not_updated",),
    "timeout": ("toxicity_is_drawn_again",),
    "reset_peer": ("reset_peer_waits",),
    "limit_data": ("limit_data_closes_one_way",),
}
# These hold back what crosses, and whoever connects; what the server's kernel sees is no part
# of them.
ALIKE = frozenset(("stall", "time_out", "stop_reading", "refuse_connections", "ignore_connections"))


def met_by_fault(name: str) -> tuple[str, ...]:
    """The differences that a fault below the byte stream meets."""
    return () if name in ALIKE else ("server_is_spared",)
