"""The middleboxes that people meet: a table, and nothing that computes.

Idle timeouts are the makers' defaults, in seconds. What a maker does not say about the
forgotten flow is marked as what it is: a third party's word, or general knowledge.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_tcpresilience.tcp.provenance import Source, document, knowledge, measured, source

# Configurable, with no bounds that would matter to an idle flow.
ANY = (1.0, 2_147_483.0)
_RANGE_UNVERIFIED = "the range that it can be set to was not verified"
_SILENT = knowledge("commonly silent")


@dataclass(frozen=True)
class Preset:
    """One row: :class:`~pytest_tcpresilience.tcp.middleboxes.Middlebox` and its key."""

    key: str
    name: str
    idle_timeout: float
    then: str
    source: Source
    eviction_source: Source
    adjustable: tuple[float, float] | None = None
    proxy: bool = False
    doubts: tuple[str, ...] = ()


_AWS_NLB = document(
    "https://docs.aws.amazon.com/elasticloadbalancing/latest/network/update-idle-timeout.html"
)
_TIMEOUTS_DEMYSTIFIED = document("https://cloudnetworking.pro/cloud-nat-timeouts-demystified")
_AZURE_RESET = document(
    "https://learn.microsoft.com/en-us/azure/load-balancer/load-balancer-tcp-reset"
)

CLOUDS = (
    Preset(
        "aws-nlb",
        "AWS NLB",
        350,
        "reset",
        _AWS_NLB,
        document("third parties; AWS says that the connection is closed"),
        adjustable=(60, 6000),
    ),
    Preset(
        "aws-nlb-tls",
        "AWS NLB, TLS listener",
        350,
        "reset",
        _AWS_NLB,
        knowledge("as for the TCP listener"),
        doubts=("a TLS listener ends TCP for the client: whether probes count was not verified",),
    ),
    Preset(
        "aws-nat-gateway",
        "AWS NAT gateway",
        350,
        "reset",
        _TIMEOUTS_DEMYSTIFIED,
        document("third parties: RST to the next packet from inside, no FIN"),
    ),
    Preset(
        "aws-network-firewall",
        "AWS Network Firewall",
        350,
        "drop",
        document(
            "https://docs.aws.amazon.com/network-firewall/latest/APIReference/API_FlowTimeouts.html"
        ),
        document("the same page: packets of an unknown flow are dropped"),
        adjustable=(60, 6000),
    ),
    Preset(
        "aws-security-group",
        "AWS security group",
        432_000,
        "drop",
        document(
            "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/"
            "API_ConnectionTrackingSpecificationRequest.html"
        ),
        knowledge("untracked, so dropped"),
        adjustable=(60, 432_000),
        doubts=("the newest instance types are said to have 350 s",),
    ),
    Preset(
        "aws-alb",
        "AWS ALB",
        60,
        "fin",
        knowledge(
            "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/"
            "edit-load-balancer-attributes.html, not read"
        ),
        knowledge("an HTTP proxy closes both sides"),
        adjustable=(1, 4000),
        proxy=True,
        doubts=(_RANGE_UNVERIFIED,),
    ),
    Preset(
        "azure-lb",
        "Azure Load Balancer",
        240,
        "drop",
        _AZURE_RESET,
        _AZURE_RESET,
        adjustable=(240, 6000),
        doubts=("the least is 4 minutes; the greatest, 100 minutes, was not verified",),
    ),
    Preset(
        "azure-lb-tcp-reset",
        "Azure Load Balancer with TCP reset",
        240,
        "reset_both",
        _AZURE_RESET,
        _AZURE_RESET,
        adjustable=(240, 6000),
        doubts=("the least is 4 minutes; the greatest, 100 minutes, was not verified",),
    ),
    Preset(
        "azure-nat-gateway",
        "Azure NAT gateway",
        240,
        "reset",
        document("MicrosoftDocs/azure-docs articles/nat-gateway/nat-gateway-resource.md"),
        document("the same page: RST to the sender of the next packet only"),
        adjustable=(240, 7200),
    ),
    Preset(
        "gcp-firewall",
        "GCP VPC firewall",
        600,
        "drop_inbound",
        document("https://cloud.google.com/compute/docs/troubleshooting"),
        document("the same page: dropped inbound until a packet goes out"),
    ),
    Preset(
        "gcp-cloud-nat",
        "GCP Cloud NAT",
        1200,
        "drop",
        document(
            "https://oneuptime.com/blog/post/2026-02-17-how-to-configure-cloud-nat-timeout-values-"
            "for-long-lived-tcp-connections-in-gcp/view"
        ),
        document("a third party: the mapping goes silently, no RST"),
        adjustable=ANY,
        doubts=(_RANGE_UNVERIFIED,),
    ),
    Preset(
        "cloudflare",
        "Cloudflare proxy",
        400,
        "fin",
        document("https://developers.cloudflare.com/fundamentals/reference/connection-limits/"),
        document("the same page: the proxy closes the connection"),
        proxy=True,
        doubts=("400 s is the client's side; towards the origin it is 900 s",),
    ),
)

CLUSTERS = (
    Preset(
        "docker-swarm",
        "Docker Swarm VIP",
        900,
        "drop",
        document("https://github.com/moby/moby/issues/31208"),
        document("https://github.com/moby/moby/issues/37466"),
        doubts=("RST where both ends are on the same host",),
    ),
    Preset(
        "kube-proxy-ipvs",
        "kube-proxy in IPVS mode",
        900,
        "drop",
        document("https://github.com/kubermatic/kubelb/issues/539; --ipvs-tcp-timeout"),
        document("https://github.com/cloudnativelabs/kube-router/issues/521"),
        adjustable=ANY,
        doubts=("the next packet may get RST instead, from another pod or the node",),
    ),
    Preset(
        "linux-conntrack",
        "Linux conntrack",
        432_000,
        "drop",
        measured("net.netfilter.nf_conntrack_tcp_timeout_established of 6.18"),
        knowledge("with a rule that drops what is invalid"),
        adjustable=ANY,
        doubts=(
            "a plain filter with tcp_loose = 1 takes the flow up again; behind NAT the next packet "
            "may reach a peer that answers with RST",
            "300 s only while data is unacknowledged",
        ),
    ),
)

APPLIANCES = (
    Preset(
        "cisco-asa",
        "Cisco ASA, FTD",
        3600,
        "drop",
        document(
            "https://docs.defenseorchestrator.com/cdfmc/t_configure_global_timeouts_fptd.html"
        ),
        document(
            "https://community.cisco.com/t5/network-security/what-the-function-configure-"
            "connection-timeout-on-asa/m-p/3034766: later packets are denied"
        ),
        adjustable=(300, 2_147_483),
        doubts=(
            "dead connection detection, where it is on, probes both ends first",
            _RANGE_UNVERIFIED,
        ),
    ),
    Preset(
        "palo-alto",
        "Palo Alto PAN-OS",
        3600,
        "drop",
        knowledge(
            "https://docs.paloaltonetworks.com/pan-os/10-1/pan-os-networking-admin/"
            "session-settings-and-timeouts/configure-session-timeouts"
        ),
        knowledge("later segments that are no SYN are dropped"),
        adjustable=ANY,
        doubts=("applications have timeouts of their own", _RANGE_UNVERIFIED),
    ),
    Preset(
        "fortigate",
        "FortiGate",
        3600,
        "drop",
        document(
            "https://community.fortinet.com/t5/FortiGate/Technical-Tip-Default-session-timeout-"
            "value-session-ttl/ta-p/194357"
        ),
        knowledge("silent; RST only with timeout-send-rst"),
        adjustable=(300, 2_764_800),
    ),
    Preset(
        "juniper-srx",
        "Juniper SRX",
        1800,
        "drop",
        document(
            "https://www.juniper.net/documentation/en_US/junos12.2/topics/concept/"
            "policy-application-timeout-configuration-lookup-understanding.html"
        ),
        knowledge("silent unless it is configured otherwise"),
        adjustable=ANY,
        doubts=(_RANGE_UNVERIFIED,),
    ),
    Preset(
        "rfc5382-nat",
        "NAT by RFC 5382",
        7440,
        "drop",
        knowledge("RFC 5382, REQ-5, not read: at least 2 hours 4 minutes"),
        _SILENT,
        doubts=("home routers often forget sooner, and none is obliged to say what comes then",),
    ),
)

PROXIES = (
    Preset(
        "haproxy",
        "HAProxy",
        50,
        "fin",
        document("the configuration file that Debian ships: timeout client, timeout server"),
        document("https://docs.haproxy.org/2.6/configuration.html: both sides are closed"),
        adjustable=ANY,
        proxy=True,
        doubts=(
            "without a configured timeout it never forgets, and warns when it starts",
            "timeout tunnel takes over for WebSockets and CONNECT",
        ),
    ),
    Preset(
        "nginx-stream",
        "nginx, stream proxy",
        600,
        "fin",
        source("proxy_timeout in a module derived from ngx_stream_proxy_module"),
        knowledge("both sides are closed"),
        adjustable=ANY,
        proxy=True,
    ),
    Preset(
        "nginx-http",
        "nginx, HTTP proxy",
        75,
        "fin",
        knowledge("keepalive_timeout"),
        knowledge("closed; a request that waits 60 s (proxy_read_timeout) gets 504"),
        adjustable=ANY,
        proxy=True,
    ),
    Preset(
        "envoy",
        "Envoy",
        3600,
        "fin",
        document("https://www.envoyproxy.io/docs/envoy/latest/faq/configuration/timeouts"),
        document("the same page: the connection is closed"),
        adjustable=ANY,
        proxy=True,
    ),
    Preset(
        "pgbouncer",
        "PgBouncer",
        600,
        "fin",
        document("https://www.pgbouncer.org/config.html: server_idle_timeout"),
        document("the manual page: the connection is closed"),
        adjustable=ANY,
        proxy=True,
        doubts=(
            "600 s is the server's side; client_idle_timeout is off, so an idle client is kept",
        ),
    ),
)

PRESETS: tuple[Preset, ...] = CLOUDS + CLUSTERS + APPLIANCES + PROXIES
