"""The session's engine: found, started when it is first wanted, replaced when it died.

Owns which engine a link gets, and the names of links.
"""

from __future__ import annotations

import shutil
from typing import Any

from pytest_tcpresilience.control.carrier import Carrier
from pytest_tcpresilience.control.chain import Chain
from pytest_tcpresilience.control.engine import CannotFollow, Engine, Invitation
from pytest_tcpresilience.control.toxiproxy import ToxiproxyServer
from pytest_tcpresilience.engine_choice import TOXIPROXY, EngineChoice
from pytest_tcpresilience.errors import FaultUnavailable, HarnessError


class EngineOwner:
    """The session's engine: started by the first link, replaced when it died.

    :param choice: which one, and how the machines reach each other.
    :param shared: of the run, to which this process is a worker.
    """

    def __init__(
        self, choice: EngineChoice | None = None, shared: Invitation | None = None
    ) -> None:
        self._choice = choice or EngineChoice()
        self._shared = shared
        self._carrier: Carrier | None = None
        self._links = 0

    def engine(self, timeout_s: float) -> Carrier:
        """The engine, alive.

        :raises HarnessError: when it cannot be started.
        """
        if self._carrier is not None and not self._carrier.alive:
            self.stop()
        if self._carrier is None:
            self._carrier = self._start(timeout_s)
        return self._carrier

    def _start(self, timeout_s: float) -> Carrier:
        hop = self._start_hop(timeout_s)
        if self._choice.url is None and self._choice.engine != TOXIPROXY:
            return hop
        try:
            url = self._choice.url or self._start_toxiproxy(hop)
            return Chain(hop, ToxiproxyServer(url, self._choice, timeout_s))
        except BaseException:
            hop.stop()
            raise

    def _start_hop(self, timeout_s: float) -> Engine:
        try:
            return Engine(timeout_s, shared=self._shared)
        except CannotFollow:  # in a sandbox; an engine of its own will do
            self._shared = None
            return Engine(timeout_s)

    def _start_toxiproxy(self, hop: Engine) -> str:
        wanted = self._choice.toxiproxy
        program = shutil.which(wanted)
        if program is None:
            raise HarnessError(
                "there is no Toxiproxy server to start",
                expected=f"a program {wanted}",
                happened="it is not there, or not executable",
                advice="put toxiproxy-server on PATH, name it with --resilience-toxiproxy=PATH, "
                "or use the embedded engine",
            )
        try:
            answer: dict[str, Any] = hop.call("POST", "/resilience/toxiproxy", {"program": program})
        except FaultUnavailable as error:
            raise HarnessError(
                "the Toxiproxy server did not start",
                expected=f"{program} to listen on a free port of 127.0.0.1",
                happened=error.happened,
                advice="run it by hand and see what it says",
            ) from error
        return f"http://127.0.0.1:{answer['port']}"

    def next_name(self) -> str:
        """A name for a link that no other link of this session has.

        On a real server it is one that no other proxy there has.
        """
        self._links += 1
        name = f"link-{self._links}"
        return self._carrier.server.name(name) if isinstance(self._carrier, Chain) else name

    @property
    def started(self) -> Carrier | None:
        return self._carrier

    def stop(self) -> None:
        if self._carrier is not None:
            self._carrier.stop()
            self._carrier = None
