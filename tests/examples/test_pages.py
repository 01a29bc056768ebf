"""README and the pages of docs/: snippets are files, links lead somewhere, the site has all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs_hook import rewritten
from tests.docs_markdown import anchors, fences, links, slug

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
CONFIGURATION = (ROOT / "properdocs.yml").read_text()
# What a page shows of these languages has to be a file that runs, or that a test reads.
CODE = {"python", "yaml", "ini", "toml"}
# Made from signatures, and compared with the code as a whole.
GENERATED = "<!-- Written by `python -m tests.docs`"

WRITTEN = [page for page in PAGES if GENERATED not in page.read_text()]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_a_snippet_is_its_file(page: Path) -> None:
    for fence in fences(page.read_text()):
        kind, path = fence.origin or ("", "")
        if kind == "file":
            assert fence.text == (ROOT / path).read_text()
        elif kind == "part of":
            assert fence.text in (ROOT / path).read_text()
        else:
            assert fence.language not in CODE, f"of no file: {fence.text[:60]!r}"


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_no_code_is_shown_without_a_fence(page: Path) -> None:
    """As a block that is only indented, it would be of no file."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    begins = "assert|async|class|def|for|from|import|with|@pytest"
    assert re.findall(rf"^    (?:{begins})\b.*$", text, re.MULTILINE) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_link_leads_somewhere(page: Path) -> None:
    """On a forge: relative to the page, and with the anchors that a forge makes."""
    wrong = []
    for link in links(page.read_text()):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        known = anchors(target.read_text()) if target.suffix == ".md" and target.exists() else ()
        if not target.exists() or (anchor and anchor not in known):
            wrong.append(link)
    assert wrong == []


def test_the_site_has_every_page_once() -> None:
    named = re.findall(r"^ +- [^:\n]+: (\S+\.md)$", CONFIGURATION, re.MULTILINE)
    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_index_leads_to_every_page() -> None:
    index = set(links((DOCS / "index.md").read_text()))
    named = {link.partition("#")[0] for link in index}
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"index.md"}
    assert pages - named == set()


def test_the_site_loads_nothing_from_elsewhere() -> None:
    """The theme's one request to a CDN is for highlight.js."""
    assert re.search(r"^  highlightjs: false", CONFIGURATION, re.MULTILINE)


@pytest.mark.parametrize(
    ("title", "anchor"),
    [
        ("The rescue", "the-rescue"),
        ("`survives`, `stays_quiet`, `closes_within`", "survives-stays_quiet-closes_within"),
        ("What it needs, and what it is not for", "what-it-needs-and-what-it-is-not-for"),
        ("A [link](x.md) & more", "a-link--more"),
    ],
)
def test_anchors_are_those_of_a_forge(title: str, anchor: str) -> None:
    assert slug(title) == anchor


def test_the_second_of_two_headings_has_a_number() -> None:
    assert anchors("# One\n\n## Same\n\n## Same\n\n```\n# no heading\n```\n") == {
        "one",
        "same",
        "same-1",
    }


def test_links_out_of_the_site_lead_to_the_forge(caplog: pytest.LogCaptureFixture) -> None:
    page = "[a](../../README.md#x) [b](../faults.md) [c](pools.md) [d](../../gone.py)"
    assert rewritten(page, "howto/index.md", "F/") == (
        "[a](F/README.md#x) [b](../faults.md) [c](pools.md) [d](F/gone.py)"
    )
    assert caplog.messages == ["howto/index.md: a link to gone.py, which does not exist"]
