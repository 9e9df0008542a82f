import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import OF_CODE, OF_PROJECT, first_seen, inside_ball, main, shared
from tests.conftest import REPO
from vqmri.layout import Layout
from vqmri.prior.causal import reach


def pixels(file: Path | bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"), dtype=np.float32)


def test_a_project_gives_every_picture_and_the_same_again(
    finished: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pictures"
    assert main(["--project", str(finished.root), "--out", str(out)]) == 0
    names = [*OF_CODE, *OF_PROJECT]
    assert sorted(path.stem for path in out.iterdir()) == sorted(names)
    assert [line.split(".png")[0] for line in capsys.readouterr().out.splitlines()] == [
        str(out / name) for name in names
    ]
    for name, draw in OF_PROJECT.items():
        assert (out / f"{name}.png").read_bytes() == draw(finished), name
        assert min(pixels(out / f"{name}.png").shape[:2]) > 50
        assert pixels(out / f"{name}.png").std() > 10, "not of one colour"


@pytest.mark.parametrize("name", OF_CODE)
def test_those_of_the_code_alone_are_the_ones_in_the_docs(name: str) -> None:
    kept = pixels(REPO / f"docs/pictures/{name}.png")
    drawn = pixels(OF_CODE[name](None))
    assert drawn.shape == kept.shape
    assert np.abs(drawn - kept).mean() < 1, "draw it again: `python -m benchmarks.pictures`"


@pytest.mark.parametrize("position", [(0, 0, 0), (1, 2, 0), (2, 2, 2), (2, 0, 3)])
def test_the_streams_together_see_what_enough_layers_reach(position: tuple[int, ...]) -> None:
    grid = (3, 3, 4)
    seen = first_seen(position, grid)
    assert seen[position] == 4
    raster = np.arange(36).reshape(grid)
    assert ((seen > 0) & (seen < 4) == (raster < raster[position])).all()
    assert ((seen > 0) & (seen < 4) == reach(position, grid, 8, 3, 2)).all()


def test_a_ball_has_its_volume() -> None:
    voxels = inside_ball((40, 50, 60), (1.0, 2.0, 1.0), 10.0).sum()
    assert voxels * 2.0 == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.05)


def test_what_samples_have_in_common_is_said() -> None:
    people = [
        {"participant_id": "sub-0", "sex": "F", "age": "22"},
        {"participant_id": "sub-1", "sex": "F", "age": "31"},
    ]
    assert shared(people) == "sex F"
    assert shared(people[:1]) == "sex F, age 22"


def test_without_a_project_it_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path), "--only", "codes"]) == 3
    assert "--project DIR" in capsys.readouterr().err
    assert main(["--out", str(tmp_path), "--project", str(tmp_path), "--only", "gallery"]) == 3
    assert "vqmri sample" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
