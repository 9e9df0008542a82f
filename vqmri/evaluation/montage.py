"""Pictures of volumes: three planes through the centre, as PNG bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float

from vqmri.protocols import Metrics

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

_LEAST_INCHES = 0.35  # of a picture's side, so that there is room for its label
_LABEL_INCHES = 2.6

Plane = Float[np.ndarray, "height width *rgb"]
"""Grey, or with three channels in the end."""


def three_planes(volume: Float[np.ndarray, "x y z"]) -> list[Plane]:
    """Sagittal, coronal and axial middle slices of an RAS volume, up being up."""
    x, y, z = (n // 2 for n in volume.shape)
    return [np.flipud(p.T) for p in (volume[x], volume[:, y], volume[:, :, z])]


def strip(volume: Float[np.ndarray, "channel *space"]) -> Plane:
    """The three planes of a volume side by side, channel after channel; of a picture itself."""
    if volume.ndim == 3:
        return picture(volume)
    planes = [plane for channel in volume for plane in three_planes(channel)]
    height = max(plane.shape[0] for plane in planes)
    padded = [np.pad(p, ((height - p.shape[0], 0), (0, 2)), constant_values=0.0) for p in planes]
    return np.concatenate(padded, axis=1)


def one_slice(volume: Float[np.ndarray, "channel *space"]) -> Plane:
    """The coronal middle slice of a volume's first channel; of a picture itself."""
    return picture(volume) if volume.ndim == 3 else three_planes(volume[0])[1]


def picture(image: Float[np.ndarray, "channel row column"]) -> Plane:
    """Grey or RGB, as channels are one or three; with a thin dark edge."""
    plane = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    return np.pad(plane, [(1, 1), (1, 1), (0, 0)][: plane.ndim])


def montage(
    rows: Sequence[Sequence[Plane]],
    titles: Sequence[str],
    labels: Sequence[str],
    *,
    scale: float,
    flat_labels: bool = False,
) -> bytes:
    """A table of pictures with column titles and row labels; `scale` inches per 100 pixels.

    flat_labels: for long labels, which are then written across and not upwards
    """
    height, width = (max(n * scale / 100, _LEAST_INCHES) for n in rows[0][0].shape[:2])
    margin = _LABEL_INCHES if flat_labels else 0.0
    figure, axes = plt.subplots(
        len(rows),
        len(rows[0]),
        figsize=(len(rows[0]) * width + margin, len(rows) * height + 0.3),
        squeeze=False,
        layout="constrained",
    )
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            axis = axes[row, column]
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0 and titles:
                axis.set_title(titles[column], fontsize=9)
            if column == 0 and labels:
                style: dict[str, Any] = {"rotation": 0, "ha": "right"} if flat_labels else {}
                axis.set_ylabel(labels[row], fontsize=8, **style)
    return _png(figure)


def curves(history: Sequence[Metrics], panels: Mapping[str, Sequence[str]]) -> bytes:
    """One panel per entry: its title, and the names in the history that are drawn in it."""
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4 * len(panels), 2.8), squeeze=False, layout="constrained"
    )
    for axis, (title, names) in zip(axes[0], panels.items(), strict=True):
        for name in names:
            points = [(row["step"], row[name]) for row in history if name in row]
            marker = "o" if len(points) <= 30 else ""
            axis.plot(*zip(*points, strict=True), label=name, linewidth=1.2, marker=marker, ms=3)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    return _png(figure)


def scatter(
    series: Mapping[str, tuple[Float[np.ndarray, " a"], Float[np.ndarray, " a"]]], x: str, y: str
) -> bytes:
    """Points of each series with its regression line; `x` and `y` name the axes."""
    figure, axis = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for name, (across, up) in series.items():
        colour = f"C{len(axis.collections)}"
        axis.scatter(across, up, s=10, alpha=0.6, label=name, color=colour)
        if len(np.unique(across)) > 1:
            ends = np.array([across.min(), across.max()])
            line = np.polyval(np.polyfit(across, up, 1), ends)
            axis.plot(ends, line, color=colour, linewidth=1.5)
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    return file.getvalue()
