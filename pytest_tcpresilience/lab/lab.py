"""A client, a router with a firewall, and a server: real kernels' TCP over real links.

Owns :class:`Lab`, which a test holds, and what can befall the network between its hosts. The
namespaces are the keeper's; what it is told is :mod:`.plan`'s.
"""

from __future__ import annotations

import math
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytest_tcpresilience.errors import HarnessError, UsageError
from pytest_tcpresilience.lab import forger, plan
from pytest_tcpresilience.lab.capture import Capture
from pytest_tcpresilience.lab.channel import Channel, program, unavailable
from pytest_tcpresilience.lab.host import Host, Router
from pytest_tcpresilience.lab.segment import ACK, FIN, RST
from pytest_tcpresilience.tcp.middleboxes import EVICTIONS, Middlebox

# include/uapi/linux/netfilter/nfnetlink_conntrack.h: delete, with no tuple, means all.
_NETLINK_NETFILTER = 12
_CTNETLINK_DELETE = 1 << 8 | 2
_NLM_F_REQUEST_ACK = 1 | 4
_COMMAND_S = 5.0


def _choice(name: str, value: str, choices: Any) -> str:
    if value not in choices:
        known = ", ".join(f'"{choice}"' for choice in choices)
        raise UsageError(
            f"{name}={value!r} is none of the choices",
            expected=f"{name}= one of {known}",
            happened=f"got {value!r}",
            advice="pass one of them, as a string",
        )
    return value


