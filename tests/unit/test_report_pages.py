"""The pages: HTML that is well-formed, safe and legible, and Markdown that is what it says."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from html.parser import HTMLParser
from importlib import resources
from typing import Any

import pytest

from pytest_tcpresilience.records.record import Promised, Reason, Record, Settings
from pytest_tcpresilience.report import html, markdown
from pytest_tcpresilience.report.comparison import (
    Comparison,
    Difference,
    Finding,
    Status,
    Weight,
)
from pytest_tcpresilience.report.contract import Entry
from pytest_tcpresilience.report.document import Document, State, ordered
from pytest_tcpresilience.report.statuses import Tone
from pytest_tcpresilience.report.view import view_of
from tests.reports import happened, hostile_document, record, unanswered

VOID = {"meta", "link", "br", "wbr", "img", "input", "hr"}
# What may stand in a report; what is not here was smuggled in.
ALLOWED = set(
    re.findall(
        r"\w+",
        """
    html head meta title style body a header p h1 h2 h3 ul li section dl dt dd div main
    table caption thead tbody tr th td span details summary svg line text tspan rect path
    g footer script fieldset label input output wbr
        """,
    )
)
CSS = (resources.files("pytest_tcpresilience.report") / "templates" / "report.css").read_text()
PROMISED = Promised(2.98, 3.0, 3.535, ("idle: first probe (1.00 s)",))


def small() -> Document:
    """One that noticed, and one that did not."""
    lost = {
        "outcome": "rescued",
        "passed": False,
        "blame": "client",
        "summary": "the client did not notice the stall",
        "cause": Reason("stalled", "this was a stall", "give it a read timeout"),
        "timeline": (happened(0.8, "probe_seen", seen=1, probes=1),),
    }
    return Document(
        records=ordered(
            [
                record(
                    client="redis",
                    fault="silent_drop",
                    mechanism="keepalive",
                    after=3.01,
                    promised=PROMISED,
                    origin="fault",
                    timeline=(unanswered(1.0, 1),),
                    versions={"python": "3.13"},
                    libraries={"redis": "6.0"},
                ),
                record(client="redis", fault="stall", promised=PROMISED, **lost),
            ]
        ),
        project="orders",
        versions={"python": "3.13"},
        tests={"test_it.py::test_it": State.RAN},
    )


@dataclass
class Parser(HTMLParser):
    """Fails on what a browser would have to guess."""

    open: list[str] = field(default_factory=list)
    tags: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    refers: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            elif name == "href":
                self.links.append(value or "")
            elif name in ("aria-labelledby", "for"):
                self.refers.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def parsed(page: str) -> Parser:
    parser = Parser()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


@cache
def hostile_html() -> str:
    return html.render(hostile_document())


@cache
def hostile_markdown() -> str:
    return markdown.render(hostile_document())


# --- HTML ---------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [html.render(Document()), html.render(small()), hostile_html()])
def test_the_page_is_well_formed_and_its_links_lead_somewhere(page: str) -> None:
    found = parsed(page)
    assert [each for each, count in Counter(found.ids).items() if count > 1] == []
    assert {link.removeprefix("#") for link in found.links} <= set(found.ids)
    assert all(link.startswith("#") for link in found.links)
    assert set(found.refers) <= set(found.ids)
    assert set(found.tags) <= ALLOWED
    assert found.tags["script"] == found.tags["style"] == found.tags["h1"] == 1
    assert ("html", "lang", "en") in found.attributes


def test_nothing_of_a_stranger_is_markup() -> None:
    found = parsed(hostile_html())
    assert not any(name.startswith("on") for _, name, _ in found.attributes)
    assert "<script>alert(1)</script>" in "".join(found.words)
    assert "{{ 7*7 }}" in hostile_html()
    hostile_html().encode("utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", hostile_html())


def test_the_page_loads_nothing() -> None:
    found = parsed(hostile_html())
    assert not [value for _, name, value in found.attributes if name in ("src", "srcset", "data")]
    assert "url(" not in CSS
    assert "@import" not in CSS
    (policy,) = [value for _, _, value in found.attributes if "default-src" in value]
    assert policy.startswith("default-src 'none'")
    assert "script-src 'sha256-" in policy


def test_the_script_is_the_one_that_the_page_allows() -> None:
    page = html.render(small())
    script = page.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page


def test_the_verdict_comes_first() -> None:
    page = html.render(small())
    order = ["1 as promised, 1 not", "orders", "Clients and faults", "this was a stall"]
    body = page[page.index("<body>") :]
    places = [body.index(words) for words in ("<h1>", *order[2:])]
    assert places == sorted(places)
    assert "<h1>1 as promised, 1 not</h1>" in page


def test_a_cell_says_in_words_what_its_colour_says() -> None:
    page = html.render(small())
    assert "by keepalive, 3.01 s of 3.54 s promised" in page
    assert re.search(r'class="entry bad"><a href="#r2">.*?not noticed', page)


def test_tables_have_captions_and_scopes() -> None:
    page = html.render(small())
    found = parsed(page)
    scopes = [value for tag, name, value in found.attributes if (tag, name) == ("th", "scope")]
    assert len(scopes) == found.tags["th"]
    assert {"col", "row"} == set(scopes)
    assert "<caption>" in page
    images = [tag for tag, name, value in found.attributes if (name, value) == ("role", "img")]
    named = [1 for tag, name, _ in found.attributes if tag == "svg" and name.startswith("aria-")]
    assert len(images) == len(named) > 0


def test_a_ladder_shows_its_lost_probe() -> None:
    page = html.render(small())
    assert 'class="cross"' in page
    assert "keepalive probe 1 unanswered" in page


def test_no_records_are_no_success() -> None:
    page = html.render(Document())
    assert "<h1>Nothing was recorded</h1>" in page
    assert view_of(Document()).tone == "unsure"


@pytest.mark.parametrize(
    ("passed", "verdict", "tone"),
    [
        ([True], "As promised", "good"),
        ([True, True], "All 2 as promised", "good"),
        ([True, False], "1 as promised, 1 not", "bad"),
        ([False], "0 as promised, 1 not", "bad"),
    ],
)
def test_a_verdict(passed: list[bool], verdict: str, tone: str) -> None:
    records = [record(passed=each, outcome="unaware" if not each else "noticed") for each in passed]
    view = view_of(Document(tuple(records)))
    assert (view.verdict, view.tone) == (verdict, tone)


def test_a_run_that_lost_records_is_not_green() -> None:
    crashed = Document((record(),), tests={"test_a.py::test_a": State.CRASHED})
    assert view_of(crashed).tone == "unsure"
    assert "test_a.py::test_a ended with its process" in html.render(crashed)
    assert view_of(Document((record(),), problems=("worker gw0 ended",))).tone == "unsure"


def test_versions_that_all_records_share_are_told_once() -> None:
    first, _ = view_of(small()).details
    assert dict(first.facts)["versions"] == "redis 6.0"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (None, "could not be read"),
        (Settings(False, 7200, 75, 9, 0), "keepalive off"),
        (
            Settings(True, 60, 10, 3, 0),
            "keepalive 60/10/3: a first probe after 60 s, then one each 10 s, dead after 3 "
            "unanswered",
        ),
        (
            Settings(True, 60, 10, 3, 5000),
            "keepalive 60/10/3, user timeout 5000 ms: a first probe after 60 s, then one each 10 s",
        ),
    ],
)
def test_settings_are_told_in_words(settings: Settings | None, told: str) -> None:
    (detail,) = view_of(Document((record(settings=settings),))).details
    assert dict(detail.facts)["the client's socket"] == told


# --- beside a contract --------------------------------------------------------------------


def upgraded(now: Record) -> Finding:
    before = replace(Entry.of(now), outcome="noticed", mechanism="keepalive")
    what = (Difference("outcome", "noticed", "rescued", Weight.BEHAVIOUR),)
    return Finding(now.key, Status.CHANGED, before, now, what, libraries=("redis 5 to 6",))


UPGRADE = "redis 5 to 6: noticed by keepalive before, never noticed now"


def comparison() -> Comparison:
    now = record(client="redis", fault="stall", outcome="rescued", passed=False)
    return Comparison(
        problems=("<b>one</b> problem",),
        findings=(
            Finding("a [gone]", Status.MISSING, why="its test was not | collected"),
            Finding("a [same]", Status.SAME),
            upgraded(now),
        ),
    )


def test_what_changed_is_told_with_its_record() -> None:
    page = html.render(small(), comparison())
    assert "1 entry is as before, 2 are not." in page
    assert page.index("outcome: noticed before, rescued now") < page.index("Clients and faults")
    assert re.search(r'<a href="#r2">test_<wbr>it\.<wbr>py', page)
    assert UPGRADE in page
    assert "&lt;b&gt;one&lt;/b&gt; problem" in page
    parsed(page)
    assert "Beside the contract" not in html.render(small())


@pytest.mark.parametrize(
    ("statuses", "verdict", "tone"),
    [
        ((), "As promised", Tone.GOOD),
        (("same", "deselected"), "As promised", Tone.GOOD),
        (("changed",), "As promised; 1 not as in the contract", Tone.UNSURE),
        (("missing", "new", "same"), "As promised; 2 not as in the contract", Tone.UNSURE),
    ],
)
def test_the_verdict_says_what_the_contract_says(
    statuses: tuple[str, ...], verdict: str, tone: Tone
) -> None:
    found = Comparison(tuple(Finding("a [b]", Status(each)) for each in statuses))
    view = view_of(Document((record(),)), found)
    assert (view.verdict, view.tone) == (verdict, tone)


def test_a_problem_of_the_comparison_is_no_good_news() -> None:
    found = Comparison((Finding("a [b]", Status.SAME),), ("two of one name",))
    assert view_of(Document((record(),)), found).tone is Tone.UNSURE


def test_markdown_tells_the_same() -> None:
    page = markdown.render(small(), comparison())
    assert "1 as before, 2 not." in page
    changed = f"outcome: noticed before, rescued now<br>{UPGRADE}"
    assert f"| `test_it.py::test_it [redis × stall]` | changed | {changed} |" in page
    assert "| `a [gone]` | missing from this run | its test was not \\| collected |" in page


# --- Markdown -----------------------------------------------------------------------------


def test_every_row_of_a_table_has_as_many_cells() -> None:
    text = re.sub(r"^```mermaid\n.*?^```$", "", hostile_markdown(), flags=re.DOTALL | re.MULTILINE)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    matrix = [line for line in rows if len(re.findall(r"(?<!\\)\|", line)) > 3]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in matrix}
    assert widths == {len(view_of(hostile_document()).table.columns) + 2}
    assert len(matrix) == len(view_of(hostile_document()).table.rows) + 2


def test_nothing_of_a_stranger_is_markup_in_markdown() -> None:
    text = re.sub(r"^```mermaid\n.*?^```$", "", hostile_markdown(), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"(?<![\\`])(`+)(?!`).*?(?<!`)\1(?!`)", "", text)  # code
    tags = set(re.findall(r"<[^>]*>", text))
    assert {tag for tag in tags if not re.fullmatch(r'<br>|</a>|<a name="r\d+">', tag)} == set()
    assert not re.search(r"(?<!\\)\]\((?!#r\d+\))", text)
    headings = re.findall(r"^#+ ", text, re.MULTILINE)
    assert Counter(headings)["# "] == 1
    assert Counter(headings)["### "] == len(hostile_document().records)


def test_a_diagram_has_a_line_for_each_step_and_no_other() -> None:
    blocks = re.findall(r"^```mermaid\n(.*?)^```$", hostile_markdown(), re.DOTALL | re.MULTILINE)
    details = view_of(hostile_document()).details
    assert len(blocks) == len(details)
    line = re.compile(
        r"    (?:participant [CLS] as \w+|(?:[CLS](?:->>|-x|--x)|Note over )[CLS]: .*)"
    )
    for block, detail in zip(blocks, details, strict=True):
        head, *lines = block.splitlines()
        assert head == "sequenceDiagram"
        assert all(line.fullmatch(each) for each in lines), lines
        answers = sum(step.loss == "answer" for step in detail.steps)
        assert len(lines) == 3 + len(detail.steps) + answers


@pytest.mark.parametrize(
    ("direction", "lines"),
    [
        ("both", ["C-xL: +1.000 s  keepalive probe 1 unanswered"]),
        (
            "to_client",
            ["C->>L: +1.000 s  keepalive probe 1 unanswered", "L--xC: no answer arrives"],
        ),
    ],
)
def test_what_was_lost_is_crossed_out_in_a_diagram(direction: str, lines: list[str]) -> None:
    fault: dict[str, Any] = {
        "toxic": "a",
        "type": "silent_drop",
        "idle_for": 0.3,
        "direction": direction,
    }
    timeline = (happened(0.0, "fault_hit", **fault), unanswered(1.0, 1))
    page = markdown.render(Document((record(timeline=timeline),)))
    block = page.partition("```mermaid\n")[2].partition("```")[0]
    assert [line.strip() for line in block.splitlines()][-len(lines) :] == lines


def test_a_raw_text_in_a_template_is_refused() -> None:
    with pytest.raises(TypeError, match="would stand in the Markdown as it is"):
        markdown._environment().from_string("{{ text }}").render(text="raw")


# --- colours ------------------------------------------------------------------------------


def palettes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[:2]
    colours = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", each)) for each in (light, dark)]
    assert colours[0].keys() - colours[1].keys() == set()
    return {"light": colours[0], "dark": colours[1]}


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_by_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        *((text, ground) for text in ("text", "muted", "link") for ground in ("ground", "raised")),
        *((text, f"{text}-ground") for text in ("good", "bad", "unsure")),
        *(("text", f"{tone}-ground") for tone in ("good", "bad", "unsure")),
        *((tone, "ground") for tone in ("good", "bad", "unsure")),
        ("focus", "ground"),
    ],
)
def test_every_text_has_contrast(scheme: str, text: str, ground: str) -> None:
    """4.5 for text of this size is WCAG's level AA."""
    colours = palettes()[scheme]
    assert contrast(colours[text], colours[ground]) >= 4.5


@pytest.mark.parametrize(
    ("started", "told"),
    [
        ("2026-11-21T19:56:04+00:00", "2026-11-21 19:56 UTC"),
        ("2026-11-21T21:56:04+02:00", "2026-11-21 19:56 UTC"),
        ("yesterday", "yesterday"),
    ],
)
def test_the_run_says_when_it_began(started: str, told: str) -> None:
    assert dict(view_of(Document(started=started)).facts)["started"] == told
