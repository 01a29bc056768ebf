"""What a request's body may hold: fields of the right type, or a refusal that names them.

Pure: JSON in, values out. It knows neither proxies nor sockets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_tcpresilience.engine import endpoints, errors
from pytest_tcpresilience.engine.fields import fields


def parse(body: bytes) -> Any:
    """:raises ApiError: 400 for what is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise errors.bad_body(str(error)) from error


def parse_object(body: bytes) -> dict[str, Any]:
    return fields(parse(body))


def text(body: Mapping[str, Any], name: str, default: str = "") -> str:
    value = body.get(name, default)
    if not isinstance(value, str):
        raise errors.bad_body(f"json: {name} must be a string")
    return value


def flag(body: Mapping[str, Any], name: str, default: bool) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise errors.bad_body(f"json: {name} must be true or false")
    return value


@dataclass(frozen=True)
class WantedProxy:
    """A proxy as a client, or a configuration file, asks for it.

    :param keep_port: whether its port is held while it is disabled.
    """

    name: str
    listen: str
    upstream: str
    enabled: bool
    keep_port: bool = False

    @classmethod
    def from_json(cls, body: Mapping[str, Any], where: str = "") -> WantedProxy:
        """:param where: said with the name of a missing field.

        :raises ApiError: 400.
        """
        name, upstream = text(body, "name"), text(body, "upstream")
        if not name:
            raise errors.missing_field(f"name{where}")
        if not upstream:
            raise errors.missing_field(f"upstream{where}")
        listen = text(body, "listen")
        endpoints.split_address(upstream, "upstream")
        if listen:
            endpoints.split_address(listen, "listen")
        enabled, keep_port = flag(body, "enabled", True), flag(body, "keep_port", False)
        return cls(name, listen, upstream, enabled, keep_port)


def parse_proxies(document: object) -> list[WantedProxy]:
    """Toxiproxy's list of proxies. All are checked before any of them is made.

    :raises ApiError: 400.
    """
    if document is None:
        return []
    if not isinstance(document, list):
        raise errors.bad_body("json: a list of proxies is wanted")
    wanted: list[WantedProxy] = []
    for number, body in enumerate(document, start=1):
        given = fields(body, f"proxy {number} must be an object")
        wanted.append(WantedProxy.from_json(given, f" at proxy {number}"))
    names = [each.name for each in wanted]
    for name in names:
        if names.count(name) > 1:
            raise errors.bad_body(f"two proxies have the name {name}")
    return wanted
