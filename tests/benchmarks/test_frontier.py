import dataclasses
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.by_time import PRESET
from benchmarks.frontier import CURVE_RATES, NAMES, levels_of, main, picture, run, settings_at
from benchmarks.volumes import read_split
from vqmri.cli import PRESETS
from vqmri.errors import InputError
from vqmri.params import Params

SETTINGS = Params.load(PRESETS / f"{PRESET}.yaml").train_vqvae
ONLY = ["4:16", "4:128+8:256"]
ABOUT = {
    "benchmark", "date", "preset", "minutes", "seed", "batch_size", "volumes", "train_volumes",
    "held_out_volumes", "space", "device", "threads", "versions", "rows", "dct",
}  # fmt: skip
KEYS = {
    "name", "recipe", "parameters", "bits_per_voxel", "psnr", "mse", "ssim", "usage", "perplexity",
    "steps", "training_seconds", "dct_psnr",
}  # fmt: skip


def test_the_last_line_is_json_with_everything_and_the_picture_opens(
    capsys: pytest.CaptureFixture[str], volumes: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "frontier.png"
    arguments = ["--volumes", str(volumes), "--minutes", "0.005", "--seed", "1"]
    assert main([*arguments, "--picture", str(target), "--only", *reversed(ONLY)]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result.keys() == ABOUT
    assert (result["benchmark"], result["minutes"], result["seed"]) == ("frontier", 0.005, 1)
    assert [row["name"] for row in result["rows"]] == ONLY
    for row, maps in zip(result["rows"], (1, 2), strict=True):
        assert row.keys() == KEYS
        assert len(row["usage"]) == len(row["perplexity"]) == maps
        assert all(0 < share <= 1 for share in row["usage"])
        assert row["training_seconds"] >= 0.3
        assert row["steps"] > 0
    rates = [row["bits_per_voxel"] for row in result["rows"]]
    assert rates == [4 / 64, 7 / 64 + 8 / 512]
    _check_curve(result["dct"])
    with Image.open(target) as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 400
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def _check_curve(curve: list[dict[str, float]]) -> None:
    assert len(curve) == 12
    for point, rate in zip(curve, CURVE_RATES, strict=True):
        assert point["bits_per_voxel"] == pytest.approx(rate, rel=0.1)
        assert point["bits_per_voxel"] <= rate
    for key in ("bits_per_voxel", "psnr"):
        values = [point[key] for point in curve]
        assert values == sorted(values)


def test_equal_figures_give_an_equal_picture() -> None:
    rows = [
        {"name": name, "bits_per_voxel": 0.02 * (1 + i), "psnr": 20.0 + i, "dct_psnr": 19.0 + i}
        for i, name in enumerate(NAMES)
    ]
    curve = [{"bits_per_voxel": rate, "psnr": 60 * rate} for rate in CURVE_RATES]
    assert picture(rows, curve) == picture(rows, curve)
    with Image.open(io.BytesIO(picture(rows[:1], curve))) as image:
        assert image.format == "PNG"


def test_the_names_are_those_of_their_levels() -> None:
    assert [level.model_dump() for level in levels_of("4:128+8:256")] == [
        {"downsampling": 4, "num_embeddings": 128},
        {"downsampling": 8, "num_embeddings": 256},
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("channels", "blocks"), [([64, 32], [0, 5]), ([64, 32, 96], [0, 5, 2]), ([32], [1])]
)
def test_the_network_has_as_many_scales_as_its_levels_need(
    name: str, channels: list[int], blocks: list[int]
) -> None:
    preset = SETTINGS.model_copy(update={"channels": channels, "num_res_blocks": blocks})
    settings = settings_at(name, preset)
    assert type(settings).model_validate(settings.model_dump()) == settings
    assert settings.channels[: len(channels)] == channels[: len(settings.channels)]
    kept = {"levels", "channels", "num_res_blocks"}
    assert settings.model_dump(exclude=kept) == preset.model_dump(exclude=kept)


def test_volumes_that_cannot_be_halved_so_often_are_refused_at_once(volumes: Path) -> None:
    split = read_split(volumes)
    train = dataclasses.replace(split.train, volumes=split.train.volumes[..., :12])
    with pytest.raises(InputError, match=r"8:1024 needs .* multiples of 8, .*\[16, 24, 12\]"):
        run(["4:16", "8:1024"], dataclasses.replace(split, train=train), SETTINGS,
            minutes=9.0, seed=0)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "4:17"], "4:17"),
        (["--picture", "it.jpg"], "end in .png"),
        (["--minutes", "0"], "above 0"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert words in capsys.readouterr().err


def test_missing_volumes_are_an_input_error(
    capsys: pytest.CaptureFixture[str], volumes: Path
) -> None:
    assert main(["--volumes", str(volumes / "nothing")]) == 3
    assert "vqmri ingest" in capsys.readouterr().err
