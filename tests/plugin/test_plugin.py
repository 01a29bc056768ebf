"""The plugin as a session of pytest meets it: options, reports, fixtures, engines."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import pytest

from pytest_tcpresilience.kernel import capabilities
from pytest_tcpresilience.kernel.capabilities import Capabilities
from pytest_tcpresilience.settings import MARKED, OPTIONS, Option
from tests.inner import Inner
from tests.servers import EchoServer

# --- settings ---------------------------------------------------------------------------

ORIGINS = ("ini", "environment", "command line", "marker")
by_option = pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)


def ini(inner: Inner, **values: object) -> None:
    lines = [f"{option.ini} = {values[option.name]}" for option in OPTIONS if option.name in values]
    inner.pytester.makeini("\n".join(["[pytest]", *lines]))


@pytest.mark.parametrize("given", range(len(ORIGINS) + 1), ids=["nothing", *ORIGINS])
def test_each_origin_of_a_setting_overrides_the_one_before(
    inner: Inner, monkeypatch: pytest.MonkeyPatch, given: int
) -> None:
    """Every origin up to ``given`` sets every option, each to a value of its own."""
    values = {
        origin: {option.name: 20.0 + 5 * i + j for j, option in enumerate(OPTIONS)}
        for i, origin in enumerate(ORIGINS[:given])
    }
    values.get("marker", {}).pop("long_wait", None)  # the session's, and no test's
    expected = {option.name: option.default for option in OPTIONS}
    for origin in ORIGINS[:given]:
        expected |= values[origin]
    expected |= {"wait": 0.0, "complete": False}
    ini(inner, **values.get("ini", {}))
    args = []
    for option in OPTIONS:
        if "environment" in values:
            monkeypatch.setenv(option.variable, str(values["environment"][option.name]))
        if "command line" in values:
            args.append(f"{option.flag}={values['command line'][option.name]}")
    result = inner.run(
        f"""
        import dataclasses
        import pytest

        @pytest.mark.resilience(**{values.get("marker", {})})
        def test_settings(link):
            assert dataclasses.asdict(link.settings) == {expected}
        """,
        *args,
    )
    result.assert_outcomes(passed=1)


def test_the_closest_marker_wins_and_the_others_fill_in(inner: Inner) -> None:
    result = inner.run(
        """
        import pytest

        pytestmark = pytest.mark.resilience(slack=1, hit_timeout=2)

        @pytest.mark.resilience(slack=3)
        class TestClass:
            @pytest.mark.resilience(slack=4)
            def test_function(self, link):
                assert (link.settings.slack, link.settings.hit_timeout) == (4, 2)

            def test_class(self, link):
                assert (link.settings.slack, link.settings.hit_timeout) == (3, 2)

        def test_module(link):
            assert (link.settings.slack, link.settings.hit_timeout) == (1, 2)
        """
    )
    result.assert_outcomes(passed=3)


def assert_refused(result: pytest.RunResult, origin: str, value: str) -> None:
    """One usage error before any test, without a traceback."""
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (error,) = (line for line in result.errlines if line.startswith("ERROR: "))
    assert error.startswith(f"ERROR: {origin}: ")
    assert error.endswith(" is no time")
    assert f"'{value}'" in error
    result.stderr.fnmatch_lines(["  expected: seconds greater than 0", f"  to do: *{origin}"])
    result.stderr.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*passed*")


BAD = ["soon", "0", "-1", "inf", "nan"]


@by_option
@pytest.mark.parametrize("value", BAD)
def test_a_bad_value_on_the_command_line(inner: Inner, option: Option, value: str) -> None:
    result = inner.run("def test_nothing(): pass", f"{option.flag}={value}")
    assert_refused(result, option.flag, value)


@by_option
def test_a_bad_value_in_the_environment(
    inner: Inner, option: Option, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(option.variable, "soon")
    result = inner.run("def test_nothing(): pass")
    assert_refused(result, f"environment variable {option.variable}", "soon")


@by_option
def test_a_bad_value_in_the_ini_file(inner: Inner, option: Option) -> None:
    ini(inner, **{option.name: "soon"})
    result = inner.run("def test_nothing(): pass")
    assert_refused(result, f"ini option {option.ini}", "soon")


def test_a_bad_value_that_is_overridden_does_no_harm(inner: Inner) -> None:
    ini(inner, slack="soon")
    result = inner.run("def test_nothing(): pass", "--resilience-slack=1")
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("slack=0", "@pytest.mark.resilience(slack=…): 0 is no time"),
        ("slack=True", "@pytest.mark.resilience(slack=…): True is no time"),
        ("hit_timeout='soon'", "@pytest.mark.resilience(hit_timeout=…): 'soon' is no time"),
        ("engine_timeout=None", "@pytest.mark.resilience(engine_timeout=…): None is no time"),
        ("slak=1", "@pytest.mark.resilience: cannot use slak"),
        ("1.5", "@pytest.mark.resilience: cannot use 1.5"),
    ],
)
@pytest.mark.parametrize("fixture", ["tcp_link", "toxiproxy"])
def test_a_bad_marker_is_an_error_of_its_test_alone(
    inner: Inner, arguments: str, message: str, fixture: str
) -> None:
    result = inner.run(
        f"""
        import pytest

        @pytest.mark.resilience({arguments})
        def test_marked({fixture}):
            raise AssertionError("the body ran")

        def test_other():
            pass
        """
    )
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines([f"E * pytest_tcpresilience.errors.UsageError: {message}"])
    result.stdout.no_fnmatch_line("*the body ran")


# --- what pytest lists ------------------------------------------------------------------


@by_option
def test_help_lists_each_option_and_ini_name(inner: Inner, option: Option) -> None:
    result = inner.show("--help")
    text = " ".join(result.stdout.str().split())
    described = f"{option.help} (default: {option.default:g})"
    assert f"{option.flag}=SECONDS {described}" in text
    assert re.search(rf"{option.ini} \(\w+\): {re.escape(described)}", text)


def test_markers_lists_the_marker_with_its_arguments(inner: Inner) -> None:
    result = inner.show("--markers")
    result.stdout.fnmatch_lines([f"@pytest.mark.resilience({', '.join(MARKED)}): *"])


def test_the_marker_is_known_to_strict_sessions(inner: Inner) -> None:
    result = inner.run(
        """
        import pytest

        @pytest.mark.resilience(slack=1)
        def test_nothing():
            pass
        """,
        "--strict-markers",
    )
    result.assert_outcomes(passed=1)


def test_fixtures_lists_the_fixtures_and_what_they_are_for(inner: Inner) -> None:
    result = inner.show("--fixtures")
    for name, purpose in (
        ("recording_server", "An upstream that echoes lines and remembers them: *"),
        ("tcp_link", "Factory of links: *"),
        ("toxiproxy", "toxiproxy-python's ``Toxiproxy`` object, *"),
    ):
        result.stdout.fnmatch_lines([f"{name} -- *", f"    {purpose}"])


# --- the header -------------------------------------------------------------------------


def header(inner: Inner) -> str:
    result = inner.run("def test_nothing(): pass")
    result.assert_outcomes(passed=1)
    (line,) = (line for line in result.outlines if line.startswith("tcpresilience: "))
    return line


def test_the_header_names_engine_and_kernel(inner: Inner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "probe", Capabilities)
    assert header(inner) == f"tcpresilience: embedded engine, {capabilities.kernel_name()}"


def test_the_header_names_what_is_missing_and_why(
    inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "TCP_MD5SIG (IPv4): Protocol not available"
    found = Capabilities({"heal": reason, "silence": reason}, ("no IPv6 loopback (down)",))
    monkeypatch.setattr(capabilities, "probe", lambda: found)
    assert header(inner).endswith(f"; cannot do heal, silence ({reason}); no IPv6 loopback (down)")


# --- what it costs ----------------------------------------------------------------------

HEAVY = ("trio", "toxiproxy", "urllib3", "requests", "h11")
SPY = """
    import json
    import sys

    import psutil
    import pytest

    def note(when):
        children = [child.cmdline() for child in psutil.Process().children(recursive=True)]
        modules = [name for name in {heavy!r} if name in sys.modules]
        with open("spied.jsonl", "a") as file:
            file.write(json.dumps([when, children, modules]) + "\\n")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish():
        note("sessionfinish")

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure():
        note("unconfigure")
