"""Nothing of a lab outlives its owner, however that ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.lab.conftest import make_lab

END_S = 10.0


def namespaces_in_use() -> set[int]:
    """The network namespaces of all processes that may be looked at."""
    found = set()
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            with contextlib.suppress(OSError):
                found.add(os.stat(f"/proc/{pid}/ns/net").st_ino)
    return found


def wait_for(pids: list[int], inodes: set[int]) -> None:
    """Until no such process is left, and nobody is in these namespaces."""
    deadline = time.monotonic() + END_S
    while True:
        alive = [pid for pid in pids if is_alive(pid)]
        if not alive and not inodes & namespaces_in_use():
            return
        assert time.monotonic() < deadline, (alive, inodes & namespaces_in_use())
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# A daemon, as careless code under test leaves it: no parent, no session, no terminal.
DAEMON = "import os; os.fork() and os._exit(0); os.setsid(); os.execvp('sleep', ['sleep', '600'])"


def members(inodes: set[int]) -> list[int]:
    """The processes in these namespaces."""
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{pid}/ns/net").st_ino in inodes:
                    found.append(int(pid))
    return found


def test_code_that_leaves_processes_behind(own_user: bool) -> None:
    with make_lab(own_user) as lab:
        inodes = set(lab.channel.hello["inodes"].values())
        keeper = lab.channel.hello["pid"]
        assert lab.client.popen([sys.executable, "-c", DAEMON]).wait(END_S) == 0
        lab.server.popen(["sleep", "600"])
        deadline = time.monotonic() + END_S
        # The daemon; the server's command, and the process that started it there.
        while len(left := [pid for pid in members(inodes) if pid != keeper]) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert [process.returncode for process in lab.processes] == [0, -signal.SIGKILL]
    # By its own doing: the limit after which it is killed was not needed.
    assert lab.channel._process.returncode == 0
    wait_for([*left, keeper], inodes)


OWNER = """
import json, os, subprocess, sys, time
from pytest_tcpresilience import Lab

with Lab(own_user={own_user}) as lab:
    child = None
    if {forks}:
        child = os.fork()
        if not child:
            os.close(1)
            time.sleep(600)
    listener = lab.server.listen()
    capture = lab.client.capture()
    lab.client.popen([sys.executable, "-c", {daemon!r}], stdout=subprocess.DEVNULL).wait()
    sleeper = lab.client.popen(["sleep", "600"], stdout=subprocess.DEVNULL)
    hello = lab.channel.hello
    pids = [lab.channel.process_id, hello["pid"], sleeper.pid]
    print(json.dumps([pids, list(hello["inodes"].values()), child]), flush=True)
    {ending}
"""
ENDINGS = {
    "killed": "time.sleep(600)",
    "exits": "os._exit(3)",
    "raises": "raise SystemExit(4)",
}


@pytest.mark.parametrize("how", ENDINGS)
def test_an_owner_that_ends(own_user: bool, how: str, tmp_path: Path) -> None:
    owned(own_user, ENDINGS[how], False, tmp_path)


def test_an_owner_that_is_killed_while_its_forked_child_lives_on(tmp_path: Path) -> None:
    """The child holds the channel on which the keeper would hear of its owner's end."""
    child = owned(True, ENDINGS["killed"], True, tmp_path)
    assert child is not None
    try:
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def owned(own_user: bool, ending: str, forks: bool, tmp_path: Path) -> int | None:
    make_lab(own_user).close()  # or skip
    script = tmp_path / "owner.py"
    script.write_text(OWNER.format(own_user=own_user, forks=forks, daemon=DAEMON, ending=ending))
    owner = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        pids, inodes, child = json.loads(owner.stdout.readline())
    finally:
        if "sleep" in ending:
            owner.kill()
        owner.wait(END_S)
        if owner.stdout is not None:
            owner.stdout.close()
    wait_for(pids, set(inodes))
    return None if child is None else int(child)
