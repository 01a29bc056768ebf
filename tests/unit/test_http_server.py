"""The HTTP of the engine by itself, with its limits made short."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from pytest_tcpresilience.engine import http


async def _nobody(request: http.Request) -> http.Response:
    raise AssertionError("no request is complete")


def test_a_request_that_takes_too_long_is_answered_with_408(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "REQUEST_TIMEOUT_S", 0.05)

    async def talk() -> bytes:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        answer = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.Server(_nobody, None).serve, listener)
            async with await trio.testing.open_stream_to_socket_listener(listener) as stream:
                await stream.send_all(b"GET /version HT")
                async for data in stream:
                    answer += data
            nursery.cancel_scope.cancel()
        return answer

    head, _, body = trio.run(talk).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body) == {"error": "the request took more than 0.05 s", "status": 408}