"""


def spied(inner: Inner, source: str) -> list[Any]:
    """What a session has started and imported, at its end. Only a new process can tell."""
    inner.pytester.makeconftest(SPY.format(heavy=HEAVY))
    result = inner.run_subprocess(source)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["tcpresilience: embedded engine, *"])
    lines = (inner.pytester.path / "spied.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_session_without_links_starts_nothing_and_imports_nothing_heavy(inner: Inner) -> None:
    seen = spied(inner, "def test_nothing(): pass")
    assert seen == [["sessionfinish", [], []], ["unconfigure", [], []]]


def test_the_public_names_import_nothing_heavy(inner: Inner) -> None:
    seen = spied(
        inner,
        """
        from pytest_tcpresilience import Keepalive, detects_break

        def test_nothing():
            assert Keepalive(idle=1, interval=1, probes=3)
            assert detects_break
        """,
    )
    assert seen == [["sessionfinish", [], []], ["unconfigure", [], []]]


def test_the_spy_sees_a_session_with_links(inner: Inner) -> None:
    """Else the two tests above would pass for a spy that is blind."""
    seen = spied(inner, "def test_link(tcp_link): tcp_link('127.0.0.1:9')")
    (_, children, modules), _ = seen
    assert len(children) == 1
    assert "urllib3" in modules


# --- links ------------------------------------------------------------------------------


def test_several_links_in_one_test_are_independent(inner: Inner) -> None:
    result = inner.run(
        """
        import socket

        def test_two(client, link, tcp_link):
            other = tcp_link(link.upstream.address)
            assert other.address != link.address
            link.silent_drop()
            with socket.create_connection((other.host, other.port)) as sock:
                sock.sendall(b"alive")
                assert sock.recv(5, socket.MSG_WAITALL) == b"alive"
                assert [len(each.connections) for each in (link, other)] == [1, 1]
        """
    )
    result.assert_outcomes(passed=1)
    inner.assert_nothing_left()


def test_one_engine_carries_the_links_of_a_session(inner: Inner) -> None:
    result = inner.run(
        """
        def test_first(link): pass
        def test_second(link): pass
        """
    )
    result.assert_outcomes(passed=2)
    assert len(inner.engines) == 1


@pytest.mark.parametrize(
    "use",
    ["silent_drop()", "events", "connections"],
)
def test_a_link_cannot_be_used_after_its_test(inner: Inner, use: str) -> None:
    result = inner.run(
        f"""
        kept = []

        def test_first(link):
            kept.append(link)

        def test_second():
            kept[0].{use}
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E * pytest_tcpresilience.errors.UsageError: link-1 has ended",
            "E * expected: *a link of the running test",
            "E * happened: *it ended with the test that made it",
            "E * to do: *make a link in each test; tcp_link is cheap",
        ]
    )


