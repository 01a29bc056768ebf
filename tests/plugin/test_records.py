"""Records leave a test on its reports, whatever becomes of the test. In virtual time."""

from __future__ import annotations

import json
import xml.etree.ElementTree as xml
from importlib import metadata
from pathlib import Path
from typing import cast

import pytest
import trio

from pytest_tcpresilience.records.record import Record
from pytest_tcpresilience.report import collecting, taking
from pytest_tcpresilience.report.document import Document, State

STRICT = ("-W", "error", "-p", "no:asyncio", "-p", "no:trio", "-p", "no:hypothesispytest")

# Everything that an inner test needs to break a connection in no time.
CONFTEST = """
    import contextlib

    import pytest
    import trio

    from pytest_tcpresilience import Keepalive, detects_break

    KEEPALIVE = Keepalive(idle=1, interval=1, probes=2)

    class World:
        def __init__(self, virtual):
            self.virtual = virtual
            self.link = virtual("server:7", client=self.client)

        client = ""

        def run(self, block):
            async def main():
                async with trio.open_nursery() as nursery:
                    with self.virtual.host("server"):
                        await nursery.start(trio.serve_tcp, self.serve, 7)
                    stream = await trio.open_tcp_stream("server", 7)
                    KEEPALIVE.apply(stream.socket)
                    await block(self.link, stream)
                    nursery.cancel_scope.cancel()

            self.virtual.run(main)

        async def serve(self, stream):
            with contextlib.suppress(trio.BrokenResourceError):
                async for data in stream:
                    await stream.send_all(data)

        def notices(self, within=KEEPALIVE):
            async def block(link, stream):
                with detects_break(link, within=within):
                    link.silent_drop()
                    await stream.receive_some()
            self.run(block)

    @pytest.fixture
    def world(virtual_tcp):
        virtual_tcp.host("server")
        return World(virtual_tcp)
"""


class Watch:
    """An inner session's plugin: what its controller would know."""

    def __init__(self) -> None:
        self.collector: collecting.Collector | None = None
        self.document = Document()

    def pytest_configure(self, config: pytest.Config) -> None:
        self.collector = collecting.Collector(config)
        config.pluginmanager.register(self.collector)

    def pytest_unconfigure(self) -> None:
        assert self.collector is not None
        self.document = self.collector.document()

    @property
    def records(self) -> tuple[Record, ...]:
        return self.document.records

    @property
    def only(self) -> Record:
        (record,) = self.records
        return record


@pytest.fixture
def watch(pytester: pytest.Pytester) -> Watch:
    pytester.makeini("[pytest]")
    pytester.makeconftest(CONFTEST)
    return Watch()


def run(pytester: pytest.Pytester, watch: Watch, source: str, *args: str) -> pytest.RunResult:
    pytester.makepyfile(test_it=source)
    return pytester.runpytest_inprocess(*STRICT, *args, plugins=[watch])


# --- what each expectation leaves ---------------------------------------------------------


def test_a_client_that_notices_leaves_a_record(pytester: pytest.Pytester, watch: Watch) -> None:
    outcome = run(pytester, watch, "def test_it(world):\n    world.notices()")
    outcome.assert_outcomes(passed=1)
    record = watch.only
    assert record.key == "test_it.py::test_it [detects_break]"
    assert (record.outcome, record.passed, record.blame) == ("noticed", True, "")
    assert (record.client, record.fault, record.activity) == ("test_it", "silent_drop", "idle")
    assert (record.mechanism, record.engine) == ("keepalive", "virtual")
    assert record.after == pytest.approx(3.0, abs=0.1)
    assert record.nominal == record.after
    assert record.error is not None
    assert (record.error.type, record.error.errno) == ("trio.BrokenResourceError", "ETIMEDOUT")
    assert str(record.settings) == "keepalive 1/1/2"
    assert record.promised is not None
    assert record.promised.nominal == 3.0
    assert {"fault_hit", "client_gone", "error"} <= {each.kind for each in record.timeline}
    assert record.upstream == "server:7"
    assert record.libraries == {"trio": trio.__version__}
    assert record.versions["pytest"] == pytest.__version__


def test_a_client_that_does_not_notice_leaves_one_too(
    pytester: pytest.Pytester, watch: Watch
) -> None:
    outcome = run(
        pytester,
        watch,
        """
        def test_it(world):
            world.client = ""
            world.notices(within=1.0)
        """,
    )
    outcome.assert_outcomes(failed=1)
    record = watch.only
    assert (record.outcome, record.passed, record.blame) == ("rescued", False, "client")
    assert (record.mechanism, record.after) == ("", None)
    assert record.cause is not None
    assert record.cause.name == "keepalive_too_slow"
    assert record.advice == record.cause.cure
    assert record.summary == "the client did not notice the silent_drop"
    outcome.stdout.fnmatch_lines([f"*{record.summary}*", f"*why: {record.cause.why}*"])


