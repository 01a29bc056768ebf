"""With pytest-xdist: all workers of a run share one engine, which ends with the run."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import psutil
import pytest

from pytest_tcpresilience import plugin
from pytest_tcpresilience.fixtures import HANDED_OVER
from tests.inner import LEAN, Inner

pytest.importorskip("xdist")

ENGINE_END_S = 5.0
START_S = 30.0

SUITE = """
    import time

    import pytest

    from pytest_tcpresilience import ExpectationFailed, detects_break

    pytestmark = pytest.mark.resilience(slack=0.2)

    @pytest.mark.parametrize("number", range(4))
    def test_reset(client, link, number):
        with detects_break(link, within=5, raises=ConnectionResetError) as detection:
            link.reset(after=0.02)
            client.recv(1)
        assert detection.mechanism == "reset"

    @pytest.mark.parametrize("number", range(2))
    def test_its_own_timeout(client, link, number):
        client.settimeout(0.1)
        with detects_break(link, within=5) as detection:
            link.silent_drop()
            client.recv(1)
        assert detection.mechanism == "own_timeout"

    def test_hanging(client, link):
        with detects_break(link, within=0.2):
            link.silent_drop()
            client.recv(1)

    def test_unhit(client, link):
        link.silent_drop(when_idle=60)
"""


def assert_suite(result: pytest.RunResult) -> None:
    result.assert_outcomes(passed=7, failed=1, errors=1)
    result.stdout.fnmatch_lines(["tcpresilience: embedded engine, *"])
    text = result.stdout.str()
    assert "ExpectationFailed: the client did not notice the silent_drop" in text
    assert "had to be woken" in text
    assert "UsageError: the scheduled silent_drop never hit" in text
    assert "INTERNALERROR" not in text


@pytest.mark.parametrize(
    "args", [["-n2"], ["-n0"], ["-p", "no:xdist"]], ids=["-n2", "-n0", "-p no:xdist"]
)
def test_the_same_outcomes_in_every_mode(inner: Inner, args: list[str]) -> None:
    result = inner.run_subprocess(SUITE, *args)
    assert_suite(result)
    assert len(inner.engines) == 1
    inner.assert_nothing_left()


def test_workers_take_their_settings_from_the_command_line(inner: Inner) -> None:
    result = inner.run_subprocess(
        """
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_settings(link, number):
            assert link.settings.slack == 0.25
        """,
        "-n2",
        "--resilience-slack=0.25",
    )
    result.assert_outcomes(passed=4)
    inner.assert_nothing_left()


def test_a_bad_setting_is_a_usage_error_and_starts_no_worker(inner: Inner) -> None:
    result = inner.run_subprocess("def test_nothing(): pass", "-n2", "--resilience-slack=soon")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --resilience-slack: 'soon' is no time"])
    result.stdout.no_fnmatch_line("*worker*")


CRASHING = """
    import os
    import pathlib
    import socket
    import time

    import pytest

    path = pathlib.Path({path!r})

    def still_listens(port):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return False
        return True

    def test_crashing(client, link):
        link.silent_drop()
        path.write_text(str(link.port))
        os._exit(3)

    @pytest.mark.parametrize("number", range(6))
    def test_others(client, link, number):
        client.sendall(b"alive")
        assert client.recv(1) == b"a"

    def test_the_crashed_ones_link_ends():
        deadline = time.monotonic() + 10
        while not (path.exists() and path.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        while still_listens(int(path.read_text())):
            assert time.monotonic() < deadline
            time.sleep(0.01)
"""


def test_a_crashed_workers_links_end_and_the_others_go_on(inner: Inner) -> None:
    path = str(inner.pytester.path / "port")
    result = inner.run_subprocess(CRASHING.format(path=path), "-n2")
    result.assert_outcomes(passed=7, failed=1)
    result.stdout.fnmatch_lines(["*worker 'gw?' crashed while running '*::test_crashing'"])
    assert len(inner.engines) == 1
    inner.assert_nothing_left()


def test_a_crashed_workers_successor_shares_the_engine(inner: Inner) -> None:
    result = inner.run_subprocess(
        """
        import os

        def test_crashing(client, link):
            os._exit(3)

        def test_other(client):
            client.sendall(b"alive")
            assert client.recv(1) == b"a"
        """,
        "-n1",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*replacing crashed worker gw0*", "*worker 'gw0' crashed*"])
    assert len(inner.engines) == 1
    inner.assert_nothing_left()


def test_a_shared_engine_that_dies_is_reported_and_replaced(inner: Inner) -> None:
    result = inner.run_subprocess(
        """
        import os

        from pytest_tcpresilience import detects_break

        def test_killing(client, link):
            os.kill(link._engine.pid, 9)
            link._engine._process.wait(10)

        def test_killing_behind_a_cut(client, link):
            with detects_break(link, within=5):
                link.silent_drop()
                os.kill(link._engine.pid, 9)
                client.recv(1)

        def test_next(client):
            client.sendall(b"again")
            assert client.recv(1) == b"a"
        """,
        "-n1",
    )
    result.assert_outcomes(passed=2, failed=1, errors=1)
    assert result.stdout.str().count("EngineDied: the engine died; the client under test") == 2
    result.stdout.fnmatch_lines(["E * it was killed by signal 9; its last words:"])
    result.stdout.fnmatch_lines(["E * (it said nothing)"])
    assert len(inner.engines) == 3
    inner.assert_nothing_left()


def test_an_engine_that_cannot_live_is_given_up(inner: Inner) -> None:
    inner.pytester.makepyfile(
        conftest_of_the_controller="""
        from pytest_tcpresilience.control import process

        process._BOOT = "raise SystemExit('no engine today')"
        """
    )
    result = inner.run_subprocess(
        "def test_link(link): pass", "-n1", "-p", "conftest_of_the_controller"
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E * the run's shared engine cannot be used"])
    result.stdout.fnmatch_lines(
        ["tcpresilience: the run's shared engine could not live. *status 1*", "no engine today"]
    )


def test_two_workers_may_use_the_same_names(inner: Inner) -> None:
    result = inner.run_subprocess(
        """
        import pytest

        @pytest.mark.parametrize("number", range(8))
        def test_names(toxiproxy, link, number):
            proxy = toxiproxy.create(name="redis", upstream="127.0.0.1:9")
            proxy.add_toxic(type="latency", attributes={"latency": number})
            assert set(toxiproxy.proxies()) == {"redis", link.name}
            assert proxy.get_toxic("latency_downstream").attributes["latency"] == number
            toxiproxy.reset()
            assert not proxy.toxics()
        """,
        "-n2",
    )
    result.assert_outcomes(passed=8)
    assert len(inner.engines) == 1
    inner.assert_nothing_left()


def test_a_run_without_links_starts_no_engine(inner: Inner) -> None:
    result = inner.run_subprocess(
        """
        import psutil

        def test_nothing():
            controller = psutil.Process().parent()
            assert [child.pid for child in controller.children()] == [psutil.Process().pid]
        """,
        "-n1",
    )
    result.assert_outcomes(passed=1)


BLOCKED = """
    import pytest

    from pytest_tcpresilience import detects_break

    @pytest.mark.parametrize("number", range(2))
    def test_blocked(client, link, number):
        with detects_break(link, within=60):
            link.silent_drop()
            client.recv(1)
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.parametrize("victim", ["controller", "worker"])
def test_nothing_is_left_when_one_is_killed(inner: Inner, victim: str) -> None:
    inner.pytester.makepyfile(BLOCKED)
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", *LEAN, "-n2", "--max-worker-restart=0"],
        cwd=inner.pytester.path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    workers: list[psutil.Process] = []
    try:
        controller = psutil.Process(run.pid)
        wait_for(lambda: inner.links == 2, "two links")
        workers = [each for each in controller.children() if each.pid not in inner.engines]
        if victim == "controller":
            run.kill()
        else:
            for worker in workers:
                worker.kill()
        run.wait(START_S)
        inner.assert_nothing_left(within=ENGINE_END_S)
    finally:
        run.kill()
        run.wait()
        for worker in workers:  # those of a killed controller take their time
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()


@pytest.mark.parametrize(
    ("spec", "shared"),
    [
        ("popen", True),
        ("popen//chdir=elsewhere//python=python3", True),
        ("popen//via=proxy", False),
        ("socket=127.0.0.1:1", False),
        ("ssh=somebody@192.0.2.1", False),
    ],
)
def test_only_workers_on_this_machine_share_the_engine(
    pytester: pytest.Pytester, spec: str, shared: bool
) -> None:
    execnet = pytest.importorskip("execnet")
    pytester.makeini("[pytest]")
    config = pytester.parseconfig()
    gateway = SimpleNamespace(spec=execnet.XSpec(spec))
    node = SimpleNamespace(config=config, gateway=gateway, workerinput={"workercount": 2})
    try:
        plugin.pytest_configure_node(node)
        assert (HANDED_OVER in node.workerinput) is shared
    finally:
        plugin.pytest_unconfigure(config)
