"""HTTP to a server that speaks Toxiproxy's API.

Owns one request and what its answer means, in the three families of errors. Whose fault
it is when there is no answer, the caller must find out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_tcpresilience.errors import FaultUnavailable, HarnessError, UsageError

if TYPE_CHECKING:
    import urllib3


# Connections that are kept for the next call. Each block under watch has one that waits, and
# a matrix has many blocks.
MOST_KEPT = 256


class Unreachable(Exception):
    """No answer: nobody listens there any more, or the connection broke."""


class Calls:
    """Calls one server.

    :param who: how messages call it: "the engine", "Toxiproxy at …".
    :param timeout_s: for each call.
    """

    def __init__(
        self, who: str, host: str, port: int, headers: Mapping[str, str], timeout_s: float
    ) -> None:
        import urllib3

        self._who = who
        self._timeout_s = timeout_s
        self._pool: urllib3.HTTPConnectionPool = urllib3.HTTPConnectionPool(
            host, port, maxsize=MOST_KEPT, retries=False, headers=dict(headers)
        )

    def close(self) -> None:
        self._pool.close()

    def request(
        self, method: str, path: str, body: object = None, *, patience_s: float = 0.0
    ) -> tuple[int, bytes]:
        """One request; status and body of its answer.

        :param patience_s: how much longer than usual it may take.
        :raises Unreachable: when there is nobody to answer.
        :raises HarnessError: when it takes too long.
        """
        import urllib3

        try:
            response = self._pool.request(
                method,
                path,
                body=None if body is None else json.dumps(body),
                timeout=self._timeout_s + patience_s,
            )
        except urllib3.exceptions.NewConnectionError as error:
            # Refused; to urllib3 that is one of the timeouts.
            raise Unreachable(str(error)) from error
        except urllib3.exceptions.TimeoutError as error:
            raise HarnessError(
                f"{self._who} did not answer",
                expected=f"an answer to {method} {path} in {self._timeout_s:g} s",
                happened=str(error),
                advice="a loaded machine may need a longer resilience_engine_timeout",
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(str(error)) from error
        return response.status, response.data

    def call(self, method: str, path: str, body: object = None, *, patience_s: float = 0.0) -> Any:
        """One request; its answer, read as JSON.

        :raises UsageError: what the server refuses as a bad request (400, 409).
        :raises FaultUnavailable: what this machine cannot do (501).
        :raises Unreachable: when there is nobody to answer.
        :raises HarnessError: for everything else.
        """
        status, data = self.request(method, path, body, patience_s=patience_s)
        if status < 300:
            return json.loads(data) if data else None
        try:
            message = str(json.loads(data)["error"])
        except (ValueError, KeyError, TypeError):
            message = data.decode(errors="replace").strip()
        if status == 501:
            raise FaultUnavailable(
                "this machine cannot produce the fault",
                expected="a kernel with what the fault needs",
                happened=message,
                advice="run on Linux with these interfaces, outside of a sandbox that forbids "
                "them; the header of the run lists what is missing",
            )
        if status in (400, 409):
            raise UsageError(
                f"{self._who} refuses the request",
                expected="a request that makes sense",
                happened=f"{method} {path}: {message}",
                advice="correct the argument that it names",
            )
        raise HarnessError(
            f"{self._who} gave an unexpected answer",
            expected=f"success for {method} {path}",
            happened=f"status {status}: {message}",
            advice="a link that was deleted behind its back, or a mistake of this plugin",
        )
