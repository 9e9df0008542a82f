"""The pictures of docs/concepts.md and docs/gallery.md.

    python -m benchmarks.pictures [--project DIR] [--out docs/pictures] [--only NAME …]

| name    | what                                                                | from             |
|---------|---------------------------------------------------------------------|------------------|
| streams | which causal stream sees which position, and how far layers reach   | the code alone   |
| cached  | what the two samplers compute for one code                          | the code alone   |
| codes   | a held-out volume, its codes and what they decode to                | DIR, encoded     |
| bits    | what a held-out volume costs, code by code, and with a lesion in it | DIR, with prior  |
| gallery | the samples                                                         | DIR, sampled     |
| age     | the same draws, asked for two ages                                  | DIR, with prior  |

DIR is a project of volumes with one channel, as `make demo` leaves one; without it only the first
two are made. Equal projects give equal files.
"""

import argparse
import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from vqmri.codes import CodeStore
from vqmri.errors import InputError, VqmriError
from vqmri.evaluation.montage import montage, strip, three_planes
from vqmri.layout import Layout
from vqmri.outputs import replace_file
from vqmri.params import PARAMS, Params
from vqmri.prior.causal import reach
from vqmri.scans.split import HELD_OUT
from vqmri.scans.store import VolumeStore
from vqmri.scans.volume import Record

COLOURS = ("#ffffff", "#9ecae1", "#fdae6b", "#e6550d", "#000000")
NAMES = ("not seen", "planes", "rows", "voxels", "the position")
KERNEL, RADIUS, LAYERS = 3, 2, (1, 2, 3, 5)
LESION, DARK = 15.0, 0.1  # radius in mm; intensity
LESION_AT = (0.62, 0.62, 0.5)
"""Middle of the ball, as shares of the axes: off the middle, in a phantom's white matter."""

AGES, SEX, DRAWS = (25, 85), "F", 4
_PER_ROW, _MOST = 8, 64

Grid = Int[np.ndarray, "..."]


