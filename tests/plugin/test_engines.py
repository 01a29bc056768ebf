"""Sessions whose links lead through a Toxiproxy."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pytest_tcpresilience.engine_choice import CHOICES, ChoiceOption
from tests.contract.test_chain import STAND_IN, script, there, url_of
from tests.contract.test_serve import Served
from tests.inner import LEAN, Inner

GONE_S = 15.0

SUITE = """
    import time

    import pytest

    from pytest_tcpresilience import Keepalive, detects_break

    pytestmark = pytest.mark.resilience(slack=0.2)

    def test_a_toxic_happens_there(client, link, toxiproxy):
        with link.latency(50):
            assert list(toxiproxy.get_proxy(link.name).toxics())
            begun = time.monotonic()
            client.sendall(b"x")
            client.recv(1)
            assert time.monotonic() - begun >= 0.05
        assert not toxiproxy.get_proxy(link.name).toxics()

    def test_a_cut_happens_here(client, link):
        keepalive = Keepalive(idle=1, interval=1, probes=1)
        keepalive.apply(client)
        with detects_break(link, within=keepalive) as detection:
            link.silent_drop()
            client.recv(1)
        assert detection.mechanism == "keepalive"

    def test_a_hang_is_rescued(client, link):
        with detects_break(link, within=0.1):
            link.silent_drop()
            client.recv(1)

    @pytest.mark.parametrize("number", range(3))
    def test_others(client, link, toxiproxy, number):
        toxiproxy.create(name=f"{link.name}-own", upstream="127.0.0.1:9")
        client.sendall(b"x")
        assert client.recv(1) == b"x"
"""


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.process.kill()
    served.process.communicate()


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    return script(tmp_path / "toxiproxy-server", STAND_IN)


@pytest.mark.parametrize("workers", [["-p", "no:xdist"], ["-n0"], ["-n2"]], ids=" ".join)
def test_the_same_tests_with_one_that_runs_already(
    inner: Inner, served: Served, workers: list[str]
) -> None:
    url = url_of(served)
    result = inner.run_subprocess(SUITE, *workers, f"--resilience-engine={url}")
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines([f"tcpresilience: Toxiproxy 2.12.0 at {url} behind our hop, *"])
    result.stdout.fnmatch_lines(["*the client did not notice the silent_drop*"])
    assert there(served) == {}
    inner.assert_nothing_left()


@pytest.mark.parametrize("workers", [["-p", "no:xdist"], ["-n2"]], ids=" ".join)
def test_the_same_tests_with_one_of_the_runs_own(
    inner: Inner, stand_in: Path, workers: list[str]
) -> None:
    result = inner.run_subprocess(
        SUITE, *workers, "--resilience-engine=toxiproxy", f"--resilience-toxiproxy={stand_in}"
    )
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines([f"tcpresilience: Toxiproxy 2.12.0 ({stand_in}) behind our hop, *"])
    assert len(inner.engines) == 1
    inner.assert_nothing_left()


BLOCKED = """
    import pytest

    from pytest_tcpresilience import detects_break

    @pytest.mark.parametrize("number", range(2))
    def test_blocked(client, link, number):
        with detects_break(link, within=60):
            link.silent_drop()
            client.recv(1)
"""


@pytest.mark.parametrize("victim", ["controller", "workers"])
def test_nothing_is_left_there_when_one_is_killed(
    inner: Inner, served: Served, victim: str
) -> None:
    inner.pytester.makepyfile(BLOCKED)
    run = subprocess.Popen(
        [
            *(sys.executable, "-m", "pytest", *LEAN, "-n2", "--max-worker-restart=0"),
            f"--resilience-engine={url_of(served)}",
        ],
        cwd=inner.pytester.path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    workers: list[psutil.Process] = []
    try:
        controller = psutil.Process(run.pid)
        deadline = time.monotonic() + 30
        while inner.links < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        workers = [each for each in controller.children() if each.pid not in inner.engines]
        assert len(there(served)) == 2
        for each in [controller] if victim == "controller" else workers:
            each.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + GONE_S
        while there(served):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        run.wait(GONE_S)
        inner.assert_nothing_left(within=GONE_S)
    finally:
        run.kill()
        run.wait()
        for each in workers:
            if each.is_running():
                each.kill()


def test_one_that_dies_in_mid_test_is_to_blame_and_not_the_client(
    inner: Inner, served: Served
) -> None:
    result = inner.run_subprocess(
        f"""
        import os

        def test_killing(client, link):
            os.kill({served.process.pid}, 9)
            assert client.recv(1) == b""
            link.latency(5)

        def test_next(link):
            pass
        """,
        f"--resilience-engine={url_of(served)}",
    )
    result.assert_outcomes(failed=1, errors=1)
    text = result.stdout.str()
    assert text.count("is gone; the client under test is not to blame") == 2  # the test, teardown
    inner.assert_nothing_left()


def test_where_links_listen_and_how_clients_reach_them(inner: Inner) -> None:
    result = inner.run_subprocess(
        """
        def test_link(tcp_link):
            link = tcp_link("redis://127.0.0.1:9")
            assert link.host == "localhost"
            assert link.url == f"redis://localhost:{link.port}"
            (listen,) = [each["listen"] for each in link._engine.call("GET", "/proxies").values()]
            assert listen == f"0.0.0.0:{link.port}"
            own = tcp_link("redis://127.0.0.1:9", host="127.0.0.1")
            assert own.host == "127.0.0.1"
        """,
        "--resilience-listen=0.0.0.0",
        "--resilience-link-host=localhost",
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("option", CHOICES, ids=lambda option: option.name)
def test_each_option_is_in_the_help(inner: Inner, option: ChoiceOption) -> None:
    text = " ".join(inner.show("--help").stdout.str().split())
    described = f"{option.help} (default: {option.default or 'empty'})"
    assert f"{option.flag}={option.metavar} {described}" in text
    assert option.ini in text


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--resilience-engine=toxyproxy", "--resilience-engine: 'toxyproxy' cannot be used"),
        ("--resilience-toxiproxy-ports=9-1", "--resilience-toxiproxy-ports: '9-1' cannot be used"),
    ],
)
def test_a_bad_choice_is_a_usage_error(inner: Inner, flag: str, said: str) -> None:
    result = inner.run("def test_nothing(): pass", flag)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {said}"])