@pytest.mark.parametrize(
    ("upstream", "happened"),
    [
        ("'localhost'", "no port"),
        ("'localhost:port'", "*port*"),
        ("'localhost:0'", "0 is no port from 1 to 65535"),
        ("'user@localhost:1'", "more than a host and a port"),
        ("'gopher://localhost'", "no port, and none is known for gopher://"),
        ("('localhost', '80')", "'80' is no port from 1 to 65535"),
        ("('', 80)", "'' is no host name or address"),
        ("80", "a int is no address"),
        ("None", "a NoneType is no address"),
    ],
)
def test_a_malformed_upstream(inner: Inner, upstream: str, happened: str) -> None:
    result = inner.run(f"def test_malformed(tcp_link): tcp_link({upstream})")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            f"E * pytest_tcpresilience.errors.UsageError: malformed upstream {upstream}",
            f"E * happened: *{happened}",
        ]
    )


@pytest.mark.parametrize(
    ("upstream", "url"),
    [
        ("redis://user:pw@host:1/0", "redis://user:pw@{address}/0"),
        ("redis://user:pw@host", "redis://user:pw@{address}"),
        ("http://[::1]:8080/a?b=c#d", "http://{address}/a?b=c#d"),
        ("postgresql://u:p%40w@db/name?sslmode=disable", "postgresql://u:p%40w@{address}/name?"),
        ("localhost:1", "tcp://{address}"),
        ("[::1]:1", "tcp://{address}"),
    ],
)
def test_the_url_keeps_all_but_the_address(inner: Inner, upstream: str, url: str) -> None:
    result = inner.run(
        f"""
        def test_url(tcp_link):
            link = tcp_link({upstream!r})
            assert link.address == f"127.0.0.1:{{link.port}}"
            assert link.url.startswith({url!r}.format(address=link.address))
            assert link.url.endswith({upstream!r}.partition("?")[2])
        """
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("loopback", ["::1"], indirect=True)
def test_an_ipv6_link_has_brackets_in_its_url(inner: Inner, loopback: str) -> None:
    result = inner.run(
        f"""
        def test_url(tcp_link):
            link = tcp_link("redis://user:pw@host:1/0", host={loopback!r})
            assert link.host == {loopback!r}
            assert link.url == f"redis://user:pw@[::1]:{{link.port}}/0"
        """
    )
    result.assert_outcomes(passed=1)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_an_upstream_that_refuses_is_a_warning_with_its_address(inner: Inner) -> None:
    port = unused_port()
    result = inner.run(
        f"""
        import socket

        import pytest

        def test_refused(tcp_link):
            link = tcp_link("127.0.0.1:{port}")
            with socket.create_connection((link.host, link.port)) as sock:
                with pytest.raises(ConnectionResetError):
                    sock.recv(1)
        """,
        "-W",
        "default::pytest_tcpresilience.UpstreamUnreachableWarning",
    )
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(
        [f"*UpstreamUnreachableWarning: link-1: the upstream 127.0.0.1:{port} failed: *refused*"]
    )


# --- scheduled faults -------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["when_idle", "after"])
def test_a_scheduled_fault_that_never_hit_fails_the_test(inner: Inner, schedule: str) -> None:
    result = inner.run(f"def test_idle(client, link): link.reset({schedule}=60)")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_idle*",
            "E * pytest_tcpresilience.errors.UsageError: the scheduled reset never hit",
            "E * to do: *fault.wait_until_hit()*",
        ]
    )