EACH = """
    import pytest
    import trio
    from pytest_tcpresilience import closes_within, recovers, stays_quiet, survives
    from conftest import KEEPALIVE

    def test_quiet(world):
        async def block(link, stream):
            await stream.send_all(b"x")
            with stays_quiet(link, within=KEEPALIVE, windows=1) as quiet:
                await quiet.sleep()
        world.run(block)

    def test_survives(world):
        async def block(link, stream):
            with survives(link, within=5):
                with link.silent_drop():
                    await trio.sleep(0.5)
                await stream.send_all(b"x")
                await stream.receive_some()
        world.run(block)

    def test_recovers_and_closes(world):
        async def block(link, stream):
            link.reset()
            with recovers(link, within=2):
                fresh = await trio.open_tcp_stream("server", 7)
                await fresh.send_all(b"x")
                await fresh.receive_some()
            link.silent_drop()
            with closes_within(link, 1.0):
                await fresh.aclose()
        world.run(block)

    def test_mistake(world):
        async def block(link, stream):
            with stays_quiet(link, within=1.0):
                raise LookupError("of the test's own")
        world.run(block)
"""


def test_every_expectation_leaves_a_record(pytester: pytest.Pytester, watch: Watch) -> None:
    outcome = run(pytester, watch, EACH)
    outcome.assert_outcomes(passed=3, failed=1)
    found = {record.key.partition("::")[2]: record for record in watch.records}
    assert {key: (each.outcome, each.passed) for key, each in found.items()} == {
        "test_quiet [stays_quiet]": ("fine", True),
        "test_survives [survives]": ("fine", True),
        "test_recovers_and_closes [recovers]": ("recovered", True),
        "test_recovers_and_closes [closes_within]": ("fine", True),
        "test_mistake [stays_quiet]": ("not_judged", False),
    }
    assert str(found["test_quiet [stays_quiet]"].settings) == "keepalive 1/1/2"
    recovered = found["test_recovers_and_closes [recovers]"]
    assert recovered.attempts == 1
    assert recovered.recovery is not None
    assert recovered.mechanism == ""
    mistake = found["test_mistake [stays_quiet]"]
    assert (mistake.blame, mistake.summary) == ("test", "LookupError: of the test's own")


def test_settings_that_are_judged_at_once_leave_a_record(
    pytester: pytest.Pytester, watch: Watch
) -> None:
    outcome = run(
        pytester,
        watch,
        """
        import socket
        import pytest
        from pytest_tcpresilience import Keepalive, ExpectationFailed, assert_keepalive

        def test_it(tcp_link, recording_server):
            link = tcp_link(recording_server.address, client="mine")
            with socket.create_connection((link.host, link.port)) as sock:
                link.wait_for_connection()
                with pytest.raises(ExpectationFailed):
                    assert_keepalive(link, within=10)
                Keepalive(1, 1, 2).apply(sock)
                assert_keepalive(link, within=10)
        """,
    )
    outcome.assert_outcomes(passed=1)
    fails, holds = watch.records
    assert (fails.entry, fails.outcome, fails.blame) == (
        "assert_keepalive: mine",
        "fails",
        "client",
    )
    assert fails.cause is not None
    assert fails.cause.name == "off"
    assert fails.settings is not None
    assert not fails.settings.enabled
    assert (holds.entry, holds.outcome) == ("assert_keepalive: mine #2", "holds")
    assert str(holds.settings) == "keepalive 1/1/2"
    assert holds.expected == "an idle death noticed within 10.0 s"
    assert holds.engine == "embedded"


def test_the_settings_are_those_of_the_connection_that_was_hit(
    pytester: pytest.Pytester, watch: Watch
) -> None:
    """Of another one they would be somebody else's."""
    outcome = run(
        pytester,
        watch,
        """
        import socket
        from pytest_tcpresilience import Keepalive, detects_break
        from pytest_tcpresilience.expectations import lifeguard

        def test_it(tcp_link, recording_server, monkeypatch):
            link = tcp_link(recording_server.address)
            with (
                socket.create_connection((link.host, link.port)),
                socket.create_connection((link.host, link.port)) as hit,
            ):
                link.wait_for_connection(2)
                monkeypatch.setattr(lifeguard, "settings_of", lambda *addresses: None)
                (second,) = (c for c in link.connections if c.client == hit.getsockname())
                link.clients[second.number + 1] = Keepalive(1, 1, 2)
                with detects_break(link, within=2.0):
                    second.reset()
                    hit.recv(1)
        """,
    )
    outcome.assert_outcomes(passed=1)
    assert (watch.only.outcome, watch.only.settings) == ("noticed", None)


# --- how they travel ----------------------------------------------------------------------


