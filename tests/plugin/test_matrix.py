"""Matrices: cells side by side, each with a verdict and a record of its own."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from tests.inner import Inner
from tests.plugin.matrices import CLIENTS, kept, witness

TABLE = (
    CLIENTS
    + """
    LATE = Client("late", connect, read=ask, wait=lambda sock: time.sleep(0.7) or wait(sock))

    def test_table(tcp_matrix, recording_server):
        begun = time.monotonic()
        result = tcp_matrix(
            recording_server.address,
            clients=[SOCKET, ASYNCIO, TRIO, LATE],
            faults=[
                "reset",
                "stall",
                MatrixFault("hang_up", label="goodbye", activity="read"),
                MatrixFault("refuse_connections", activity="connect"),
            ],
            within=lambda client, fault: 0.9 if fault == "stall" else 0.5,
            activity="wait",
            unaware=["stall"],
        )
        print("took", time.monotonic() - begun)
        assert len(result) == 16
        assert [cell.passed for cell in result if cell.client != "late"] == [True] * 12
        assert not result["late", "reset"].passed
        assert not result["late", "reset"].noticed
        with pytest.raises(UsageError, match="no detection of late × reset(.|\\n)*too late"):
            result["late", "reset"].detection
        assert result["trio", "reset"].detection.mechanism == "reset"
        with pytest.raises(UsageError, match="no detection of socket × stall(.|\\n)*never notices"):
            result["socket", "stall"].detection
        with pytest.raises(KeyError):
            result["late", "hang_up"]
"""
)


def test_a_table(inner: Inner) -> None:
    notes = witness(inner)
    xml = inner.pytester.path / "junit.xml"
    result = inner.run(TABLE, "-v", f"--junitxml={xml}", "-rP")
    result.stdout.fnmatch_lines(
        [
            "*::test_table SUBPASSED[[]socket × reset[]]*",
            "*::test_table SUBPASSED[[]trio × refuse_connections[]]*",
            "*::test_table SUBFAILED[[]late × reset[]]*",
            "*::test_table SUBPASSED[[]late × stall[]]*",
            "*::test_table SUBPASSED[[]late × refuse_connections[]]*",
        ]
    )
    text = result.stdout.str()
    # Where it failed is the test's own line, and none of ours.
    assert "result = tcp_matrix(" in text
    assert re.search(r"ExpectationFailed: the client noticed the reset too late: 0\.[67]\d s", text)
    assert "matrix.py" not in text.replace("test_matrix.py", "")
    took = re.search(r"took (\S+)", text)
    assert took is not None
    # 16 waits of half a second and more.
    assert float(took[1]) < 4.0

    found = kept(notes)
    assert [each.when for each in found] == ["call"] * 16
    for each in found:
        (record,) = each.records
        assert each.subtest == record["entry"] == f"{record['client']} × {record['fault']}"
        assert record["passed"] is (each.subtest not in FAILED)
        assert record["activity"] == {
            "goodbye": "read",
            "refuse_connections": "connect",
        }.get(record["fault"], "wait")
        assert record["test"].endswith("::test_table")
        assert record["timeline"]
        assert "pytest" in record["versions"]
    by_name = {each.subtest: each.records[0] for each in found}
    assert by_name["socket × stall"]["expectation"] == "stays_unaware"
    assert by_name["socket × stall"]["outcome"] == "unaware"
    assert by_name["socket × stall"]["cause"]["name"] == "stalled_peer"
    assert by_name["late × reset"]["outcome"] == "too_late"
    assert by_name["asyncio × goodbye"]["mechanism"] == "fin"
    assert len({each["link"] for each in by_name.values()}) == 16

    cases = ElementTree.parse(xml).getroot().iter("testcase")
    properties = [p.get("value", "") for case in cases for p in case.iter("property")]
    entries = {json.loads(value)["entry"] for value in properties}
    assert entries == by_name.keys()


FAILED = ("late × reset",)

COMPARED = (
    CLIENTS
    + """
    LATE = Client("late", connect, read=ask, wait=lambda sock: time.sleep(0.5) or wait(sock))
    DEAF = Client("deaf", connect, read=ask, wait=lambda sock: time.sleep(0.05))

    def verdicts(result):
        return {
            f"{cell.client}/{cell.fault}": [
                cell.passed,
                str(cell.detection.mechanism) if cell.noticed else "",
                str(cell.error).partition(":")[0],
            ]
            for cell in result
        }

    def test_compared(tcp_matrix, recording_server):
        clients = [SOCKET, ASYNCIO, TRIO, LATE, DEAF]
        faults = ["reset", "hang_up"]
        terms = {"within": 0.3, "activity": "wait"}
        at_once = verdicts(
            tcp_matrix(recording_server.address, clients=clients, faults=faults, **terms)
        )
        one_by_one = {}
        for client in clients:
            for fault in faults:
                one_by_one |= verdicts(
                    tcp_matrix(
                        recording_server.address, clients=[client], faults=[fault], **terms
                    )
                )
        assert sum(each[0] for each in at_once.values()) == 6
        print("compared", at_once == one_by_one, at_once, one_by_one)