def test_a_scheduled_fault_that_hit_or_was_lifted_is_fine(inner: Inner) -> None:
    result = inner.run(
        """
        def test_hit(client, link):
            link.reset(after=0.01).wait_until_hit()

        def test_lifted(client, link):
            with link.silent_drop(when_idle=60):
                pass
        """
    )
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("source", "outcomes"),
    [
        pytest.param("def test_it(fault): assert False, 'news'", {"failed": 1}, id="failed"),
        pytest.param("def test_it(broken): pass", {"errors": 1}, id="failed in its setup"),
        pytest.param(
            "def test_it(fault): pytest.skip('news')", {"skipped": 1}, id="skipped in its middle"
        ),
        pytest.param(
            "@pytest.mark.xfail\ndef test_it(fault): assert False, 'news'",
            {"xfailed": 1},
            id="failed as expected",
        ),
    ],
)
def test_a_fault_that_never_hit_is_no_news_after_a_test_that_did_not_pass(
    inner: Inner, source: str, outcomes: dict[str, int]
) -> None:
    fixtures = """
import pytest

@pytest.fixture
def fault(client, link):
    return link.silent_drop(when_idle=60)

@pytest.fixture
def broken(fault):
    assert False, 'news'

"""
    result = inner.run(fixtures + source, "-rA")
    result.assert_outcomes(**outcomes)
    result.stdout.fnmatch_lines(["*news*"])
    result.stdout.no_fnmatch_line("*never hit*")


# --- the toxiproxy fixture --------------------------------------------------------------


def test_the_toxiproxy_fixture_speaks_to_the_engine_and_cleans_up(
    inner: Inner, echo_server: EchoServer
) -> None:
    result = inner.run(
        f"""
        import socket

        from toxiproxy import Toxiproxy
        from toxiproxy.api import APIConsumer

        def test_proxy(link, toxiproxy):
            assert isinstance(toxiproxy, Toxiproxy)
            assert toxiproxy.running()
            assert set(toxiproxy.proxies()) == {{"link-1"}}
            toxiproxy.create(name="mine", upstream="127.0.0.1:{echo_server.port}")
            listen = toxiproxy.get_proxy("mine").listen
            host, _, port = listen.rpartition(":")
            with socket.create_connection((host, int(port))) as sock:
                sock.sendall(b"alive")
                assert sock.recv(5, socket.MSG_WAITALL) == b"alive"
            assert APIConsumer.port == link._engine.port

        def test_afterwards(toxiproxy):
            assert toxiproxy.proxies() == {{}}

        def test_without():
            assert APIConsumer.port == 8474
        """
    )
    result.assert_outcomes(passed=3)
    inner.assert_nothing_left()


# --- engines that die -------------------------------------------------------------------

# Dead once it is reaped; until then the next call might still reach it.
KILL = """
import os

from pytest_tcpresilience import detects_break

def kill_engine(link):
    os.kill(link._engine.pid, 9)
    link._engine._process.wait(10)

def test_next(client):
    client.sendall(b"again")
    assert client.recv(1) == b"a"
"""
DIED = "pytest_tcpresilience.errors.EngineDied: the engine died; the client under test is not *"


