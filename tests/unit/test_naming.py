"""Names of our proxies on a server that is shared with others."""

from __future__ import annotations

import pytest

from pytest_tcpresilience.control.naming import STALE_S, Maker, is_leftover

HERE, THERE = "0123abcd", "ffff0000"
NOW = 1_800_000_000.0
ME = Maker(machine=HERE, pid=42, started=777)


def started(pid: int) -> int | None:
    """Process 42 began at 777; there is no other."""
    return {42: 777}.get(pid)


@pytest.mark.parametrize(
    ("name", "leftover"),
    [
        pytest.param(ME.name(NOW, "link-1"), False, id="its maker lives"),
        pytest.param(ME.name(NOW - 10 * STALE_S, "link-1"), False, id="and has lived for long"),
        pytest.param(Maker(HERE, 43, 777).name(NOW, "link-1"), True, id="its maker has ended"),
        pytest.param(Maker(HERE, 42, 776).name(NOW, "link-1"), True, id="the number is another's"),
        pytest.param(Maker(THERE, 43, 777).name(NOW, "link-1"), False, id="of another machine"),
        pytest.param(Maker(THERE, 42, 777).name(NOW - STALE_S - 1, "l"), True, id="long ago there"),
        pytest.param("redis", False, id="somebody's"),
        pytest.param("tcpresilience", False, id="somebody's with our name"),
        pytest.param("tcpresilience-0123abcd-43-777-1-", False, id="nearly ours"),
        pytest.param("tcpresilience-0123ABCD-43-777-1-link-1", False, id="not our spelling"),
        pytest.param("x" + ME.name(NOW, "link-1"), False, id="ours inside"),
    ],
)
def test_what_is_a_leftover(name: str, leftover: bool) -> None:
    assert is_leftover(name, HERE, NOW, started) is leftover


def test_names_of_two_processes_and_of_two_links_differ() -> None:
    names = {
        maker.name(NOW, rest)
        for maker in (ME, Maker(HERE, 43, 777), Maker(HERE, 42, 778), Maker(THERE, 42, 777))
        for rest in ("link-1", "link-2")
    }
    assert len(names) == 8
