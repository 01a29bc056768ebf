"""``python -m pytest_tcpresilience advise``: arguments, output, exit status."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pytest_tcpresilience import cli
from pytest_tcpresilience.tcp.middleboxes import MIDDLEBOXES

Captured = pytest.CaptureFixture[str]


def advise(*arguments: str) -> int:
    return cli.main(["advise", *arguments])


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("--keepalive 7200/75/9 --behind aws-nlb", 1),
        ("--keepalive 300/10/6 --behind aws-nlb", 0),
        ("--keepalive 300/10/6 --behind aws-nlb --within 100", 1),
        ("--keepalive 30/10/6 --user-timeout 90 --behind aws-nlb --within 110", 0),
        ("--keepalive off --behind AWS_ALB", 0),
        ("--keepalive off", 1),
        ("", 0),
        ("--behind all", 1),
        # A proxy is not held open by keepalive, but tells both ends.
        ("--keepalive 20/10/6 --behind all", 0),
        ("--keepalive 300/10/6 --behind 320/drop", 1),
        ("--keepalive 300/10/6 --behind 400/drop", 0),
        ("--stack aix --set tcp_keepidle=240 --behind 130/reset", 0),
        ("--stack freebsd --set net.inet.tcp.keepidle=60000 --behind azure-lb", 0),
        ("--keepalive default --user-timeout 5 --stack windows", 0),
        ("--keepalive off --user-timeout 5", 1),
    ],
)
def test_the_exit_status_is_the_verdict(arguments: str, status: int, capsys: Captured) -> None:
    assert advise(*arguments.split()) == status
    shown = capsys.readouterr()
    assert shown.out
    assert not shown.err


@pytest.mark.parametrize(
    ("arguments", "message", "advice"),
    [
        ("--behind aws-nbl", "middlebox='aws-nbl' is not known", "did you mean 'aws-nlb'?"),
        ("--stack hpux", "stack='hpux' is not known", "did you mean 'hp-ux'?"),
        ("--keepalive 60/10", "--keepalive 60/10 is no setting", "--keepalive 7200/75/9"),
        ("--keepalive 60/10/x", "--keepalive 60/10/x is no setting", "7200/75/9"),
        ("--keepalive 0/10/3", "idle=0 cannot be set", "at least 1"),
        ("--keepalive 60/10/3 --stack openbsd", "cannot set TCP_KEEPIDLE", "keepidle"),
        ("--user-timeout -1", "user_timeout=-1.0 cannot be set", "user_timeout=5.0"),
        ("--user-timeout 5 --stack solaris", "--user-timeout needs the numbers", "60/10/3"),
        ("--user-timeout 5 --stack aix", "cannot set TCP_USER_TIMEOUT", "tcp_keepidle"),
        ("--within 0", "within=0.0 is no bound", "within=30"),
        ("--behind 900/dorp", "then='dorp' is none of the choices", "as a string"),
        ("--behind soon/drop", "--behind soon/drop is no middlebox", "--behind 900/drop"),
        ("--behind 0/drop", "idle_timeout=0.0 is no time", "the seconds"),
        ("--stack aix --set keepidle=5", "tunable='keepidle' is not known", "'tcp_keepidle'?"),
        ("--set tcp_retries2", "--set tcp_retries2 is no setting", "tcp_retries2=15"),
        ("--set tcp_retries2=x", "--set tcp_retries2=x is no setting", "tcp_retries2=15"),
        ("--set tcp_retries2=-3", "tcp_retries2=-3 cannot be set", "inside the range"),
    ],
)
def test_what_makes_no_sense_is_told_on_stderr(
    arguments: str, message: str, advice: str, capsys: Captured
) -> None:
    assert advise(*arguments.split()) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert message in shown.err
    assert advice in shown.err.partition("to do:")[2]


def test_an_argument_of_the_wrong_type_is_the_parsers(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        advise("--within", "soon")
    assert caught.value.code == 2
    assert "invalid float value: 'soon'" in capsys.readouterr().err


def test_a_page_for_one_and_a_table_for_all(capsys: Captured) -> None:
    advise("--keepalive", "7200/75/9", "--behind", "aws-nlb")
    page = capsys.readouterr().out
    assert "1. client: set TCP_KEEPIDLE 311 [23.2 packets per connection and hour" in page
    assert "2. middlebox: no: raise the idle timeout of AWS NLB" in page
    advise("--keepalive", "7200/75/9", "--behind", "all")
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(MIDDLEBOXES)


def test_json_is_one_object_or_a_list(capsys: Captured) -> None:
    advise("--behind", "aws-nlb", "--json")
    one = json.loads(capsys.readouterr().out)
    assert (one["held"], one["ok"]) == ("no", False)
    assert one["cures"][0]["keepalive"]["idle"] == 311
    advise("--behind", "all", "--json")
    many = json.loads(capsys.readouterr().out)
    assert [each["behind"]["name"] for each in many] == [box.name for box in MIDDLEBOXES.values()]


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "pytest_tcpresilience", "advise", "--behind", "cisco-asa"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Cisco ASA, FTD" in done.stdout
    assert not done.stderr
