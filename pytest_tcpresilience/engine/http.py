"""HTTP/1.1 for the engine's API: h11 does the protocol, this module the socket.

Owns the limits that keep one client from holding up another: the size of a request, the
time that it may take, and who is let in at all. It knows no route.

Why h11 and no ASGI server: the API needs neither WebSockets nor HTTP/2, the engine has
250 ms to start, and every protocol that a fault injector does not speak cannot be
abused.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import secrets
from base64 import b64decode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

import h11
import trio

from pytest_tcpresilience.engine import descriptors
from pytest_tcpresilience.engine.complaints import complain
from pytest_tcpresilience.engine.descriptors import Reserve
from pytest_tcpresilience.engine.errors import ApiError

MAX_BODY_BYTES = 1024 * 1024
# From the first byte of a request to its last.
REQUEST_TIMEOUT_S = 10.0
IDLE_TIMEOUT_S = 300.0
# For a client that is still sending what nobody wants.
FINISH_TIMEOUT_S = 2.0
READ_SIZE = 64 * 1024


@dataclass(frozen=True)
class Request:
    """A request that was let in.

    :param path: unquoted segments of the path.
    :param query: the last value of each query parameter.
    :param user: who says to ask, by basic authentication; "" where nobody does.
    """

    method: str
    path: tuple[str, ...]
    query: dict[str, str]
    body: bytes
    user: str = ""


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes = b""
    content_type: str = "application/json"


def _refusal(error: ApiError) -> Response:
    return Response(error.status, error.body(), "text/plain; charset=utf-8")


Handler = Callable[[Request], Awaitable[Response]]


def refuse(headers: dict[str, str], secret: str | None) -> ApiError | None:
    """Why a request is not let in, or ``None``.

    Browsers are refused as Toxiproxy does it, and a ``Host`` that is a name is refused
    because a page could have rebound it to loopback.
    """
    if headers.get("user-agent", "").startswith("Mozilla/"):
        return ApiError("User agent not allowed", 403, plain=True)
    if not _is_local_host(headers.get("host", "")):
        return ApiError("Host not allowed: use the engine's address", 403)
    if secret is not None and not _knows(headers.get("authorization", ""), secret):
        return ApiError("the session's secret is wanted, as bearer or as basic password", 401)
    return None


def _is_local_host(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost":
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def credentials(authorization: str) -> tuple[str, str]:
    """User and password of an ``Authorization`` header; a bearer has no name."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return "", given.strip()
    if scheme.lower() == "basic":
        try:
            user, _, password = b64decode(given, validate=True).decode().partition(":")
        except ValueError:  # no base64, no ASCII, or no UTF-8 in it
            return "", ""
        return user, password
    return "", ""


def _knows(authorization: str, secret: str) -> bool:
    _, given = credentials(authorization)
    return hmac.compare_digest(given.encode(), secret.encode())