@pytest.mark.parametrize(
    ("body", "outcomes"),
    [
        pytest.param("kill_engine(link)", {"passed": 2, "errors": 1}, id="noticed at teardown"),
        pytest.param(
            "kill_engine(link); link.events", {"passed": 1, "failed": 1}, id="noticed by a call"
        ),
        pytest.param(
            "with detects_break(link, within=5): kill_engine(link); client.recv(1)",
            {"passed": 1, "failed": 1},
            id="noticed by an expectation",
        ),
        pytest.param(
            "with detects_break(link, within=5): link.silent_drop(); kill_engine(link); "
            "client.recv(1)",
            {"passed": 1, "failed": 1},
            id="behind a cut",
        ),
        pytest.param(
            "other = tcp_link('127.0.0.1:9'); kill_engine(link)",
            {"passed": 2, "errors": 1},
            id="with two links",
        ),
    ],
)
def test_an_engine_that_dies_is_reported_once_and_replaced(
    inner: Inner, body: str, outcomes: dict[str, int]
) -> None:
    killer = f"def test_killer(client, link, tcp_link):\n    {body}\n"
    result = inner.run(KILL.replace("def test_next", f"{killer}\ndef test_next"))
    result.assert_outcomes(**outcomes)
    result.stdout.fnmatch_lines(
        [
            f"E * {DIED}",
            "E * expected: *engine process * to live until the end of the session",
            "E * happened: *it was killed by signal 9; its last words:",
            "E * (it said nothing)",
            "E * to do: *the next link starts a new engine*",
        ]
    )
    assert (
        len([line for line in result.outlines if line.startswith("E ") and DIED[:-1] in line]) == 1
    )
    assert len(inner.engines) == 2
    inner.assert_nothing_left()


def test_a_dead_engines_last_words_are_in_the_report(inner: Inner) -> None:
    result = inner.run(
        KILL
        + """
def test_words(link):
    os.write(link._engine._process._words.fileno(), b"Traceback: out of cheese\\n")
    kill_engine(link)
    """
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["E * its last words:", "E * Traceback: out of cheese"])


# --- other plugins ----------------------------------------------------------------------


def test_named_explicitly_where_plugins_are_not_loaded_by_themselves(
    inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = inner.run_subprocess(
        """
        from pytest_tcpresilience import detects_break

        def test_reset(client, link):
            with detects_break(link, within=5, raises=ConnectionResetError):
                link.reset()
                client.recv(1)
        """,
        "-p",
        "pytest_tcpresilience.plugin",
    )
    result.assert_outcomes(passed=1)
    inner.assert_nothing_left()


ASYNCIO = """
    import asyncio

    import pytest

    from pytest_tcpresilience import detects_break

    {marker}
    async def test_reset(link):
        reader, writer = await asyncio.open_connection(link.host, link.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        with detects_break(link, within=5, raises=ConnectionResetError) as detection:
            link.reset(after=0.05)
            await reader.read(1)
        assert detection.mechanism == "reset"
        writer.close()
"""


@pytest.mark.parametrize(
    ("mode", "marker"), [("strict", "@pytest.mark.asyncio"), ("auto", "")], ids=["strict", "auto"]
)
def test_in_a_test_of_pytest_asyncio(inner: Inner, mode: str, marker: str) -> None:
    pytest.importorskip("pytest_asyncio")
    result = inner.run(ASYNCIO.format(marker=marker), "-o", f"asyncio_mode={mode}")
    result.assert_outcomes(passed=1)
    inner.assert_nothing_left()


def test_in_a_test_of_pytest_trio(inner: Inner) -> None:
    pytest.importorskip("pytest_trio")
    result = inner.run(
        """
        import pytest
        import trio

        from pytest_tcpresilience import detects_break

        @pytest.mark.trio
        async def test_reset(link):
            async with await trio.open_tcp_stream(link.host, link.port) as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some(5) == b"hello"
                with detects_break(link, within=5, raises=trio.BrokenResourceError) as detection:
                    link.reset(after=0.05)
                    await stream.receive_some(1)
            assert detection.mechanism == "reset"
        """
    )
    result.assert_outcomes(passed=1)
    inner.assert_nothing_left()


def test_a_marker_is_checked_without_a_link(inner: Inner) -> None:
    result = inner.run(
        """
        import pytest

        @pytest.mark.resilience(patience=1)
        def test_it():
            pass
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*@pytest.mark.resilience: cannot use patience*"])
