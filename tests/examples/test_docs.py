"""The pages of docs/ that are data say what the data says."""

from __future__ import annotations

import inspect
import re

import pytest

import pytest_tcpresilience
from pytest_tcpresilience import Keepalive, advise
from pytest_tcpresilience.engine_choice import CHOICES
from pytest_tcpresilience.evidence import wording
from pytest_tcpresilience.evidence.diagnosis import CAUSES
from pytest_tcpresilience.settings import OPTIONS
from pytest_tcpresilience.tcp.middleboxes import MIDDLEBOXES
from pytest_tcpresilience.tcp.stacks import PROFILES
from tests.docs import DOCS, PAGES
from tests.docs_reference import PLUMBING


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_data_says(name: str) -> None:
    written = (DOCS / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), "write it again: python -m tests.docs"


def test_every_profile_and_every_doubt_is_on_the_page() -> None:
    page = (DOCS / "stacks.md").read_text(encoding="utf-8")
    for profile in PROFILES:
        assert f'<a id="{profile.key}"></a>' in page
        assert f"](#{profile.key})" in page
        assert all(f"Doubt: {doubt}." in page for doubt in profile.doubts)


def test_every_preset_and_every_doubt_is_on_the_page() -> None:
    page = (DOCS / "middleboxes.md").read_text(encoding="utf-8")
    assert re.findall(r"^### `(\S+)`$", page, re.MULTILINE) == list(MIDDLEBOXES)
    for box in MIDDLEBOXES.values():
        assert all(f"Doubt: {doubt}." in page for doubt in box.doubts)


def test_the_advice_that_is_shown_is_what_it_prints() -> None:
    page = (DOCS / "howto" / "advice.md").read_text(encoding="utf-8")
    assert f"```\n{advise(Keepalive(7200, 75, 9), behind='aws-nlb')}\n```" in page


def test_the_options_are_all_of_the_plugins() -> None:
    """The page is made of what the plugin adds; each option has the three names of its table."""
    page = (DOCS / "options.md").read_text(encoding="utf-8")
    for option in (*OPTIONS, *CHOICES):
        assert f"| `{option.flag}` | `{option.variable}` | `{option.ini}` |" in page


def test_the_reference_leaves_no_public_name_out() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    public = {name for name in pytest_tcpresilience.__all__ if not name.startswith("__")}
    assert set(re.findall(r"^### `(\w+)`$", page, re.MULTILINE)) == public


def test_what_the_reference_leaves_out_exists() -> None:
    for owner, names in PLUMBING.items():
        missing = {
            name for name in names if not hasattr(getattr(pytest_tcpresilience, owner), name)
        }
        assert missing - {"link", "faults"} == set()


def test_no_attribute_in_the_reference_is_without_a_word() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|  \|$", page, re.MULTILINE) == []


def test_the_phrases_of_failures_are_those_of_the_code() -> None:
    """The how-to explains sentences that the code still says."""
    page = (DOCS / "howto" / "failures.md").read_text(encoding="utf-8")
    table = page[page.index("| it says |") :]
    phrases = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    said = " ".join(cause.why for cause in CAUSES) + inspect.getsource(wording)
    said = re.sub(r'"\s+f?"', "", said)
    assert len(phrases) >= 6
    assert [phrase for phrase in phrases if phrase not in said] == []
