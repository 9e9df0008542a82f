import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from vqmri.evaluation.gates import Verdict
from vqmri.evaluation.report import Section, render
from vqmri.evaluation.report.cards import CardFacts, datasheet, model_card
from vqmri.evaluation.viewer import Viewer
from vqmri.layout import Layout


def without_pictures(html: str) -> str:
    return re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)


class Parsed(HTMLParser):
    """Ids, the pages they stand in, and where links lead; fails on a tag that is left open."""

    VOID = frozenset(("meta", "link", "img", "input"))

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.pages: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if found := values.get("id"):
            self.ids.append(found)
            if "page" in (values.get("class") or "").split():
                self.pages[found] = []
            elif tag == "section":
                [*self.pages.values()][-1].append(found)
        if tag == "a":
            self.targets.append(values["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_text_is_escaped() -> None:
    html = render("<b> & title", [Section("O<n>e", "a < b & c", page="<i>")], {"x": "<u>"})
    for text in ("a &lt; b &amp; c", "&lt;b&gt; &amp; title", "O&lt;n&gt;e", "&lt;i&gt;"):
        assert text in html
    assert not re.search("<b>|<i>|<u>|<n>", html)
    Parsed(html)


def test_titles_in_a_viewer_are_escaped() -> None:
    viewer = Viewer('"<i>', [("<b>'", np.zeros((2, 2, 2), np.uint8))], (1.0, 1.0, 1.0))
    html = render("title", [Section("One", "", viewers=[viewer], page="A")], {})
    assert not re.search("<b>|<i>", html)
    Parsed(html)


def test_tables_and_pictures_of_a_section_are_shown() -> None:
    section = Section(
        "Two words", "text", [("name", "3.5", "meaning")], [("caption", b"picture")],
        head=("way", "bits"), rows=[("marginals", "5.1"), ("prior", "4.2")], page="A",
    )  # fmt: skip
    html = render("title", [section], {})
    assert '<section id="two-words">' in html
    for text in ("3.5", "meaning", ">bits</th>", "marginals", "4.2", "caption", "cGljdHVyZQ=="):
        assert text in html
    plain = render("title", [Section("Two words", "text", page="A")], {})
    assert "<th>" not in plain
    assert "<figure>" not in plain


def test_sections_stand_on_their_pages_in_the_order_of_first_mention() -> None:
    parsed = Parsed(
        render(
            "title",
            [
                Section("Scans", "", page="Data"),
                Section("Gallery", "", page="Samples"),
                Section("Warnings", "", page="Data"),
            ],
            {},
        )
    )
    assert parsed.pages == {
        "page-data": ["scans", "warnings"],
        "page-samples": ["gallery"],
        "page-provenance": ["provenance"],
    }
    assert parsed.targets == [
        "#page-data", "#page-samples", "#page-provenance", "#scans", "#warnings",
    ]  # fmt: skip


def test_ids_are_unique_whatever_the_titles() -> None:
    titles = ["Use", "use!", "Use 2", "Provenance", "Page provenance", "Page A", "é", "+"]
    html = render("title", [Section(title, "", page="A") for title in titles], {})
    parsed = Parsed(html)
    assert parsed.pages["page-a"] == [
        "use", "use-2", "use-2-2", "provenance-2", "page-provenance-2", "page-a-2",
        "section", "section-2",
    ]  # fmt: skip
    assert {target.removeprefix("#") for target in parsed.targets} <= set(parsed.ids)


def test_without_sections_the_provenance_is_shown() -> None:
    html = render("title", [], {"volumes": "abc"})
    assert '<div class="page current" id="page-provenance"' in html
    assert Parsed(html).pages == {"page-provenance": ["provenance"]}


def test_the_browser_is_told_to_ask_the_network_for_nothing() -> None:
    html = render("title", [], {})
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    assert policy[1].startswith("default-src 'none'; img-src data:;")
    assert html.index("Content-Security-Policy") < html.index("<link")


def test_the_report_of_a_run_is_whole_and_asks_the_network_for_nothing(finished: Layout) -> None:
    html = (finished.output("report") / "report.html").read_text()
    for section in ("reconstruction", "codebook", "prior", "samples", "provenance"):
        assert f'<section id="{section}">' in html
    assert html.count("data:image/png;base64,") >= 4
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert "http:" not in without_pictures(html)
    assert "https:" not in without_pictures(html)
    Parsed(html)


BARE = CardFacts(
    name="phantom", version="0.1.0", fingerprints={}, source="phantom",
    scans={"train": 16, "held_out": 4}, subjects={"train": 15, "held_out": 3},
    shape=[16, 24, 16], channels=["T1w"], kinds={"VQ-VAE": "ema"}, parameters={},
    levels=[(4, 16)], bits_per_voxel=0.0625, temperature=1.0, samples=10, layout="BIDS derivative",
)  # fmt: skip
FULL = replace(
    BARE, name="a|b_*<i>", source="bids", fingerprints={"volumes": "0a1b", "prior": "2c3d"},
    channels=["T1w", "T2w"], parameters={"VQ-VAE": 1234567}, levels=[(4, 16), (8, 512)],
    spacing=(1.0, 1.0, 2.5), covariates={"age": "20–31, median 25.5", "sex": "F (6), M (6)"},
    licence="CC0,\n\nno [strings]", conditions=["age", "sex"], asked={"sex": "F"},
    metrics={"psnr": (22.5, "dB", 21.0, 24.0), "dice": (float("nan"), "of labels", None, None)},
    gates=[
        Verdict("psnr", "≥ 20", 22.5, True), Verdict("ssim", "≥ 0.9", None, False),
        Verdict("frechet_ratio", "≤ 2", 1.5, False, fooled=True),
    ],
    findings=[("nearest scan", "0.31", "0.30", "no copies")],
)  # fmt: skip
EMPTY = re.compile(r"^(#+) .*\n+(?=\Z|(#+) )", re.MULTILINE)


def hollow(text: str) -> list[str]:
    """Headings that nothing follows but the end, or a heading that is not one below."""
    return [m[0] for m in EMPTY.finditer(text) if not m[2] or len(m[2]) <= len(m[1])]


@pytest.mark.parametrize("document", [model_card, datasheet])
@pytest.mark.parametrize("facts", [BARE, FULL], ids=["bare", "full"])
def test_documents_have_no_empty_part(document: object, facts: CardFacts) -> None:
    assert callable(document)
    text: str = document(facts)
    assert hollow(text) == []
    assert not re.search(r"None|\bnan\b|\{\{|\{%|\[\]|\(\)|Undefined|anonym", text)
    assert "\n\n\n" not in text
    assert text.endswith((".\n", "```\n"))
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):  # whole tables
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}
        assert len(cells) == 1, block
        assert len(block.splitlines()) > 2, block
    assert f"{facts.scans['train']} scans of {facts.subjects['train']} subjects" in " ".join(
        text.split()
    )