def streams(_: Layout | None = None) -> bytes:
    """By stream, what stands before a position in 3D; by layers, what one in 2D is told of."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False).flat
    planes = first_seen((2, 2, 2), (5, 5, 5))
    for x, axis in enumerate(above.subplots(1, 5)):
        _cells(axis, planes[x])
        axis.set_title(f"plane x = {x}", fontsize=9)
    above.legend(handles=_keys(NAMES), ncols=5, loc="outside lower center", fontsize=8)
    position, grid = (8, 8), (15, 17)
    streams_of_2d = first_seen(position, grid) + 1  # there are no planes
    for count, axis in zip(LAYERS, below.subplots(1, len(LAYERS)), strict=True):
        cells = np.where(reach(position, grid, count, KERNEL, RADIUS), streams_of_2d, 0)
        cells[position] = 4
        _cells(axis, cells)
        axis.set_title(f"{count} layer{'s' if count > 1 else ''}", fontsize=9)
    return _png(figure)


def first_seen(position: Sequence[int], grid: Sequence[int]) -> Grid:
    """Of each position the number of the first stream that may know it, from 1; 4: `position`."""
    seen = np.zeros(tuple(grid), dtype=np.int64)
    for stream in reversed(range(len(grid))):
        before: tuple[int | slice, ...] = (*position[:stream], slice(0, position[stream]))
        seen[before] = stream + 1
    seen[tuple(position)] = 4
    return seen


def cached(_: Layout | None = None) -> bytes:
    """A code in the middle of a grid of four planes: what each sampler computes for it."""
    position, grid = (2, 3, 4), (4, 6, 8)
    plain = np.full(grid, 3)
    plain[3:] = 0  # later planes cannot matter
    plain[position] = 4
    new = np.zeros(grid, dtype=np.int64)
    new[2], new[2, 3], new[position] = 1, 2, 3
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    texts = (
        "plain: for every code the whole net over all planes up to it",
        "cached: the plane stream once a plane, the row stream once a row, the rest once a code",
    )
    parts = figure.subfigures(2, 1, squeeze=False).flat
    for part, cells, text in zip(parts, (plain, new), texts, strict=True):
        part.suptitle(text, fontsize=9)
        for x, axis in enumerate(part.subplots(1, grid[0])):
            _cells(axis, cells[x])
            axis.set_title(f"plane x = {x}", fontsize=8)
    names = ("kept, or not computed", "once a plane", "once a row", "once a code", "the code")
    figure.legend(handles=_keys(names), ncols=5, loc="outside lower center", fontsize=8)
    return _png(figure)


def codes(project: Layout | None) -> bytes:
    """Axial middle slices: volume, codes as colours, reconstruction, difference."""
    import torch

    from vqmri.training.generator import Generator

    layout, record = _held_out(project)
    volume = VolumeStore(layout.need("volumes")).read([record])[0, 0]
    store = CodeStore(layout.need("codes"))
    values = store.read([record.index])
    generator = Generator(layout.need("vqvae"), layout.need("prior"))
    found = generator.decode([torch.from_numpy(v.astype(np.int64)) for v in values])[0, 0]
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    left, middle, right, last = figure.subplots(1, 4)
    _slice(left, _axial(volume), "a held-out volume, and its blocks")
    factor = volume.shape[0] // values[0].shape[1]
    for axis, size in zip((left.axvline, left.axhline), _axial(volume).shape[::-1], strict=True):
        for edge in range(0, size + 1, factor):
            axis(edge - 0.5, color="#fdae6b", linewidth=0.4)
    _codes(middle, _axial(values[0][0]), store.num_embeddings[0])
    _slice(right, _axial(found), "decoded")
    shown = last.imshow(_axial(found - volume), cmap="RdBu", vmin=-0.5, vmax=0.5)
    _plain(last, "decoded − volume")
    figure.colorbar(shown, ax=last, shrink=0.8).ax.tick_params(labelsize=7)
    return _png(figure)


def bits(project: Layout | None) -> bytes:
    """A held-out volume and the bits of its codes, as it is and with a dark ball in it."""
    from vqmri.evaluation.unusualness import unusualness
    from vqmri.prior.covariates import encode
    from vqmri.training.generator import Generator

    layout, record = _held_out(project)
    store = VolumeStore(layout.need("volumes"))
    volume = store.read([record])[0]
    generator = Generator(layout.need("vqvae"), layout.need("prior"))
    known = {c.name: record.covariates[c.name] for c in generator.prior.covariates}
    rows = encode(generator.prior.covariates, [known], extrapolate=True)
    ball = inside_ball(volume.shape[1:], store.spacing, LESION)
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, 4)
    pairs = (("as it is", volume), ("with a dark ball", np.where(ball, np.float32(DARK), volume)))
    maps = []
    for number, (title, scan) in enumerate(pairs):
        result = unusualness(generator.vqvae, generator.prior, scan, record.box, rows)
        maps.append(result.voxels)
        _slice(axes[2 * number], _axial(scan[0]), title)
        words = f"{result.total_bits:,.0f} bits, {result.bits_per_code:.2f} a code"
        _plain(axes[2 * number + 1], words)
    most = max(float(_axial(m).max()) for m in maps)
    for axis, found in zip(axes[1::2], maps, strict=True):
        shown = axis.imshow(_axial(found), cmap="inferno", vmin=0, vmax=most)
    bar = figure.colorbar(shown, ax=axes[-1], shrink=0.8, label="bits a voxel")
    bar.ax.tick_params(labelsize=7)
    return _png(figure)


def inside_ball(
    shape: Sequence[int], spacing: Sequence[float], radius: float
) -> Bool[np.ndarray, "x y z"]:
    """The voxels within `radius` mm of LESION_AT."""
    axes = zip(shape, LESION_AT, spacing, strict=True)
    squares = [((np.arange(n) - int(n * at)) * mm) ** 2 for n, at, mm in axes]
    return squares[0][:, None, None] + squares[1][:, None] + squares[2] <= radius**2


def gallery(project: Layout | None) -> bytes:
    """Axial middle slices of the samples, eight in a row; what all of a row or column share."""
    import nibabel

    folder = _given(project).need("samples")
    with (folder / "participants.tsv").open(encoding="utf-8") as file:
        people = list(csv.DictReader(file, delimiter="\t"))[:_MOST]
    people = people[: max(len(people) // _PER_ROW, 1) * _PER_ROW]
    pictures = []
    for person in people:
        (image, *_) = sorted((folder / person["participant_id"] / "anat").glob("*_T1w.nii.gz"))
        pictures.append(_axial(np.asarray(nibabel.load(image).dataobj)))
    starts = range(0, len(people), _PER_ROW)
    rows = [pictures[start : start + _PER_ROW] for start in starts]
    of_rows = [people[start : start + _PER_ROW] for start in starts]
    titles = [shared(column) for column in zip(*of_rows, strict=True)]
    return montage(rows, titles, [shared(row) for row in of_rows], scale=2.2)


def age(project: Layout | None) -> bytes:
    """Middle slices of four draws, as the project samples, of women of each age."""
    from vqmri.build.sample import choice
    from vqmri.prior.covariates import encode
    from vqmri.training.generator import Generator

    layout = _given(project)
    settings = Params.load(layout.root / PARAMS).sample
    generator = Generator(layout.need("vqvae"), layout.need("prior"))
    rows = []
    for years in AGES:
        asked = [{"age": years, "sex": SEX}] * generator.micro_batch
        known = encode(generator.prior.covariates, asked, extrapolate=True)
        codes = generator.draw(settings.seed, 0, choice(settings), rows=known)
        volumes = generator.decode(codes, number=DRAWS)
        if settings.residual:
            volumes = generator.with_residuals(volumes, settings.seed, range(DRAWS))
        rows.append([strip(volume) for volume in volumes])
    return montage(rows, [], [f"age {years}" for years in AGES], scale=2.2)


def shared(people: Sequence[Mapping[str, str]]) -> str:
    """The covariates that all of these samples were asked for, as `age 85`."""
    names = [name for name in people[0] if name != "participant_id"]
    same = [name for name in names if len({person[name] for person in people}) == 1]
    return ", ".join(f"{name} {people[0][name]}" for name in same)


def _given(project: Layout | None) -> Layout:
    if project is None:
        raise InputError("This picture is made from a project. Name one with `--project DIR`.")
    return project


def _held_out(project: Layout | None) -> tuple[Layout, Record]:
    """The first held-out volume."""
    layout = _given(project)
    store = VolumeStore(layout.need("volumes"))
    if store.shape[0] != 1 or len(store.shape) != 4:
        raise InputError(
            f"{layout.output('volumes')} has volumes of shape {list(store.shape)}; this picture is "
            "made from 3D volumes with one channel, as those of the demo."
        )
    return layout, store.of_split(HELD_OUT)[0]


def _axial(volume: np.ndarray) -> np.ndarray:
    """The axial middle slice, up being front."""
    return three_planes(volume.astype(np.float64))[2]


def _slice(axis: Axes, plane: Float[np.ndarray, "height width"], title: str) -> None:
    axis.imshow(plane, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    _plain(axis, title)


def _codes(axis: Axes, plane: np.ndarray, num_embeddings: int) -> None:
    axis.imshow(plane, cmap="tab20", vmin=0, vmax=num_embeddings - 1, interpolation="nearest")
    for (row, column), code in np.ndenumerate(plane):
        axis.text(column, row, str(int(code)), ha="center", va="center", fontsize=5)
    _plain(axis, f"its codes, of {num_embeddings}")


def _cells(axis: Axes, cells: Grid) -> None:
    """A map of small numbers as coloured squares."""
    axis.imshow(cells, cmap=ListedColormap(COLOURS), vmin=0, vmax=len(COLOURS) - 1)
    axis.set_xticks(np.arange(cells.shape[1] + 1) - 0.5, labels=[])
    axis.set_yticks(np.arange(cells.shape[0] + 1) - 0.5, labels=[])
    axis.grid(color="#bbbbbb", linewidth=0.4)
    axis.tick_params(length=0)


def _keys(names: Sequence[str]) -> list[Any]:
    from matplotlib.patches import Patch

    pairs = zip(COLOURS, names, strict=True)
    return [Patch(facecolor=colour, edgecolor="#777777", label=name) for colour, name in pairs]


def _plain(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(
        file,
        format="png",
        dpi=110,
        bbox_inches="tight",
        pad_inches=0.05,
        metadata={"Software": None},
    )
    return file.getvalue()


OF_CODE: dict[str, Callable[[Layout | None], bytes]] = {"streams": streams, "cached": cached}
OF_PROJECT: dict[str, Callable[[Layout | None], bytes]] = {
    "codes": codes,
    "bits": bits,
    "gallery": gallery,
    "age": age,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the pictures; the exit code."""
    command = argparse.ArgumentParser("python -m benchmarks.pictures")
    command.add_argument("--project", type=Path, help="a project with samples")
    command.add_argument("--out", type=Path, default=Path("docs/pictures"))
    command.add_argument("--only", nargs="+", choices=[*OF_CODE, *OF_PROJECT], metavar="NAME")
    asked = command.parse_args(arguments)
    project = Layout(asked.project) if asked.project else None
    makers = OF_CODE | (OF_PROJECT if project or asked.only else {})
    try:
        for name in asked.only or makers:
            png = makers[name](project)
            replace_file(asked.out / f"{name}.png", png)
            print(f"{asked.out / name}.png, {len(png) / 1000:.0f} kB")
    except VqmriError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
