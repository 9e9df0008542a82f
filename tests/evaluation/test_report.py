import re
from html.parser import HTMLParser
from io import BytesIO

import matplotlib.image
import numpy as np

from vqmri.evaluation.montage import curves, montage, strip, three_planes
from vqmri.evaluation.report import Section, render
from vqmri.layout import Layout


def test_planes_of_an_ras_volume_have_up_on_top() -> None:
    volume = np.zeros((4, 6, 8))
    volume[:, :, 7] = 1  # the crown of the head
    sagittal, coronal, axial = three_planes(volume)
    assert sagittal.shape == (8, 6)
    assert coronal.shape == (8, 4)
    assert axial.shape == (6, 4)
    assert sagittal[0].min() == 1
    assert sagittal[1:].max() == 0


def test_montage_is_a_png_that_shows_its_pictures() -> None:
    bright, dark = np.ones((20, 20)), np.zeros((20, 20))
    image = matplotlib.image.imread(
        BytesIO(montage([[bright, dark]], ["a", "b"], ["row"], scale=5))
    )
    half = image.shape[1] // 2
    assert image[:, :half, 0].mean() > image[:, half:, 0].mean() + 0.3


def test_strip_has_room_for_all_three() -> None:
    assert strip(np.zeros((4, 6, 8))).shape == (8, 6 + 4 + 4 + 3 * 2)


def test_curves_skip_rows_that_lack_a_name() -> None:
    history = [{"step": 1.0, "a": 1.0}, {"step": 2.0, "a": 2.0, "b": 3.0}]
    assert curves(history, {"both": ["a", "b"]}).startswith(b"\x89PNG")


def test_text_is_escaped() -> None:
    html = render("<title>", [Section("One", "a < b & c")], {"x": "<script>"})
    assert "a &lt; b &amp; c" in html
    assert "<script>" not in html


def test_the_report_of_a_run_is_whole_and_asks_the_network_for_nothing(finished: Layout) -> None:
    html = (finished.output("report") / "report.html").read_text()
    for section in ("reconstruction", "codebook", "prior", "samples", "provenance"):
        assert f'<section id="{section}">' in html
    assert html.count("data:image/png;base64,") == 4
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)
    parser = HTMLParser()
    parser.feed(html)
    parser.close()
