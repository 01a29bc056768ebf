"""docs/xdist.md says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_tcpresilience.settings import OPTIONS
from tests.inner import STRICT

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "xdist.md").read_text()
EXAMPLE = "examples/long_waits/test_subscriber.py"


def test_the_default_is_the_options() -> None:
    (option,) = (option for option in OPTIONS if option.name == "long_wait")
    assert f"`{option.flag}` ({option.default:g} s, see" in PAGE


def test_each_mode_of_xdist_is_on_the_page(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    options = " ".join(pytester.runpytest_inprocess(*STRICT, "--help").outlines)
    choices = re.search(r"--dist=distmode .*?\(default\) no", options)
    assert choices is not None
    modes = [*re.findall(r"(\w+): ", choices[0]), "no"]
    assert len(modes) == 7
    rows = re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE)
    assert set(modes) <= {mode for row in rows for mode in re.findall(r"`(\w+)`", row)}


def test_the_example_is_marked_when_its_wait_is_long(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=(ROOT / EXAMPLE).read_text())
    args = (*STRICT, "--collect-only", "-q", "-m", "long_wait")
    assert "::" not in pytester.runpytest_inprocess(*args).stdout.str()
    shorter = pytester.runpytest_inprocess(*args, "--resilience-long-wait=2")
    shorter.stdout.fnmatch_lines(["test_it.py::test_a_subscriber_notices_a_dead_connection"])