def test_hollow_headings_are_found() -> None:
    assert hollow("# a\n\n## b\n\ntext\n\n## c\n\n## d\n") == ["## c\n\n", "## d\n"]
    assert hollow("# a\n\n## b\n\n### c\n\n## d\n\ntext\n") == ["### c\n\n"]


def headings(text: str) -> list[str]:
    return re.findall(r"^## (.*)$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("facts", [BARE, FULL], ids=["bare", "full"])
def test_documents_have_the_headings_of_the_papers(facts: CardFacts) -> None:
    assert headings(model_card(facts)) == [
        "Model details", "Intended use", "Out-of-scope use", "Factors", "Metrics",
        "Training data", "Evaluation data", "Quantitative analyses", "Privacy tests",
        "Limitations and caveats", "How to get started",
    ]  # fmt: skip
    assert headings(datasheet(facts)) == [
        "Motivation", "Composition", "Collection process", "Preprocessing", "Uses",
        "Distribution", "Maintenance",
    ]  # fmt: skip


def test_documents_say_what_is_known() -> None:
    card, sheet = model_card(FULL), datasheet(FULL)
    for text in (card, sheet):
        assert "a\\|b\\_\\*\\<i\\>" in text
        assert "CC0, no \\[strings\\]" in text
        assert "22.5 (21 to 24)" in text
        assert "| dice | not defined |" in text
        assert "| nearest scan | 0.31 | 0.30 | no copies |" in text
        assert "1 × 1 × 2.5 mm" in text
        assert "2c3d" in text
        assert "phantom" not in text
    assert "1,234,567 parameters" in card
    assert "| psnr | ≥ 20 | 22.5 | yes |" in card
    assert "| ssim | ≥ 0.9 | not defined | no |" in card
    assert "| frechet_ratio | ≤ 2 | 1.5 | no; no gate: a known fake reaches it |" in card
    assert "Level 1 of the codes: one code per 8 voxels along each axis, out of 512" in card
    assert "| sex | F |" in sheet


def test_documents_say_what_was_not_measured_and_what_would() -> None:
    card, sheet = model_card(BARE), datasheet(BARE)
    for text in (card, sheet):
        assert "not stated in params" in text
        assert "Nothing was measured; the section `evaluate` of params.yaml would." in text
        assert "No privacy test was run; the section `evaluate` of params.yaml would." in text
        assert "procedural phantoms" in text
    assert "held to no bounds" in card
    assert "No covariate was read" in card
