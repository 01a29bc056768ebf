"""Raw HTTP to an engine: what is sent and what comes back, byte for byte."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_tcpresilience.control import Carrier, Engine
from pytest_tcpresilience.control.chain import Chain
from tests.contract.peers import WAIT_S


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "")

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """What a refusal says; its form is checked on the way."""
        assert self.body.endswith(b"}\n")
        assert self.content_type.startswith("text/plain")
        assert list(self.document) == ["error", "status"]
        assert self.document["status"] == self.status
        return str(self.document["error"])


class RawHttp:
    """Calls an engine on a new connection each time."""

    def __init__(self, engine: Carrier) -> None:
        if isinstance(engine, Chain):
            self.port, self.secret = engine.server.port, ""
        else:
            assert isinstance(engine, Engine)
            self.port = engine.port
            self.secret = engine._secret  # the one thing that a stranger must not know

    def __call__(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        data: bytes = b"",
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """One request.

        :param body: sent as JSON. :param data: sent as it is.
        :param headers: on top of ``Host`` and the secret; ``None`` leaves one out.
        """
        payload = data if body is None else json.dumps(body).encode()
        sent: dict[str, str | None] = {
            "Host": f"127.0.0.1:{self.port}",
            "Authorization": f"Bearer {self.secret}",
            "Content-Length": str(len(payload)) if payload else None,
            **(headers or {}),
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(payload or None)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()
