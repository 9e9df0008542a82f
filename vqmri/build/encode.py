"""What the variations of training volumes are made with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vqmri.build.train_vqvae import augmentation_arguments
from vqmri.errors import ParamsError
from vqmri.params import Variations
from vqmri.scans.split import TRAIN
from vqmri.scans.volume import Record

_MIRRORED_AXIS = 0  # left to right


@dataclass(frozen=True)
class Variation:
    """One varied copy of a volume.

    of: row of the volume in the volumes' table
    mirrored: whether left and right are exchanged
    covariates: the subject's, with those exchanged that mirroring exchanges
    """

    of: int
    mirrored: bool
    covariates: dict[str, Any]


def variations(
    params: Variations | None, records: Sequence[Record], split: str = TRAIN
) -> list[Variation]:
    """All copies to make, pass by pass over the volumes of a side.

    Raises ParamsError for values to swap that no volume has.
    """
    if params is None:
        return []
    chosen = [(row, record) for row, record in enumerate(records) if record.split == split]
    can_mirror = _MIRRORED_AXIS in params.augment.flips
    if can_mirror:
        _check_swaps(params.swaps, [record.covariates for record in records])
    return [
        Variation(row, mirrored, _covariates(record.covariates, params.swaps, mirrored))
        for copy in range(params.copies)
        for mirrored in [can_mirror and copy % 2 == 1]
        for row, record in chosen
    ]


def _check_swaps(swaps: Mapping[str, tuple[Any, Any]], rows: Sequence[Mapping[str, Any]]) -> None:
    for name, values in swaps.items():
        found = {row[name] for row in rows if row.get(name) is not None}
        if found.isdisjoint(values):
            some = ", ".join(map(repr, sorted(found, key=str)[:5])) or "nothing"
            raise ParamsError(
                f"params.yaml: encode.variations.swaps.{name}: no scan has {values[0]!r} "
                f"or {values[1]!r}. In their table {name} is {some}: write two of these."
            )


def _covariates(
    covariates: Mapping[str, Any], swaps: Mapping[str, tuple[Any, Any]], mirrored: bool
) -> dict[str, Any]:
    found = dict(covariates)
    for name, (one, other) in swaps.items() if mirrored else ():
        if name in found:
            found[name] = {one: other, other: one}.get(found[name], found[name])
    return found


def variation_arguments(params: Variations, *, spacing: Sequence[float]) -> dict[str, Any]:
    """What `Augmentation` takes beside device and labels; mirroring is decided copy by copy."""
    arguments = augmentation_arguments(params.augment, spacing=spacing)
    return arguments | {"flips": [axis for axis in params.augment.flips if axis != _MIRRORED_AXIS]}
