"""What a failure prints: short enough for a log, all of it with -vv, nothing on success."""

from __future__ import annotations

import pytest

from tests.inner import Inner

STORM = """
    import socket
    from pytest_tcpresilience import recovers

    def test_storm(link, client):
        with recovers(link, within=5):
            link.reset()
            for _ in range(40):
                with socket.create_connection((link.host, link.port)) as sock:
                    sock.sendall(b"x")
                    assert sock.recv(1) == b"x"
"""


def timeline(result: pytest.RunResult) -> list[str]:
    """The lines of the failure that carry a time."""
    return [line for line in result.outlines if line.startswith("E") and " s  " in line]


@pytest.mark.parametrize("verbosity", ["-q", "-v"])
def test_the_middle_of_a_long_timeline_is_left_out(inner: Inner, verbosity: str) -> None:
    result = inner.run(STORM, verbosity)
    result.assert_outcomes(failed=1)
    assert len(timeline(result)) == 24
    result.stdout.re_match_lines([r"E .*… \d+ more \(pytest -vv shows them\) …"])
    result.stdout.fnmatch_lines(["E *ExpectationFailed: a reconnect storm: 40 new connections *"])


def test_all_of_it_with_vv(inner: Inner) -> None:
    result = inner.run(STORM, "-vv")
    result.assert_outcomes(failed=1)
    lines = timeline(result)
    assert sum(line.rpartition(": ")[2].startswith("opened by") for line in lines) == 41
    result.stdout.no_fnmatch_line("*pytest -vv*")
    times = [float(line.split()[1]) for line in lines]
    assert times == sorted(times)


def test_nothing_is_printed_on_success(inner: Inner) -> None:
    result = inner.run(
        """
        from pytest_tcpresilience import closes_within, detects_break, recovers

        def test_fine(link, client):
            with detects_break(link, within=1):
                link.reset()
                client.recv(1)
            with closes_within(link, 1):
                client.close()
        """,
        "-rA",
    )
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*opened by*")
    result.stdout.no_fnmatch_line("*Captured*")
