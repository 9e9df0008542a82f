import re
from html.parser import HTMLParser

from vqmri.evaluation.report import Section, render
from vqmri.layout import Layout


def test_text_is_escaped() -> None:
    html = render("<title>", [Section("One", "a < b & c")], {"x": "<script>"})
    assert "a &lt; b &amp; c" in html
    assert "<script>" not in html


def test_tables_and_pictures_of_a_section_are_shown() -> None:
    section = Section(
        "Two words", "text", [("name", "3.5", "meaning")], [("caption", b"picture")],
        head=("way", "bits"), rows=[("marginals", "5.1"), ("prior", "4.2")],
    )  # fmt: skip
    html = render("title", [section], {})
    assert '<section id="two-words">' in html
    assert '<a href="#two-words">' in html
    for text in ("3.5", "meaning", "<th>bits</th>", "marginals", "4.2", "caption", "cGljdHVyZQ=="):
        assert text in html
    plain = render("title", [Section("Two words", "text")], {})
    assert "<th>" not in plain
    assert "<figure>" not in plain


def test_the_report_of_a_run_is_whole_and_asks_the_network_for_nothing(finished: Layout) -> None:
    html = (finished.output("report") / "report.html").read_text()
    for section in ("reconstruction", "codebook", "prior", "samples", "provenance"):
        assert f'<section id="{section}">' in html
    assert html.count("data:image/png;base64,") >= 4
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)
    parser = HTMLParser()
    parser.feed(html)
    parser.close()
