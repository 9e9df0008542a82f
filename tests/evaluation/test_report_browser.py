"""The report in a real browser: its pages, its viewer, and that it asks the network for nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser import Opened, asked_the_network_for, chromium, open_report
from vqmri.evaluation.montage import curves
from vqmri.evaluation.report import Section, render
from vqmri.evaluation.viewer import PLANES, Viewer
from vqmri.layout import Layout

pytestmark = pytest.mark.services

SHAPE = (7, 9, 12)
SPACING = (1.0, 1.0, 2.0)
PAGES = ["Data", "Samples", "Provenance"]
READ = """canvas => { const context = canvas.getContext("2d");
    return [...context.getImageData(0, 0, canvas.width, canvas.height).data]; }"""


def volumes(seed: int) -> list[tuple[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    return [(f"{'ab'[seed]}{i}", random.integers(0, 256, SHAPE, np.uint8)) for i in range(3)]


SAMPLES, NEAREST = volumes(0), volumes(1)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    viewer = Viewer("Samples and their neighbours.", SAMPLES, SPACING, NEAREST)
    png = curves([{"step": 0.0, "loss": 1.0}], {"loss": ["loss"]})
    sections = [
        Section("Data", "Words.", [("scans", "20", "of as many subjects")], page="Data"),
        Section("Data: warnings", "Words.", head=("scan", "why"), rows=[("a", "b")], page="Data"),
        Section("Gallery", "Words.", pictures=[("curve", png)], viewers=[viewer], page="Samples"),
        Section("More", "Words.", page="Samples", viewers=[Viewer("One.", SAMPLES[:1], SPACING)]),
    ]
    path = tmp_path_factory.mktemp("report") / "report & more.html"
    path.write_text(render("A & B <report>", sections, {"volumes": "0a1b2c"}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=30_000)  # the machine may be busy
    with chromium() as browser:
        yield browser


@pytest.fixture
def opened(report: Path, browser: Browser) -> Iterator[Opened]:
    """The report; whatever a test does with it, it stays silent and asks for nothing."""
    with open_report(report, browser) as opened:
        yield opened
        assert opened.complaints == []
        assert asked_the_network_for(opened) == []
        assert opened.requests


@pytest.fixture
def viewer(opened: Opened) -> Locator:
    opened.page.get_by_role("link", name="Samples").click()
    return opened.page.get_by_test_id("viewer").first


def drawn(viewer: Locator, plane: str, row: int = 0) -> np.ndarray:
    """Grey values of a canvas, as they are looked at."""
    canvas = viewer.locator(f'.plane[data-plane="{plane}"] canvas').nth(row)
    across, up, _ = PLANES[plane]
    pixels = np.array(canvas.evaluate(READ), np.uint8).reshape(SHAPE[up], SHAPE[across], 4)
    assert (pixels[..., :3] == pixels[..., :1]).all()
    assert (pixels[..., 3] == 255).all()
    return pixels[..., 0]


def expected(volume: np.ndarray, plane: str, index: int) -> np.ndarray:
    return np.flipud(volume.take(index, axis=PLANES[plane][2]).T)


def expect_all(viewer: Locator, number: int, at: Sequence[int]) -> None:
    """Both rows show all three planes of volume `number` through the voxel `at`."""
    expect(viewer.locator("output.title")).to_have_text([f"a{number}", f"b{number}"])
    for plane, (_, _, through) in PLANES.items():
        place = viewer.locator(f'.slider output[data-plane="{plane}"]')
        expect(place).to_have_text(f"{plane} {at[through] + 1}/{SHAPE[through]}")
        slider = viewer.locator(f'input[data-plane="{plane}"]')
        expect(slider).to_have_value(str(at[through] + 1))
        for row, (_, volume) in enumerate((SAMPLES[number], NEAREST[number])):
            assert np.array_equal(drawn(viewer, plane, row), expected(volume, plane, at[through]))


def visible_pages(page: Page) -> list[str | None]:
    return [p.get_attribute("aria-label") for p in page.locator(".page").all() if p.is_visible()]


def test_one_page_is_shown_at_a_time(opened: Opened) -> None:
    page = opened.page
    assert page.title() == "A & B <report>"
    assert visible_pages(page) == PAGES[:1]
    for name in reversed(PAGES):
        link = page.get_by_role("navigation", name="Pages").get_by_role("link", name=name)
        link.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("region", name=name)).to_be_visible()
        assert visible_pages(page) == [name]
        expect(link).to_have_attribute("aria-current", "page")
        assert page.locator("[aria-current]").count() == 1
    page.go_back()
    expect(page.get_by_role("region", name="Samples")).to_be_visible()


@pytest.mark.parametrize(
    ("fragment", "shown"),
    [
        ("#samples", "Samples"), ("#page-samples", "Samples"), ("#more", "Samples"),
        ("#data-warnings", "Data"), ("#provenance", "Provenance"), ("#nothing", "Data"),
    ],
)  # fmt: skip
def test_the_address_opens_the_page_that_it_names(
    opened: Opened, fragment: str, shown: str
) -> None:
    opened.page.goto(opened.page.url + fragment)
    expect(opened.page.get_by_role("region", name=shown)).to_be_visible()
    assert visible_pages(opened.page) == [shown]


def test_a_part_of_a_page_can_be_gone_to(opened: Opened) -> None:
    page = opened.page
    page.set_viewport_size({"width": 900, "height": 300})
    page.get_by_role("link", name="Samples").click()
    page.get_by_role("navigation", name="On this page").get_by_role("link", name="More").click()
    expect(page.get_by_role("heading", name="More")).to_be_in_viewport()
    assert visible_pages(page) == ["Samples"]


def test_the_viewer_begins_in_the_middle_of_the_first_volume(viewer: Locator) -> None:
    expect_all(viewer, 0, [n // 2 for n in SHAPE])


def test_sliders_move_their_planes_in_both_rows(viewer: Locator) -> None:
    for plane, (_, _, through) in PLANES.items():
        viewer.locator(f'input[data-plane="{plane}"]').fill(str(through + 2))
    expect_all(viewer, 0, [1, 2, 3])


def test_the_wheel_moves_the_plane_under_the_mouse_and_not_the_page(viewer: Locator) -> None:
    page = viewer.page
    page.set_viewport_size({"width": 900, "height": 400})
    for row, plane, steps, seen in (
        (0, "axial", 2, "axial 9/12"),
        (1, "coronal", -1, "coronal 4/9"),
    ):
        viewer.locator(f'.plane[data-plane="{plane}"]').nth(row).hover()
        before, height = drawn(viewer, plane), page.evaluate("scrollY")
        for _ in range(abs(steps)):
            page.mouse.wheel(0, -100.0 if steps > 0 else 100.0)
        expect(viewer.locator(f'.slider output[data-plane="{plane}"]')).to_have_text(seen)
        assert not np.array_equal(drawn(viewer, plane), before)
        assert page.evaluate("scrollY") == height
    expect_all(viewer, 0, [3, 3, 8])


def test_arrow_keys_move_the_plane_in_focus_and_stop_at_its_ends(viewer: Locator) -> None:
    plane = viewer.locator('.plane[data-plane="sagittal"]').first
    before = drawn(viewer, "sagittal")
    plane.press("ArrowUp")
    assert not np.array_equal(drawn(viewer, "sagittal"), before)
    plane.press("ArrowRight")
    expect_all(viewer, 0, [5, 4, 6])
    for _ in range(3):
        plane.press("ArrowRight")
    expect_all(viewer, 0, [6, 4, 6])
    for key in ("ArrowDown", "ArrowLeft"):
        plane.press(key)
    expect_all(viewer, 0, [4, 4, 6])
    plane.press("Tab")
    viewer.page.keyboard.press("ArrowLeft")  # the coronal one
    expect_all(viewer, 0, [4, 3, 6])


def test_a_click_moves_the_other_planes_there(viewer: Locator) -> None:
    plane = viewer.locator('.plane[data-plane="coronal"]').first
    box = plane.bounding_box()
    assert box
    assert box["height"] / box["width"] == pytest.approx(12 * 2 / 7, rel=0.02)  # square in mm
    plane.click(position={"x": box["width"] * 1.5 / 7, "y": box["height"] * 0.5 / 12})
    expect_all(viewer, 0, [1, 4, 11])


def test_another_volume_can_be_chosen_and_the_place_is_kept(viewer: Locator) -> None:
    viewer.locator('input[data-plane="axial"]').fill("3")
    at = [3, 4, 2]
    viewer.get_by_role("button", name="Next").click()
    expect_all(viewer, 1, at)
    viewer.get_by_role("combobox").select_option("a2")
    expect_all(viewer, 2, at)
    viewer.get_by_role("button", name="Next").click()
    expect_all(viewer, 0, at)
    viewer.get_by_role("button", name="Previous").click()
    expect_all(viewer, 2, at)


def test_every_viewer_goes_by_itself(viewer: Locator, opened: Opened) -> None:
    other = opened.page.get_by_test_id("viewer").last
    other.locator('input[data-plane="axial"]').fill("1")
    assert np.array_equal(drawn(other, "axial"), expected(SAMPLES[0][1], "axial", 0))
    expect_all(viewer, 0, [3, 4, 6])


def test_without_a_script_everything_is_visible(report: Path, browser: Browser) -> None:
    with open_report(report, browser, java_script_enabled=False) as opened:
        page = opened.page
        assert visible_pages(page) == PAGES
        assert page.locator(".mosaics img").count() == 7
        assert all(image.is_visible() for image in page.locator("img").all())
        assert not any(one.is_visible() for one in page.locator("button, input, canvas").all())
        assert opened.complaints == []
        assert asked_the_network_for(opened) == []


def test_all_pages_are_printed(opened: Opened) -> None:
    opened.page.emulate_media(media="print")
    assert visible_pages(opened.page) == PAGES
    assert not any(nav.is_visible() for nav in opened.page.locator("nav").all())
    assert opened.page.locator(".viewer canvas").first.is_visible()
    assert opened.page.pdf().startswith(b"%PDF")


def test_an_intruder_is_refused_the_network(report: Path, browser: Browser, tmp_path: Path) -> None:
    """The check above can fail: a picture from elsewhere is asked for, refused, complained of."""
    html = report.read_text(encoding="utf-8")
    path = tmp_path / "changed.html"
    path.write_text(html.replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>'))
    with open_report(path, browser) as opened:
        assert "Content Security Policy" in "".join(opened.complaints)
    path.write_text(path.read_text().replace("http-equiv", "data-nothing"))
    with open_report(path, browser) as opened:
        assert asked_the_network_for(opened) == ["http://127.0.0.1:9/x.png"]


def test_the_report_of_a_run_has_every_page_and_its_viewer_moves(
    finished: Layout, browser: Browser
) -> None:
    titles = ["Data", "Reconstruction", "Codebook", "Prior study", "Samples", "Use", "Privacy",
              "Provenance"]  # fmt: skip
    with open_report(finished.output("report") / "report.html", browser) as opened:
        page = opened.page
        for title in titles:
            page.get_by_role("link", name=title, exact=True).first.click()
            shown = page.locator(f"#page-{title.lower().replace(' ', '-')}")
            expect(shown).to_be_visible()
            assert shown.inner_text().strip()
        page.get_by_role("link", name="Samples", exact=True).first.click()
        viewer = page.get_by_test_id("viewer").first
        canvas = viewer.locator('.plane[data-plane="axial"] canvas').first
        before = canvas.evaluate(READ)
        slider = viewer.locator('input[data-plane="axial"]')
        slider.focus()
        slider.press("ArrowLeft")
        slider.press("ArrowLeft")
        assert canvas.evaluate(READ) != before
        assert opened.complaints == []
        assert asked_the_network_for(opened) == []
