"""``python -m pytest_tcpresilience audit``: its table, its JSON and its exit status."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pytest_tcpresilience import cli_audit
from pytest_tcpresilience.cli import main
from pytest_tcpresilience.evidence.judgements import judge
from pytest_tcpresilience.evidence.promises import Promise
from pytest_tcpresilience.evidence.readings import KeepaliveReading
from pytest_tcpresilience.kernel import owners, procnet
from pytest_tcpresilience.kernel.owners import Denied, Refusal
from pytest_tcpresilience.kernel.sockdiag import SockDiag
from pytest_tcpresilience.tcp.keepalive import Keepalive
from pytest_tcpresilience.tcp.middleboxes import Middlebox

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")

# Clients with the settings of its arguments, and both ends of each in one process.
HOLDER = """
import socket, sys
listener, ends = socket.create_server(("127.0.0.1", 0)), []
for words in sys.argv[1:]:
    on, idle, interval, probes, timeout = map(int, words.split(","))
    client = socket.create_connection(listener.getsockname())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, on)
    for option, value in ((4, idle), (5, interval), (6, probes), (18, timeout)):
        client.setsockopt(socket.IPPROTO_TCP, option, value)
    server, _ = listener.accept()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((4, 1), (5, 1), (6, 1), (18, 1000)):
        server.setsockopt(socket.IPPROTO_TCP, option, value)
    ends += client, server
print("ready", flush=True)
sys.stdin.read()
"""
FIRM, DEFAULT, OFF = "1,20,10,3,50000", "1,7200,75,9,0", "0,30,10,3,0"


@contextmanager
def holding(*settings: str) -> Iterator[str]:
    """The id of a process that holds such connections."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, *settings],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield str(child.pid)
        child.communicate("")


@pytest.fixture(scope="module")
def three() -> Iterator[str]:
    with holding(FIRM, DEFAULT, OFF) as pid:
        yield pid