class Trouble:
    """Something that is wrong with the lab's network until it is lifted.

    As a context manager it is lifted at the end of the block.
    """

    def __init__(self, what: str, undo: Callable[[], None]) -> None:
        self._what = what
        self._undo: Callable[[], None] | None = undo
        self.since = time.monotonic()

    def lift(self) -> None:
        """Repair it. Twice is once."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def __enter__(self) -> Trouble:
        return self

    def __exit__(self, *exc: object) -> None:
        self.lift()

    def __repr__(self) -> str:
        return f"<{self._what}{'' if self._undo else ', lifted'}>"


def _present(values: Mapping[str, str]) -> dict[str, str]:
    """Without those that a kernel may lack; one without IPv6 needs none of it off."""
    return {
        name: value
        for name, value in values.items()
        if "/ipv6/" not in name or Path("/proc/sys/net/ipv6").exists()
    }


class Lab:
    """A network of its own: ``client`` -- ``router`` -- ``server``.

    Made by the fixture ``tcp_lab``, or as a context manager for more than one. It is gone
    with the process that made it, however that ends; sockets of the lab that are still open
    then hold nothing but themselves.

    :param own_user: use a user namespace also where root could do without one.
    :raises FaultUnavailable: where the machine does not allow it, with the reason.
    """

    def __init__(self, *, own_user: bool = False) -> None:
        self._ip = program("ip", "iproute2")
        self._ss = program("ss", "iproute2")
        self._nft = program("nft", "nftables")
        self._losses: list[plan.Loss] = []
        self._then: str | None = None
        self.names = {address: host for host, address in plan.ADDRESSES.items()}
        self.names |= dict.fromkeys(plan.GATEWAYS.values(), "router")
        self.processes: list[subprocess.Popen[Any]] = []
        self.captures: list[Capture] = []
        self.channel = Channel(own_user)
        self.client = Host(self, "client")
        self.router = Router(self, "router")
        self.server = Host(self, "server")
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        """All of it, or the reason why this machine cannot."""
        try:
            self._set_up()
        except OSError as error:
            advice = "a container needs a writable /proc/sys, and the kernel nf_conntrack"
            raise unavailable(f"sysctl: {error.strerror}", advice) from error
        except HarnessError as error:
            reason = plan.refusal(error.happened)
            if reason is None:
                raise
            raise unavailable(reason, error.advice) from error

    def _set_up(self) -> None:
        for host, values in plan.SYSCTLS.items():
            self.channel.sysctls(host, _present(values))
        paths = {host: self._network_path(host) for host in plan.END_HOSTS}
        self._ip_batch("router", plan.router_links(paths))
        self.channel.run(
            *(self._program(host, plan.host_links(host)) for host in plan.END_HOSTS),
            ("router", [self._nft, "-f", "-"], plan.ruleset((), None)),
        )
        self.channel.sysctls("router", plan.CONNTRACK)
        for cable in plan.CABLES.values():
            self.router.wait_until_running(cable)

    def _network_path(self, host: str) -> str:
        hello = self.channel.hello
        return f"/proc/{hello['pid']}/fd/{hello['namespaces'][host]}"

    def _program(self, host: str, batch: str) -> tuple[str, list[str], str]:
        return host, [self._ip, "-batch", "-"], batch

    def _ip_batch(self, host: str, batch: str) -> None:
        self.channel.run(self._program(host, batch))

    def end_host(self, name: str) -> str:
        return _choice("host", name, plan.END_HOSTS)

    @property
    def in_user_namespace(self) -> bool:
        """Whether it was made without root, or as if so."""
        return bool(self.channel.hello["own_user"])

    # --- the cables ----------------------------------------------------------------------

    def pull_cable(self, host: str = "server") -> Trouble:
        """Pull a host's cable out: it has no carrier, and nothing arrives from it.

        The other host sees silence, and no ICMP. Lifted, the cable is in again.

        :param host: whose, ``"client"`` or ``"server"``.
        """
        self._set_cables((self.end_host(host),), "down")
        return Trouble(f"the {host}'s cable is out", lambda: self._plug_in((host,)))

    def _plug_in(self, hosts: tuple[str, ...]) -> None:
        self._set_cables(hosts, "up")
        for host in hosts:
            self.router.wait_until_running(plan.CABLES[host])
            self._host(host).wait_until_running()

    def _host(self, name: str) -> Host:
        return self.client if name == "client" else self.server

    def _set_cables(self, hosts: tuple[str, ...], state: str) -> None:
        self._ip_batch("router", plan.cables(hosts, state))

    def reboot_router(self, down: float) -> None:
        """See :meth:`Router.reboot`."""
        if isinstance(down, bool) or not (math.isfinite(down) and down >= 0):
            raise UsageError(
                f"down={down!r} is no time",
                expected="seconds, at least 0",
                happened=f"got {down!r}",
                advice="say for how long the router is off",
            )
        self._set_cables(plan.END_HOSTS, "down")
        self._forget_flows()
        time.sleep(down)
        self._plug_in(plan.END_HOSTS)

    def crash(self, host: str) -> None:
        """A host loses its power: no FIN, no RST, and all of its connections are lost.

        It comes back at once, with the same address and nothing remembered. Its commands
        are ended. Sockets of it that this process holds are of no network any more.

        :param host: ``"client"`` or ``"server"``.
        """
        self.end_host(host)
        self._ip_batch("router", f"link del {plan.CABLES[host]}\n")
        self.channel.hello = self.channel.order("renew", host=host)
        self.channel.sysctls(host, _present(plan.SYSCTLS[host]))
        self._ip_batch("router", "\n".join(plan.cable(host, self._network_path(host))) + "\n")
        self._ip_batch(host, plan.host_links(host))
        self.router.wait_until_running(plan.CABLES[host])

    # --- the router ----------------------------------------------------------------------

    def silence(self, direction: str = "both") -> Trouble:
        """The router drops every segment, and says nothing.

        :param direction: which way is lost: ``"both"``, ``"to_server"`` or ``"to_client"``.
        """
        toward = _choice("direction", direction, plan.DIRECTIONS)
        return self._lose(plan.Loss(toward), f"silence {direction}")

    def lose_close(self) -> Trouble:
        """The router drops what closes a connection: every FIN and RST of either host."""
        loss = plan.Loss("both", only="tcp flags & (fin | rst) != 0")
        return self._lose(loss, "FIN and RST are lost")

    def unreachable(self, kind: str = "host", direction: str = "to_server") -> Trouble:
        """The router answers segments with ICMP "destination unreachable".

        :param kind: ``"net"``, ``"host"``, ``"port"`` or ``"prohibited"``.
        :param direction: of the segments, as for :meth:`silence`.
        """
        toward = _choice("direction", direction, plan.DIRECTIONS)
        code = _choice("kind", kind, plan.UNREACHABLE)
        return self._lose(plan.Loss(toward, icmp=code), f"{kind} unreachable")

    def _lose(self, loss: plan.Loss, what: str) -> Trouble:
        self._losses.append(loss)
        self._load_rules()

        def undo() -> None:
            self._losses.remove(loss)
            self._load_rules()

        return Trouble(what, undo)

    def _load_rules(self) -> None:
        text = plan.ruleset(self._losses, self._then)
        self.channel.run(("router", [self._nft, "-f", "-"], text))

    # --- the firewall --------------------------------------------------------------------

    def put_behind(self, middlebox: Middlebox) -> None:
        """Make the router a firewall that forgets idle flows, by the kernel's own tracking.

        :param middlebox: its idle timeout must be whole seconds, and ``then`` one of
            ``"reset"``, ``"drop"`` and ``"drop_inbound"``: connection tracking tells nobody
            when it forgets.
        :raises UsageError: for another.
        """
        whole = float(middlebox.idle_timeout).is_integer()
        if EVICTIONS[middlebox.then].at_once or not whole:
            raise UsageError(
                f"a lab's firewall cannot be {middlebox}",
                expected='whole seconds, and then= "reset", "drop" or "drop_inbound"',
                happened="the kernel's connection tracking counts in seconds, and tells nobody "
                "when it forgets",
                advice='use lab.evict(then="reset_both") at the moment when it is to happen',
            )
        self._then = middlebox.then
        self._load_rules()
        self.channel.sysctls("router", {plan.IDLE_TIMEOUT: str(int(middlebox.idle_timeout))})

    def evict(self, then: str = "reset") -> None:
        """The router forgets every flow, now. New connections pass.

        :param then: as for ``link.evict``: ``"reset"``, ``"drop"``, ``"drop_inbound"``,
            ``"reset_both"`` or ``"fin"``.
        :raises UsageError: for another.
        """
        self._then = _choice("then", then, EVICTIONS)
        if not EVICTIONS[then].at_once:
            self._load_rules()
            self._forget_flows()
            return
        listed = self.channel.run(("client", [self._ss, "-tnH", "state", "established"], ""))
        wanted = forger.flows(listed[0])
        with self.silence():
            answers = forger.where_they_stand(self, wanted)
        self._forget_flows()
        forger.tell(self, answers, RST if then == "reset_both" else FIN | ACK)

    @property
    def flows(self) -> int:
        """How many flows the router remembers, those of a close among them."""
        return int(self.channel.sysctls("router", {plan.FLOWS: None})[plan.FLOWS])

    def _forget_flows(self) -> None:
        header = struct.pack("=IHHII", 20, _CTNETLINK_DELETE, _NLM_F_REQUEST_ACK, 1, 0)
        request = header + struct.pack("!BBH", socket.AF_UNSPEC, 0, 0)
        answer = bytes.fromhex(
            self.channel.order(
                "netlink", host="router", protocol=_NETLINK_NETFILTER, request=request.hex()
            )
        )
        code = -struct.unpack_from("=i", answer, 16)[0]
        if code:
            raise HarnessError(
                "the router could not forget its flows",
                expected="ctnetlink to empty the table",
                happened=f"errno {code}",
                advice="the kernel needs nf_conntrack_netlink",
            )

    # --- life ----------------------------------------------------------------------------

    def close(self) -> None:
        """End it: its commands, its captures, its namespaces. Twice is once."""
        for capture in self.captures:
            capture.stop()
        self.channel.close()
        for process in self.processes:
            # The lab's end has ended the command, and this stands for it.
            try:
                process.wait(_COMMAND_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        where = "in a user namespace" if self.in_user_namespace else "as root"
        return f"<Lab of process {self.channel.process_id}, {where}>"
