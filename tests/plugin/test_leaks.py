"""Nothing outlives its owner: no process, thread, descriptor or port, however it ends."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.inner import LEAN, Inner

# The engine learns of its owner's end from the kernel; this is for a loaded machine.
ENGINE_END_S = 5.0
START_S = 30.0


def test_after_a_normal_session(inner: Inner) -> None:
    result = inner.run_subprocess(
        """
        from pytest_tcpresilience import detects_break

        def test_reset(client, link):
            with detects_break(link, within=5, raises=ConnectionResetError):
                link.reset()
                client.recv(1)

        def test_silent_drop(client, link):
            link.silent_drop()

        def test_toxiproxy(toxiproxy):
            toxiproxy.create(name="left", upstream="127.0.0.1:9")
        """
    )
    result.assert_outcomes(passed=3)
    inner.assert_nothing_left()


def test_after_the_first_failure_with_a_cut_in_force(inner: Inner) -> None:
    result = inner.run_subprocess(
        """
        def test_failing(client, link):
            link.silent_drop()
            assert False, "on purpose"

        def test_never_run():
            pass
        """,
        "-x",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E * AssertionError: on purpose", "*stopping after 1 failures*"])
    inner.assert_nothing_left()


def test_after_an_exit_in_the_middle_of_a_test(inner: Inner) -> None:
    result = inner.run_subprocess(
        """
        import pytest

        def test_leaving(client, link):
            link.silent_drop()
            pytest.exit("enough", returncode=7)
        """
    )
    assert result.ret == 7
    result.stdout.fnmatch_lines(["*Exit: enough*"])
    inner.assert_nothing_left()


# --- ends from outside ------------------------------------------------------------------

BLOCKED = """
    def test_blocked(client, link):
        link.silent_drop()
        open("blocked", "w").close()
        client.recv(1)
"""
BLOCKED_IN_AN_EXPECTATION = """
    from pytest_tcpresilience import detects_break

    def test_blocked(client, link):
        with detects_break(link, within=600):
            link.silent_drop()
            open("blocked", "w").close()
            client.recv(1)
"""
WAITING_FOR_A_FAULT = """
    def test_blocked(client, link):
        fault = link.silent_drop(when_idle=600)
        open("blocked", "w").close()
        fault.wait_until_hit(600)
"""
blocked_tests = pytest.mark.parametrize(
    "source",
    [BLOCKED, BLOCKED_IN_AN_EXPECTATION, WAITING_FOR_A_FAULT],
    ids=["in a read", "in an expectation", "for a fault"],
)


@contextmanager
def blocked_session(inner: Inner, source: str) -> Iterator[subprocess.Popen[str]]:
    """A session in a process group of its own, whose test blocks, with a link that is cut."""
    inner.pytester.makepyfile(source)
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *LEAN],
        cwd=inner.pytester.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + START_S
        while not (inner.pytester.path / "blocked").exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "the inner test did not get to its wait"
            time.sleep(0.01)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


@blocked_tests
def test_after_ctrl_c(inner: Inner, source: str) -> None:
    with blocked_session(inner, source) as process:
        # A terminal's Ctrl-C goes to the whole group.
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=START_S)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert "KeyboardInterrupt" in output
    assert "no tests ran" in output
    # The interruption is all the news: neither the engine's end nor an unhit fault is any.
    assert "tcpresilience.errors" not in output
    assert "INTERNALERROR" not in output
    inner.assert_nothing_left()


@blocked_tests
def test_after_a_session_was_killed(inner: Inner, source: str) -> None:
    with blocked_session(inner, source) as process:
        process.kill()
        process.wait()
        inner.assert_nothing_left(within=ENGINE_END_S)


def test_after_a_kill_while_a_forked_child_lives_on(inner: Inner) -> None:
    """The child holds the pipe on which the engine would hear of its owner's end."""
    source = """
        import os
        import time

        def test_blocked(client, link):
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(1)
                os.close(2)
                os.write(writer, b"alive")
                time.sleep(60)
                os._exit(0)
            os.read(reader, 5)
            with open("child", "w") as file:
                file.write(str(child))
            open("blocked", "w").close()
            client.recv(1)
    """
    with blocked_session(inner, source) as process:
        child = int((inner.pytester.path / "child").read_text())
        try:
            process.kill()
            process.wait()
            inner.assert_nothing_left(within=ENGINE_END_S)
            os.kill(child, 0)  # it was alive all along
        finally:
            os.kill(child, signal.SIGKILL)


# --- in this process --------------------------------------------------------------------


def descriptors() -> dict[str, str]:
    """What is open: number to target."""
    # A socket that is garbage is no leak of a descriptor; its warning is another matter.
    gc.collect()
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the directory's own
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


SESSION = """
    import pytest

    from pytest_tcpresilience import ExpectationFailed, detects_break

    def test_reset(client, link):
        with detects_break(link, within=5, raises=ConnectionResetError):
            link.reset()
            client.recv(1)

    @pytest.mark.resilience(slack=0.1)
    def test_rescue(client, link):
        with pytest.raises(ExpectationFailed, match="had to be woken"):
            with detects_break(link, within=0.1):
                link.silent_drop()
                client.recv(1)

    def test_toxiproxy(toxiproxy):
        toxiproxy.create(name="left", upstream="127.0.0.1:9")

    def test_unhit(client, link):
        link.silent_drop(when_idle=60)

    def test_engine_dies(link):
        link._engine._process.kill()

    def test_engine_is_replaced(link):
        assert link.engine_alive
"""


def test_descriptors_and_threads_of_the_process(request: pytest.FixtureRequest) -> None:
    inner: Inner = request.getfixturevalue("inner")
    echo_server = request.getfixturevalue("echo_server")
    # What the first session opens once, such as by its imports, is no news afterwards.
    inner.run("def test_link(link): pass").assert_outcomes(passed=1)
    before = descriptors(), set(threading.enumerate())
    result = inner.run(SESSION)
    result.assert_outcomes(passed=6, errors=2)
    result.stdout.fnmatch_lines(
        [
            "E * the scheduled silent_drop never hit",
            "E * the engine died; the client under test is not to blame",
        ]
    )
    assert len(inner.engines) == 3
    inner.assert_nothing_left()
    # The server keeps the other ends of the links until it is closed.
    own = {str(sock.fileno()) for sock in echo_server.accepted}
    left = {fd: target for fd, target in descriptors().items() if fd not in own}
    assert left.items() <= before[0].items()
    names = {thread.name for thread in set(threading.enumerate()) - before[1]}
    assert not [name for name in names if name.startswith("tcpresilience")]
    echo_server.close()
    assert set(threading.enumerate()) <= before[1]