def audited(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = main(["audit", *arguments])
    return status, capsys.readouterr().out


def test_the_table_is_aligned_and_the_worst_comes_first(
    three: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out = audited(capsys, "--pid", three, "--within", "60", "--behind", "350")
    assert status == 1
    head, *rows = out.split("\n\n")[0].splitlines()
    columns = [head.index(name) for name in cli_audit.COLUMNS]
    cells = [
        [row[a:b].strip() for a, b in zip(columns, [*columns[1:], None], strict=True)]
        for row in rows
    ]
    assert [row[0] for row in cells] == ["fails"] * 2 + ["holds"] * 4
    assert [row[1] for row in cells] == ["never", "2 h 11 min 15 s", "50.0 s"] + ["2.00 s"] * 3
    assert [row[3] for row in cells][:3] == [
        "keepalive off",
        "keepalive 7200/75/9",
        "keepalive 20/10/3, user timeout 50 s",
    ]
    assert all(row[4].startswith(f"{three} python") and " > 127.0.0.1:" in row[5] for row in cells)
    assert "1 connection: SO_KEEPALIVE is off, so TCP_KEEPIDLE=30" in out
    assert "and the middlebox forgets it after 5 min 50 s" in out
    assert out.splitlines()[-1].startswith(
        "6 connections: fails: 2, holds: 4 (promised: an idle death noticed within 60.0 s, "
    )


def test_json(three: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = audited(capsys, "--pid", three, "--writes-within", "60", "--json")
    document: dict[str, Any] = json.loads(out)
    assert status == 1
    assert (document["fails"], document["unknown"], document["holds"]) == (2, 0, 4)
    worst = document["connections"][0]
    assert worst["never_notices_idle_death"] is True
    assert worst["notices_idle_death_after_s"] is None
    assert worst["notices_death_with_data_after_s"] > 900
    assert worst["pid"] == int(three)
    assert [finding["rule"] for finding in worst["findings"]] == ["writes_unbounded"]
    assert document["connections"][2]["user_timeout_s"] == 50.0


def test_without_a_promise_keepalive_has_to_be_on(
    three: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out = audited(capsys, "--pid", three)
    assert status == 1
    assert "fails: 1, holds: 5 (promised: a death noticed at all)" in out
    with holding(FIRM, DEFAULT) as pid:
        status, out = audited(capsys, "--pid", pid)
        assert (status, out.splitlines()[-1][:24]) == (0, "4 connections: holds: 4 ")


def test_a_middlebox_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with holding(FIRM) as pid:
        assert audited(capsys, "--pid", pid, "--behind", "aws-nlb")[0] == 0
        status, out = audited(capsys, "--pid", pid, "--behind", "haproxy")
    assert status == 1
    assert "ends TCP itself and counts the application's bytes" in out


def test_a_process_that_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    with holding(FIRM) as pid:
        arguments = ["--pid", pid, "--within", "60", "--writes-within", "60", "--behind", "350"]
        assert audited(capsys, *arguments)[0] == 0


def test_this_host(three: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = audited(capsys, "--json")
    mine = [each for each in json.loads(out)["connections"] if each["pid"] == int(three)]
    assert status == 1
    assert len(mine) == 6


def test_what_cannot_be_judged_is_not_fine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = Denied(Refusal.FORBIDDEN, "a sandbox forbids it")
    monkeypatch.setattr(owners, "borrow", lambda _: denied)
    with holding(FIRM) as pid:
        status, out = audited(capsys, "--pid", pid, "--within", "60")
        assert status == 1
        assert "unknown: 2 (promised" in out
        assert "> 21.0 s" in out or "> 20." in out
        assert "2 connections: partly known: a sandbox forbids it" in out
        # On or off is known without a look at the socket.
        assert audited(capsys, "--pid", pid)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--pid", "0"], "invalid process value: '0'"),
        (["--within", "-1"], "invalid time value: '-1'"),
        (["--within", "inf"], "invalid time value: 'inf'"),
        (["--behind", "0"], "idle_timeout=0.0 is no time"),
        (["--behind", "aws-nbl"], "aws-nlb"),
    ],
)
def test_arguments_that_make_no_sense(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["audit", *arguments])
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["audit", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_nothing_to_judge_is_not_fine(capsys: pytest.CaptureFixture[str]) -> None:
    with holding() as pid:
        assert refused(capsys, "--pid", pid) == (
            f"audit: there is no established TCP connection in process {pid}\n"
        )
    assert refused(capsys, "--pid", pid) == f"audit: there is no process {pid}\n"


def test_a_process_that_may_not_be_looked_into(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> set[int]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(owners, "of_process", refuse)
    assert refused(capsys, "--pid", "1") == "audit: process 1 is another user's\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into any process")
def test_a_process_of_another_user(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "--pid", "1") == "audit: process 1 is another user's\n"


def test_a_system_that_tells_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: SockDiag) -> None:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(SockDiag, "__init__", refuse)
    monkeypatch.setattr(procnet, "TABLES", dict.fromkeys(procnet.TABLES, "/proc/net/nothing"))
    assert refused(capsys) == "audit: this system has neither sock_diag nor /proc/net/tcp\n"


def test_a_reader_that_has_seen_enough(three: str) -> None:
    command = [sys.executable, "-m", "pytest_tcpresilience", "audit", "--pid", three]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 1


def test_the_order() -> None:
    ends = ("10.0.0.1", 1), ("10.0.0.2", 2)

    def settings(keepalive: Keepalive) -> KeepaliveReading:
        values = vars(keepalive)
        return KeepaliveReading(*ends, **{name: values[name] for name in values})

    readings = {
        "fine": settings(Keepalive(10, 10, 3)),
        "finer": settings(Keepalive(1, 1, 1)),
        "unknown": KeepaliveReading(*ends, partial="?"),
        "less known": KeepaliveReading(*ends, partial="?", enabled=True, next_probe_in=30.0),
        "slow": settings(Keepalive(600, 10, 3)),
        "never": settings(Keepalive(1, 1, 1, enabled=False)),
    }
    judgements = [
        judge(each, Promise(within=60, behind=Middlebox(350))) for each in readings.values()
    ]
    names = {id(each): name for each, name in zip(judgements, readings, strict=True)}
    assert [names[id(each)] for each in cli_audit.worst_first(judgements)] == [
        "never",
        "slow",
        "less known",
        "unknown",
        "fine",
        "finer",
    ]
    assert json.loads(cli_audit.as_json(judgements, Promise()))["unknown"] == 2
    assert math.inf not in json.loads(cli_audit.as_json(judgements, Promise())).values()
