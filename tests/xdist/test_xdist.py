"""With pytest-xdist: each worker has an engine of its own, which ends with it."""

from __future__ import annotations

import pytest

from tests.inner import Inner

pytest.importorskip("xdist")

ENGINE_END_S = 5.0

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
    ("args", "engines"),
    [(["-n2"], 2), (["-n0"], 1), (["-p", "no:xdist"], 1)],
    ids=["-n2", "-n0", "-p no:xdist"],
)
def test_the_same_outcomes_in_every_mode(inner: Inner, args: list[str], engines: int) -> None:
    result = inner.run_subprocess(SUITE, *args)
    assert_suite(result)
    assert len(inner.engines) == engines
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


def test_a_worker_that_crashes_takes_its_engine_with_it_and_is_replaced(inner: Inner) -> None:
    result = inner.run_subprocess(
        """
        import os

        import pytest

        def test_crashing(client, link):
            link.silent_drop()
            os._exit(3)

        @pytest.mark.parametrize("number", range(6))
        def test_others(client, link, number):
            client.sendall(b"alive")
            assert client.recv(1) == b"a"
        """,
        "-n2",
    )
    result.assert_outcomes(passed=6, failed=1)
    result.stdout.fnmatch_lines(["*worker 'gw?' crashed while running '*::test_crashing'"])
    # At least the crashed worker's and another's; its successor may find nothing to do.
    assert len(inner.engines) >= 2
    inner.assert_nothing_left(within=ENGINE_END_S)


def test_a_crashed_workers_successor_has_an_engine_of_its_own(inner: Inner) -> None:
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
    assert len(inner.engines) == 2
    inner.assert_nothing_left(within=ENGINE_END_S)