class Server:
    """Serves one handler on one listening socket.

    :param secret: what each request must show; ``None`` lets everybody in.
    """

    def __init__(self, handler: Handler, secret: str | None) -> None:
        self._handler = handler
        self._secret = secret

    async def serve(self, listener: trio.SocketListener) -> None:
        """Until cancelled."""
        reserve = Reserve()
        try:
            async with listener, trio.open_nursery() as nursery:
                while True:
                    try:
                        stream = await listener.accept()
                    except OSError as error:
                        if error.errno not in descriptors.FULL:
                            continue  # that client has gone again
                        if not reserve.give_up():
                            await trio.sleep(descriptors.PAUSE_S)
                        continue
                    nursery.start_soon(self._converse, stream, reserve)
        finally:
            reserve.close()

    async def _converse(self, stream: trio.SocketStream, reserve: Reserve) -> None:
        connection = h11.Connection(h11.SERVER)
        async with stream:
            # BrokenResourceError: the client went.
            with contextlib.suppress(trio.BrokenResourceError):
                await self._exchange_all(connection, stream)
                await self._let_finish(connection, stream)
        reserve.take_back()

    async def _exchange_all(self, connection: h11.Connection, stream: trio.SocketStream) -> None:
        try:
            while await self._exchange(connection, stream):
                connection.start_next_cycle()
        except h11.RemoteProtocolError as error:
            problem = ApiError(f"malformed request: {error}", error.error_status_hint)
        except trio.TooSlowError:
            problem = ApiError(f"the request took more than {REQUEST_TIMEOUT_S:g} s", 408)
        else:
            return
        if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._write(connection, stream, _refusal(problem))

    async def _let_finish(self, connection: h11.Connection, stream: trio.SocketStream) -> None:
        """Closed with something unread, the answer could be lost to a reset."""
        if connection.their_state in (h11.DONE, h11.CLOSED):
            return
        with trio.move_on_after(FINISH_TIMEOUT_S):
            await stream.send_eof()
            while await stream.receive_some(READ_SIZE):
                pass

    async def _exchange(self, connection: h11.Connection, stream: trio.SocketStream) -> bool:
        """One request and its answer. Whether another one may follow."""
        with trio.move_on_after(IDLE_TIMEOUT_S) as idle:
            await self._fill(connection, stream)
        if idle.cancelled_caught:
            return False
        with trio.fail_after(REQUEST_TIMEOUT_S):
            read = await self._read(connection, stream)
        if read is None:
            return False
        head, body = read
        response = await self._answer(head, body)
        await self._write(connection, stream, response, bare=head.method == b"HEAD")
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    async def _fill(self, connection: h11.Connection, stream: trio.SocketStream) -> None:
        if not connection.trailing_data[0]:
            connection.receive_data(await stream.receive_some(READ_SIZE))

    async def _read(
        self, connection: h11.Connection, stream: trio.SocketStream
    ) -> tuple[h11.Request, bytes | None] | None:
        """Head and body; a body of ``None`` was too large and was not kept."""
        head: h11.Request | None = None
        body: bytearray | None = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    await self._send(connection, stream, go_on)
                connection.receive_data(await stream.receive_some(READ_SIZE))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                if body is not None:
                    body += event.data
                    body = body if len(body) <= MAX_BODY_BYTES else None
                if body is None:
                    assert head is not None
                    return head, None
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                assert body is not None
                return head, bytes(body)
            else:  # ConnectionClosed, PAUSED
                return None

    async def _answer(self, head: h11.Request, body: bytes | None) -> Response:
        headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        try:
            refusal = refuse(headers, self._secret)
            if refusal is not None:
                raise refusal
            if body is None:
                raise ApiError(f"request body over {MAX_BODY_BYTES} bytes", 413)
            try:
                target = urlsplit(head.target.decode("latin-1"))
            except ValueError as error:
                raise ApiError(f"malformed request target: {error}", 400) from error
            request = Request(
                method=head.method.decode(),
                path=tuple(unquote(part) for part in target.path.removeprefix("/").split("/")),
                query={name: values[-1] for name, values in parse_qs(target.query).items()},
                body=body,
                user=credentials(headers.get("authorization", ""))[0],
            )
            return await self._handler(request)
        except ApiError as error:
            return _refusal(error)
        except Exception as error:
            # A mistake of ours costs one request, and not the engine.
            complain(error)
            return _refusal(ApiError(f"internal error: {error!r}", 500))

    async def _write(
        self,
        connection: h11.Connection,
        stream: trio.SocketStream,
        response: Response,
        *,
        bare: bool = False,
    ) -> None:
        """:param bare: leave the body out, as the answer to HEAD must."""
        # Random, so that a client's log and a capture can be laid side by side.
        headers = [("X-Toxiproxy-Request-Id", secrets.token_hex(10))]
        if response.status != 204:  # RFC 9110, 8.6: none in a 204
            headers.append(("Content-Length", str(len(response.body))))
        if response.body:
            headers.append(("Content-Type", response.content_type))
        if response.status == 401:
            headers.append(("WWW-Authenticate", 'Basic realm="tcpresilience"'))
        head = h11.Response(status_code=response.status, headers=headers)
        # One write, or the body waits for the client's delayed acknowledgement.
        body = h11.Data(data=b"" if bare else response.body)
        parts = [connection.send(each) for each in (head, body, h11.EndOfMessage())]
        await stream.send_all(b"".join(part for part in parts if part))

    async def _send(
        self, connection: h11.Connection, stream: trio.SocketStream, event: h11.Event
    ) -> None:
        data = connection.send(event)
        if data:
            await stream.send_all(data)
