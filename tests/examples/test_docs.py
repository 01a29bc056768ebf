"""The pages of docs/ that are data say what the data says."""

from __future__ import annotations

import re

import pytest

from pytest_tcpresilience import Keepalive, advise
from pytest_tcpresilience.tcp.middleboxes import MIDDLEBOXES
from pytest_tcpresilience.tcp.stacks import PROFILES
from tests.docs import DOCS, PAGES


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


def test_the_page_of_the_advisor_in_the_readme_is_what_it_prints() -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert f"```\n{advise(Keepalive(7200, 75, 9), behind='aws-nlb')}\n```" in readme
