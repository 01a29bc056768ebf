"""Requests to a Toxiproxy server and what it answered, in a file beside this module.

Owns the requests, and how two answers are compared. To record again, from the root of the
repository: ``python -m tests.contract.recorded toxiproxy-server``. What is different on
purpose carries our answer and the row of docs/engine-api.md that says so; recording keeps
both.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("toxiproxy-2.12.0.json")
WAIT_S = 10.0

Row = dict[str, Any]


def address(sock: socket.socket) -> str:
    return f"127.0.0.1:{sock.getsockname()[1]}"


def replay(port: int, rows: list[Row], headers: Mapping[str, str]) -> list[Row]:
    """Send all requests in turn; ``status``, ``type`` and ``body`` of each answer.

    ``TAKEN`` in a request stands for an address that somebody else listens on.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return [_send(port, row, headers, address(taken)) for row in rows]


def _send(port: int, row: Row, headers: Mapping[str, str], taken: str) -> Row:
    # Text of one byte for each character, so that a body need not be UTF-8.
    data = row.get("data", "").replace("TAKEN", taken).encode("latin-1")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        sent = {"Content-Length": str(len(data)), **headers, **row.get("headers", {})}
        connection.request(row["method"], row["path"], data or None, sent)
        response = connection.getresponse()
        body = response.read().decode().replace(taken, "TAKEN")
    finally:
        connection.close()
    body = re.sub(r'("listen":")(\S+?):\d+"', r'\1\2:PORT"', body)
    return {"status": response.status, "type": response.headers["Content-Type"], "body": body}


def canonical(answer: Row) -> Row:
    """What two servers must have in common.

    Not the order of keys, nor of a proxy's toxics; and of a refusal that quotes another
    library (the reader of JSON, the resolver, the kernel) the words before that.
    """
    try:
        document = json.loads(answer["body"])
    except ValueError:
        document = answer["body"]
    if isinstance(document, dict) and isinstance(document.get("error"), str):
        document["error"] = re.sub(r"^(bad request body|listen tcp).*", r"\1", document["error"])
    return {"status": answer["status"], "type": answer["type"], "body": _sorted(document)}


def _sorted(document: Any) -> Any:
    if isinstance(document, list) and all(isinstance(each, dict) for each in document):
        return sorted((_sorted(each) for each in document), key=lambda each: str(each.get("name")))
    if isinstance(document, dict):
        return {key: _sorted(value) for key, value in document.items()}
    return document


def load() -> list[Row]:
    rows: list[Row] = json.loads(FILE.read_text())
    return rows


class RealServer:
    """A Toxiproxy server on a free port, with an empty configuration."""

    def __init__(self, program: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.process = subprocess.Popen(
            [program, "-host", "127.0.0.1", "-port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + WAIT_S
        while True:  # it does not say when it is ready
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.close()
                    raise
                time.sleep(0.01)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def main(program: str) -> None:
    server, rows = RealServer(program), load()
    try:
        answers = replay(server.port, rows, {})
    finally:
        server.close()
    for row, answer in zip(rows, answers, strict=True):
        row["answer"] = answer
    FILE.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main(sys.argv[1])
