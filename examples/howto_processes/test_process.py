"""A client in another process: judged by its socket, and by what it prints."""

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_tcpresilience import Keepalive, assert_keepalive, detects_break, keepalive_of

COMMAND = [sys.executable, str(Path(__file__).with_name("client.py"))]


@pytest.fixture
def link(tcp_link, recording_server):
    return tcp_link(recording_server.address)


@pytest.fixture
def client(link):
    """The client, once it is connected."""
    with subprocess.Popen(
        [*COMMAND, link.host, str(link.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process


def test_its_settings_are_good_enough(link, client):
    (reading,) = keepalive_of(link)
    assert reading.pid == client.pid
    assert reading.settings == Keepalive(idle=1, interval=1, probes=1)
    assert_keepalive(link, within=3)


def test_it_notices_a_dead_connection(link, client):
    with detects_break(link, within=Keepalive.of(link)) as detection:
        link.silent_drop()
        assert client.stdout.readline() == "lost ETIMEDOUT\n"
        detection.mark()
    assert detection.mechanism == "keepalive"  # its socket was followed from outside