def test_junit_has_each_record_as_a_property(pytester: pytest.Pytester, watch: Watch) -> None:
    run(pytester, watch, "def test_it(world):\n    world.notices()", "--junitxml=out.xml")
    properties = xml.parse(pytester.path / "out.xml").iterfind(".//testcase/properties/property")
    values = [each.get("value") for each in properties if each.get("name") == taking.ATTRIBUTE]
    (text,) = values
    assert text is not None
    kept = Record.from_json(json.loads(text))
    assert (kept.key, kept.outcome) == (watch.only.key, "noticed")
    assert kept.timeline == ()


IN_FIXTURE = """
    import pytest

    @pytest.fixture
    def teardown(world):
        yield
        world.notices()

    def test_it(teardown, world):
        world.link  # it is the fixture that breaks it
"""


def test_what_happens_in_a_fixture_s_teardown_is_kept(
    pytester: pytest.Pytester, watch: Watch
) -> None:
    outcome = run(pytester, watch, IN_FIXTURE, "--junitxml=out.xml")
    outcome.assert_outcomes(passed=1)
    assert watch.only.outcome == "noticed"
    assert '"noticed"' in xml.parse(pytester.path / "out.xml").find(".//property").get("value")  # type: ignore[union-attr,operator]


def test_each_record_travels_once(pytester: pytest.Pytester, watch: Watch) -> None:
    outcome = run(
        pytester,
        watch,
        """
        import socket
        import pytest
        from pytest_tcpresilience import detects_break

        def test_it(tcp_link, recording_server, subtests):
            for name in ("first", "second"):
                link = tcp_link(recording_server.address)
                with subtests.test(name), socket.create_connection((link.host, link.port)) as sock:
                    link.wait_for_connection()
                    with detects_break(link, within=2.0):
                        link.reset()
                        sock.recv(1)
            with subtests.test("last"):
                pytest.skip("nothing more")
        """,
    )
    assert outcome.ret == 0
    assert [record.entry for record in watch.records] == ["detects_break", "detects_break #2"]
    assert watch.document.tests == {"test_it.py::test_it": State.RAN}


def test_a_test_that_runs_again_counts_by_its_last_run(
    pytester: pytest.Pytester, watch: Watch
) -> None:
    (pytester.path / "again.py").write_text(
        "from _pytest.runner import runtestprotocol\n"
        "def pytest_runtest_protocol(item, nextitem):\n"
        "    for report in runtestprotocol(item, log=False):\n"
        "        if report.when == 'call':\n"
        "            report.outcome = 'rerun'\n"
        "        if report.when != 'teardown':\n"
        "            item.ihook.pytest_runtest_logreport(report=report)\n"
        "    for report in runtestprotocol(item):\n"
        "        pass\n"
        "    return True\n"
    )
    pytester.syspathinsert()
    outcome = run(
        pytester,
        watch,
        "def test_it(world):\n    world.notices()",
        *("-p", "again", "--junitxml=out.xml"),
    )
    assert outcome.ret == 0
    assert watch.only.entry == "detects_break"
    found = xml.parse(pytester.path / "out.xml").findall(".//property")
    assert len(found) == 1


def test_a_test_that_is_simply_run_twice_counts_once(
    pytester: pytest.Pytester, watch: Watch
) -> None:
    (pytester.path / "twice.py").write_text(
        "from _pytest.runner import runtestprotocol\n"
        "def pytest_runtest_protocol(item, nextitem):\n"
        "    runtestprotocol(item)\n"
        "    runtestprotocol(item)\n"
        "    return True\n"
    )
    pytester.syspathinsert()
    outcome = run(pytester, watch, "def test_it(world):\n    world.notices()", "-p", "twice")
    outcome.assert_outcomes(passed=2)
    assert watch.only.entry == "detects_break"


def test_a_report_that_cannot_be_read_is_a_problem_of_the_run(
    pytester: pytest.Pytester, watch: Watch
) -> None:
    (pytester.path / "garble.py").write_text(
        "import pytest\n"
        "@pytest.hookimpl(wrapper=True, tryfirst=True)\n"
        "def pytest_runtest_makereport():\n"
        "    report = yield\n"
        "    report.tcpresilience = '{'\n"
        "    return report\n"
    )
    pytester.syspathinsert()
    outcome = run(pytester, watch, "def test_it(): pass", "-p", "garble")
    assert outcome.ret == 0
    assert len(watch.document.problems) == 3  # setup, call and teardown
    assert "the records of test_it.py::test_it could not be read" in watch.document.problems[0]


def test_a_test_keeps_the_name_that_it_was_collected_by() -> None:
    # With --dist=loadgroup pytest-xdist adds the group to it.
    class Item:
        nodeid = "test_it.py::test_it"
        stash = pytest.Stash()

    item = cast(pytest.Item, Item())
    taking.remember_name(item)
    Item.nodeid += "@group"
    assert taking.name_of(item) == "test_it.py::test_it"


