"""Refusals of the API, with Toxiproxy's own words and status codes where it has them."""

from __future__ import annotations

import json


class ApiError(Exception):
    """An answer other than success.

    :param message: what the body's ``error`` says.
    :param status: the HTTP status.
    :param plain: whether the body is the message alone, as Toxiproxy writes some.
    """

    def __init__(self, message: str, status: int, *, plain: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.plain = plain

    def body(self) -> bytes:
        """The body as Toxiproxy writes it: compact JSON and a newline, as text/plain."""
        if self.plain:
            return self.message.encode() + b"\n"
        document = {"error": self.message, "status": self.status}
        return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def not_found() -> ApiError:
    return ApiError("404 page not found", 404, plain=True)


def bad_body(detail: str) -> ApiError:
    return ApiError(f"bad request body: {detail}", 400)


def missing_field(name: str) -> ApiError:
    return ApiError(f"missing required field: {name}", 400)


def proxy_exists() -> ApiError:
    return ApiError("proxy already exists", 409)


def proxy_not_found() -> ApiError:
    return ApiError("proxy not found", 404)


def toxic_exists() -> ApiError:
    return ApiError("toxic already exists", 409)


def toxic_not_found() -> ApiError:
    return ApiError("toxic not found", 404)


def invalid_toxic_type() -> ApiError:
    return ApiError("invalid toxic type", 400)


def invalid_stream() -> ApiError:
    return ApiError("stream was invalid, can be either upstream or downstream", 400)
