"""The fixture ``virtual_tcp`` in a session: what a failure shows, and what is refused."""

from __future__ import annotations

import pytest

STRICT = ("-W", "error", "-p", "no:asyncio", "-p", "no:hypothesispytest")


def run(pytester: pytest.Pytester, source: str) -> pytest.RunResult:
    pytester.makeini("[pytest]")
    pytester.makepyfile(source)
    return pytester.runpytest_inprocess(*STRICT)


def test_a_failed_test_shows_its_last_segments(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
        import trio

        def test_it(virtual_tcp):
            async def main():
                with virtual_tcp.host("server"):
                    await trio.open_tcp_listeners(7)
                for _ in range(20):
                    await trio.open_tcp_stream("server", 7)
                assert False
            virtual_tcp.run(main)
        """,
    )
    outcome.assert_outcomes(failed=1)
    outcome.stdout.fnmatch_lines(
        ["*virtual TCP trace*", "(20 earlier segments)", "*client.* > server.7: Flags [[]S], *"]
    )


def test_a_fault_that_never_hit_fails_the_test(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
        def test_it(virtual_tcp):
            virtual_tcp.host("server")
            virtual_tcp("server:7").reset(when_idle=5)

            async def main():
                pass

            virtual_tcp.run(main)
        """,
    )
    outcome.assert_outcomes(passed=1, errors=1)
    outcome.stdout.fnmatch_lines(["*the scheduled reset never hit"])


def test_an_async_test_needs_virtual_time(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
        import pytest

        @pytest.mark.trio
        async def test_it(virtual_tcp):
            pass
        """,
    )
    outcome.assert_outcomes(failed=1)
    outcome.stdout.fnmatch_lines(["*add pytest-trio's autojump_clock fixture to the test*"])


def test_a_test_that_fails_in_virtual_time_fails_as_itself(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
        import pytest
        import trio

        @pytest.mark.trio
        async def test_it(virtual_tcp, autojump_clock):
            await trio.sleep(3600)
            assert trio.current_time() == 0
        """,
    )
    outcome.assert_outcomes(failed=1)
    outcome.stdout.fnmatch_lines(["*assert 3600* == 0"])