def test_an_engine_that_dies_leaves_a_record_of_that(
    pytester: pytest.Pytester, watch: Watch
) -> None:
    outcome = run(
        pytester,
        watch,
        """
        import os, signal, socket
        from pytest_tcpresilience import detects_break

        def test_it(tcp_link, recording_server):
            link = tcp_link(recording_server.address)
            with socket.create_connection((link.host, link.port)) as sock:
                link.wait_for_connection()
                with detects_break(link, within=2.0):
                    os.kill(link.engine_pid, signal.SIGKILL)
                    sock.recv(1)
        """,
    )
    outcome.assert_outcomes(failed=1)
    record = watch.only
    assert (record.outcome, record.blame, record.passed) == ("harness_failed", "harness", False)
    assert record.error is not None
    assert record.error.type == "pytest_tcpresilience.errors.EngineDied"


@pytest.mark.parametrize("given", ["flag", "ini", "environment"])
def test_packages_can_be_named_whose_versions_are_kept(
    pytester: pytest.Pytester, watch: Watch, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    args: list[str] = []
    if given == "flag":
        args = ["--resilience-libraries=h11 pluggy"]
    elif given == "ini":
        pytester.makeini("[pytest]\nresilience_libraries = h11 pluggy")
    else:
        monkeypatch.setenv("RESILIENCE_LIBRARIES", "h11 pluggy")
    outcome = run(pytester, watch, "def test_it(world):\n    world.notices()", *args)
    outcome.assert_outcomes(passed=1)
    assert watch.only.libraries == {
        name: metadata.version(name) for name in ("h11", "pluggy", "trio")
    }


def test_a_package_that_is_not_there_is_told_at_once(pytester: pytest.Pytester) -> None:
    outcome = pytester.runpytest_inprocess(*STRICT, "--resilience-libraries=h11 no-such-thing")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines(["*--resilience-libraries: no-such-thing cannot be found*"])


# --- what became of each test -------------------------------------------------------------

MANY = """
    import pytest

    def test_passes(): pass

    def test_fails(): assert False

    @pytest.mark.skip
    def test_skipped(): pass

    def test_skips_itself(): pytest.skip()

    @pytest.mark.xfail
    def test_expected_to_fail(): assert False

    def test_without_setup(no_such_fixture): pass

    def test_other(): pass
"""


def test_the_document_says_what_became_of_each_test(
    pytester: pytest.Pytester, watch: Watch
) -> None:
    run(pytester, watch, MANY, "-k", "not other")
    states = {test.partition("::")[2]: state for test, state in watch.document.tests.items()}
    assert states == {
        "test_passes": State.RAN,
        "test_fails": State.RAN,
        "test_skipped": State.SKIPPED,
        "test_skips_itself": State.SKIPPED,
        "test_expected_to_fail": State.RAN,
        "test_without_setup": State.RAN,
        "test_other": State.DESELECTED,
    }


def test_a_run_that_stops_has_not_reached_the_rest(pytester: pytest.Pytester, watch: Watch) -> None:
    run(pytester, watch, MANY, "-x")
    states = [state for _, state in sorted(watch.document.tests.items())]
    assert states.count(State.RAN) == 2
    assert states.count(State.NOT_REACHED) == 5


@pytest.mark.parametrize(
    ("args", "asked"),
    [
        ((), ("",)),
        (("test_it.py",), ("test_it.py",)),
        (("test_it.py::test_passes", "test_it.py::test_other"), None),
        ((".",), ("",)),
        (("--lf",), ()),
        (("--stepwise",), ()),
    ],
)
def test_the_document_says_what_the_run_was_asked_for(
    pytester: pytest.Pytester, watch: Watch, args: tuple[str, ...], asked: tuple[str, ...] | None
) -> None:
    run(pytester, watch, MANY, *args)
    expected = asked if asked is not None else tuple(sorted(args))
    assert watch.document.asked == expected


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (None, ""),
        ("[project]\nname = 'shop'\n", "shop"),
        ("[tool.x]\n", ""),
        ("[project]\nname = 3\n", ""),
        ("project = 3\n", ""),
        ("[project\n", ""),
    ],
)
def test_the_project_is_called_as_it_calls_itself(
    tmp_path: Path, text: str | None, name: str
) -> None:
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)
    assert collecting.project_name(tmp_path) == name


def test_a_document_comes_back_as_it_went(pytester: pytest.Pytester, watch: Watch) -> None:
    run(pytester, watch, "def test_it(world):\n    world.notices()")
    document = watch.document
    assert document.started
    assert document.versions["pytest"] == pytest.__version__
    assert Document.from_json(json.loads(json.dumps(document.to_json()))) == document