"""
)


def test_the_verdicts_are_those_of_single_cells(inner: Inner) -> None:
    result = inner.run(COMPARED, "-rP", "-o", "resilience_slack=0.35")
    result.stdout.fnmatch_lines(["compared True *"])
    # The deaf, and the late, both times.
    assert result.parseoutcomes()["failed"] == 2 * 4 + 1


STOPPED = (
    CLIENTS
    + """
    DEAF = Client("deaf", connect, read=ask, wait=lambda sock: time.sleep(0.05))

    def test_first(tcp_matrix, recording_server):
        tcp_matrix(
            recording_server.address,
            clients=[SOCKET, DEAF, ASYNCIO, TRIO],
            faults=["reset"],
            within=0.3,
            activity="wait",
        )
        raise AssertionError("not reached")

    def test_second():
        pass
"""
)


def test_stopping_at_the_first_failure_loses_no_record(inner: Inner) -> None:
    notes = witness(inner)
    result = inner.run(STOPPED, "-x", "-o", "resilience_slack=0.1")
    text = result.stdout.str()
    assert "SUBFAILED[deaf × reset]" in text
    assert "not reached" not in text.partition("short test summary")[2]
    assert "stopping after 2 failures" in text  # the subtest, and the test that it ended
    found = kept(notes)
    assert [each.subtest for each in found] == ["socket × reset", "deaf × reset", None]
    assert [[each["entry"] for each in report.records] for report in found] == [
        ["socket × reset"],
        ["deaf × reset"],
        ["asyncio × reset", "trio × reset"],
    ]


SELECTED = (
    CLIENTS
    + """
    @pytest.mark.parametrize("client", ["first", "second"])
    def test_selected(tcp_matrix, recording_server, client):
        tcp_matrix(
            recording_server.address,
            clients=[Client(client, connect, read=ask), Client("other", connect, read=ask)],
            faults=["reset", "hang_up"],
            within=0.5,
        )
"""
)


def test_selected_cells(inner: Inner) -> None:
    notes = witness(inner)
    chosen = "--resilience-cells=FIRST and not (reset or nonsense)"
    result = inner.run(SELECTED, chosen, "-rsP")
    assert result.parseoutcomes() == {"passed": 1, "skipped": 1}
    result.stdout.fnmatch_lines(
        [
            "tcp_matrix: 3 of 4 cells are deselected by --resilience-cells 'FIRST and not (reset "
            "or nonsense)': first × reset, other × reset, other × hang_up",
            "SKIPPED * tcp_matrix: 4 of 4 cells are deselected by --resilience-cells *",
        ]
    )
    found = kept(notes)
    keys = [key.partition(" ")[2] for each in found for key in each.deselected]
    assert sorted(keys) == sorted(
        f"[{client} × {fault}]"
        for client, fault in [
            ("first", "reset"),
            ("other", "reset"),
            ("other", "hang_up"),
            ("second", "reset"),
            ("second", "hang_up"),
            ("other", "reset"),
            ("other", "hang_up"),
        ]
    )
    assert [r["entry"] for each in found for r in each.records] == ["first × hang_up"]


def test_a_selection_that_cannot_be_read_ends_the_run(inner: Inner) -> None:
    result = inner.run(SELECTED, "--resilience-cells=a b")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--resilience-cells: 'a b' cannot be read*"])


MISTAKEN = (
    CLIENTS
    + """
    def call(tcp_matrix, **given):
        defaults = {"clients": [SOCKET], "faults": ["reset"], "within": 1.0}
        return tcp_matrix("127.0.0.1:1", **{**defaults, **given})

    @pytest.mark.parametrize("given", [{"clients": []}, {"every": 0}, {"setup_within": "a"}])
    def test_mistake(tcp_matrix, given):
        call(tcp_matrix, **given)

    def test_in_a_loop(tcp_matrix):
        async def main():
            call(tcp_matrix)

        asyncio.run(main())

    def test_unreachable(tcp_matrix):
        call(tcp_matrix)
"""
)


def test_mistakes(inner: Inner) -> None:
    result = inner.run(MISTAKEN, "-W", "ignore::pytest_tcpresilience.UpstreamUnreachableWarning")
    assert result.parseoutcomes()["failed"] == 6
    text = result.stdout.str()
    for words in (
        "UsageError: tcp_matrix: there are no clients, so there are no cells",
        "UsageError: tcp_matrix: every=0 is no time",
        "UsageError: tcp_matrix: setup_within='a' is no time",
        "UsageError: tcp_matrix would block the event loop of this test",
        "ExpectationFailed: socket failed in its warm-up: ConnectionResetError",
    ):
        assert words in text
