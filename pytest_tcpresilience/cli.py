"""The command line: ``python -m pytest_tcpresilience serve``, and others.

Owns its arguments, what it prints, and its exit status: 0 when it was told to end, 2
for what it cannot do as it was asked. What it serves is the engine's; ``advise``,
``audit`` and ``report`` have modules of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial

import trio

from pytest_tcpresilience import cli_advise, cli_audit, cli_report
from pytest_tcpresilience._version import __version__
from pytest_tcpresilience.engine import endpoints
from pytest_tcpresilience.engine.api import Api
from pytest_tcpresilience.engine.errors import ApiError
from pytest_tcpresilience.engine.service import Options, serve
from pytest_tcpresilience.tcp.addresses import join_address

NAME = "pytest-tcpresilience"
# Toxiproxy's, which its clients use when they are told nothing.
DEFAULT_PORT = 8474


class _Refused(Exception):
    """Told in one line."""


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(text)
    return port


_port.__name__ = "port"  # argparse names it: "invalid port value"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "serve",
        help="run the engine by itself, for any client of Toxiproxy",
        description="Run the engine by itself, for any client of Toxiproxy. It asks for no "
        "secret: whoever can reach its address can use it.",
    )
    command.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    command.add_argument(
        "--port", type=_port, default=DEFAULT_PORT, help="0 picks a free one (%(default)s)"
    )
    command.add_argument("--config", metavar="FILE", help="proxies to begin with, as JSON")
    command.add_argument("--seed", type=int, metavar="N", help="of all that is random (drawn)")
    command.add_argument(
        "--proxy-metrics", action="store_true", help="count bytes at /metrics, for Prometheus"
    )
    cli_advise.add_to(commands)
    cli_audit.add_to(commands)
    cli_report.add_to(commands)
    return parser


def _read(path: str | None) -> object:
    """The proxies of a configuration file in Toxiproxy's format."""
    if path is None:
        return []
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise _Refused(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8
        raise _Refused(f"{path}: no JSON: {error}") from error


async def _serve(arguments: argparse.Namespace) -> None:
    options = Options(
        secret=None,
        seed=arguments.seed,
        proxy_metrics=arguments.proxy_metrics,
        proxies=_read(arguments.config),
    )
    address = join_address(arguments.host, arguments.port)
    try:
        sock = await endpoints.listen(address)
    except ApiError as error:
        raise _Refused(error.message) from error
    with sock, trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:

        async def until_told() -> None:
            async for _ in signals:
                return

        try:
            await serve(sock, options, [until_told], partial(_announce, sock))
        except ApiError as error:  # only the file's proxies can fail here
            raise _Refused(f"{arguments.config}: {error.message}") from error


def _announce(sock: socket.socket, api: Api) -> None:
    address = join_address(*endpoints.address_of(sock.getsockname()))
    try:
        print(
            f"{NAME} {__version__} serves Toxiproxy's API on http://{address} (seed {api.seed})",
            flush=True,
        )
    except OSError as error:
        with contextlib.suppress(OSError):
            sys.stdout.close()  # else the interpreter tries again as it ends
        raise _Refused(f"standard output: {error.strerror}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """:returns: the exit status."""
    parsed = _parser().parse_args(arguments)
    if parsed.command == cli_advise.COMMAND:
        return cli_advise.run(parsed)
    if parsed.command == cli_audit.COMMAND:
        return cli_audit.run(parsed)
    if parsed.command == cli_report.COMMAND:
        return cli_report.run(parsed, sys.argv[1:] if arguments is None else arguments)
    try:
        trio.run(_serve, parsed)
    except _Refused as error:
        print(f"{NAME}: {error}".replace("\n", " "), file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # Ctrl-C before there was anything to end
        return 0
    return 0
