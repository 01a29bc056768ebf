"""What the lab's hosts are told: pure functions from what should be to the programs' input.

Owns the addresses, the links and the firewall's rules. It starts nothing.

    client 10.99.1.2 ---- 10.99.1.1 router 10.99.2.1 ---- 10.99.2.2 server

IPv4 only: what is shown here is the kernel's TCP, which is the same above both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ADDRESSES = {"client": "10.99.1.2", "server": "10.99.2.2"}
GATEWAYS = {"client": "10.99.1.1", "server": "10.99.2.1"}
# The router's ends of the two cables.
CABLES = {"client": "rc", "server": "rs"}
END_HOSTS = ("client", "server")

# Which of the router's interfaces a lost segment comes in by.
DIRECTIONS = {"to_server": ("client",), "to_client": ("server",), "both": END_HOSTS}

# What becomes of a segment of a flow that the firewall has forgotten, by mode.
FORGOTTEN = {
    "reset": ("meta l4proto tcp ct state invalid reject with tcp reset",),
    "drop": ("ct state invalid drop",),
    "drop_inbound": (f'iifname "{CABLES["server"]}" ct state invalid drop',),
    # Both ends have been told, and what they still send is answered like a stranger's.
    "reset_both": ("meta l4proto tcp ct state invalid reject with tcp reset",),
    "fin": ("ct state invalid drop",),
}
# nft's names for codes of ICMP's "destination unreachable".
UNREACHABLE = {
    "net": "net-unreachable",
    "host": "host-unreachable",
    "port": "port-unreachable",
    "prohibited": "admin-prohibited",
}

# What ip and nft say of a kernel, or of a policy, that does not let them; any other complaint
# is about what they were told.
_REFUSALS = (
    "Operation not permitted",
    "Operation not supported",
    "Protocol not supported",
    "Permission denied",
    "Unknown device type",
    "Unable to initialize Netlink socket",
)

SYSCTLS = {
    "client": {"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1"},
    "server": {"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1"},
    "router": {
        "net/ipv6/conf/all/disable_ipv6": "1",
        "net/ipv6/conf/default/disable_ipv6": "1",
        "net/ipv4/ip_forward": "1",
        # One error for each segment, and not one in a second.
        "net/ipv4/icmp_ratelimit": "0",
    },
}
# A firewall that forgets must not take up a flow in its middle. The table exists once nft
# has asked for connection tracking.
CONNTRACK = {"net/netfilter/nf_conntrack_tcp_loose": "0"}
IDLE_TIMEOUT = "net/netfilter/nf_conntrack_tcp_timeout_established"
FLOWS = "net/netfilter/nf_conntrack_count"
# Linux's own default, five days.
NEVER_S = 432000


def refusal(said: str) -> str | None:
    """The line in which a program says that this machine does not allow what it was told."""
    for line in said.splitlines():
        if any(words in line for words in _REFUSALS):
            return line.strip()
    return None


def router_links(network: dict[str, str]) -> str:
    """``ip -batch`` for the router: both cables, with their far ends plugged in.

    :param network: a path to the network namespace of each end host.
    """
    lines = ["link set lo up"]
    for host in END_HOSTS:
        lines += cable(host, network[host])
        # Behind a cable that is out there is silence, and no ICMP of the router's: the wire
        # of a host leads to a switch as a rule. A route of the cable's own goes first.
        lines.append(f"route add blackhole {_net(host)} metric 4096")
    return _batch(lines)


def cable(host: str, network: str) -> list[str]:
    name = CABLES[host]
    return [
        f"link add {name} type veth peer name eth0 netns {network}",
        f"addr add {GATEWAYS[host]}/24 dev {name}",
        f"link set {name} up",
    ]


def host_links(host: str) -> str:
    """``ip -batch`` for an end host, whose ``eth0`` is there already."""
    return _batch(
        [
            "link set lo up",
            f"addr add {ADDRESSES[host]}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {GATEWAYS[host]}",
        ]
    )


def cables(hosts: Iterable[str], state: str) -> str:
    """``ip -batch`` for the router: cables out (``down``) or in (``up``)."""
    return _batch(f"link set {CABLES[host]} {state}" for host in hosts)


def _net(host: str) -> str:
    return GATEWAYS[host].rpartition(".")[0] + ".0/24"


def _batch(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True)
class Loss:
    """Segments that are lost at the router.

    :param toward: ``to_server``, ``to_client`` or ``both``.
    :param icmp: a key of :data:`UNREACHABLE` for a router that says so; empty for silence.
    :param only: an nft match that narrows it, such as ``tcp flags fin``.
    """

    toward: str
    icmp: str = ""
    only: str = ""

    def rules(self) -> list[str]:
        verdict = f"reject with icmp type {UNREACHABLE[self.icmp]}" if self.icmp else "drop"
        return [
            " ".join(f'iifname "{CABLES[host]}" meta l4proto tcp {self.only} {verdict}'.split())
            for host in DIRECTIONS[self.toward]
        ]


def ruleset(losses: Iterable[Loss], then: str | None) -> str:
    """The whole firewall, for ``nft -f``, which puts it in place of the old one at once.

    :param then: what becomes of a flow that was forgotten; None for a router that forwards
        whatever comes.
    """
    rules = [rule for loss in losses for rule in loss.rules()]
    rules += FORGOTTEN[then] if then else ()
    # A rule about states makes the kernel track flows, from the first one on.
    rules.append("ct state established,related,new accept")
    body = "\n".join(f"    {rule}" for rule in rules)
    return f"""table inet lab
delete table inet lab
table inet lab {{
  chain passing {{
    type filter hook forward priority 0; policy accept;
{body}
  }}
}}
"""
