"""A single scan, outside any data set, and the published models: what such tools have in common.

They publish nothing below data/. A scan goes the way of ingest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqmri.build.ingest import normaliser, preparer
from vqmri.errors import InputError, ParamsError
from vqmri.layout import Layout
from vqmri.outputs import Manifest, digest
from vqmri.params import Ingest
from vqmri.scans import image_file, nifti
from vqmri.scans.check import REFUSALS, Refused
from vqmri.scans.volume import Normalised, Steps, Volume
from vqmri.stages.kinship import check_kinship

SUFFIX = ".nii.gz"
_DECIDES_VOLUMES = (
    "spacing", "shape", "percentiles", "deface", "brain_mask", "skull_strip", "bias_correction",
    "foreground_crop",
)  # fmt: skip


@dataclass(frozen=True)
class OneScan:
    """raw: as it was read; normalised: as ingest would store it.

    steps: all that was done to it, in order; sha256: of its file
    """

    raw: Volume
    normalised: Normalised
    steps: Steps
    sha256: str


def read_one(scan: Path, settings: Ingest, root: Path, mask: Path | None = None) -> OneScan:
    """A scan as ingest would store it.

    root: of the project; mask: its brain mask, for a project whose source has masks
    InputError for a file that is absent or no image by its name and for a scan that ingest would
    refuse, ParamsError for a mask that is absent or one
    too many.
    """
    masks = getattr(settings.source, "masks", None)
    if (masks is None) != (mask is None):
        raise ParamsError(
            "--mask: the scans of this project had none from a file; leave it out."
            if mask
            else f"--mask is missing: this project's scans have brain masks ({masks!r})."
        )
    for path in (scan, mask) if mask else (scan,):
        _check_file(path)
    try:
        raw, sha256 = nifti.read(scan)
        if mask is not None:
            raw = Volume(raw.data, raw.affine, mask=nifti.read_mask(mask, raw))
        prepared, steps = preparer(settings, root)(raw)
        done = normaliser(settings)(prepared)
    except Refused as refusal:
        raise InputError(
            f"{scan}: {refusal.code}: {refusal.reason}. Ingest refuses such a scan: "
            f"{REFUSALS[refusal.code]}. Mend it, or name another."
        ) from refusal
    return OneScan(raw, done, steps + done.steps, sha256)


def _check_file(path: Path) -> None:
    if not image_file.is_image(path):
        raise InputError(
            f"{path} is no image by its name: .nii, .hdr with .img, .mgh, each of them also with "
            ".gz, and .mgz are. Name such a file; dcm2niix makes one of a DICOM series."
        )
    if not path.is_file():
        raise InputError(f"{path} is missing or is no file. Name a scan that is there.")


def sidecar(target: Path) -> Path:
    """The JSON beside a NIfTI."""
    return target.with_name(target.name.removesuffix(SUFFIX) + ".json")


def may_write(targets: Sequence[Path], data: Layout, raw: str) -> None:
    """ParamsError for NIfTIs that would replace a file, or lie among the project's own outputs."""
    for target in targets:
        if not target.name.endswith(SUFFIX):
            raise ParamsError(f"--out {target}: it is a NIfTI; give it a name in {SUFFIX}.")
        for path in (target, sidecar(target)):
            if path.exists():
                raise ParamsError(f"{path} exists. Remove it, or name another with `--out`.")
        if data.is_own(target, raw):
            raise ParamsError(
                f"{target} would lie in a folder that is the project's own. Name another with "
                "`--out`."
            )


def check_project(settings: Ingest, data: Layout, about: Mapping[str, Any]) -> None:
    """The models are of single grey volumes, and of such as params.yaml's ingest makes.

    about: what is stored with the VQ-VAE
    ParamsError where it is not so, IntegrityError for a VQ-VAE of other volumes.
    """
    if len(about["shape"]) != 4:
        raise ParamsError(
            f"ingest.source.kind = {settings.source.kind!r}: this takes volumes, and the models "
            "of this project were trained on pictures. Run it in a project of volumes."
        )
    if len(about["channels"]) != 1:
        names = ", ".join(channel["name"] for channel in about["channels"])
        raise ParamsError(
            f"ingest.source: the models of this project were trained on volumes of several "
            f"channels ({names}); this takes single-channel grey scans only. "
            "Run it in a project of such scans."
        )
    volumes = data.need("volumes")
    folders = {"vqvae": data.output("vqvae"), "volumes": volumes}
    check_kinship(folders, [("vqvae", "volumes", about["volumes"], digest(volumes))])
    made = Manifest.read(volumes).provenance["params"]["ingest"]
    now = settings.model_dump(mode="json")
    for name in _DECIDES_VOLUMES:
        before = made.get(name, Ingest.model_fields[name].default)
        if before != now[name]:
            raise ParamsError(
                f"ingest.{name} = {now[name]}, but {volumes} and the models were made with "
                f"{before}. Set it back, or run `dvc repro`."
            )
    if bool(made["source"].get("masks")) != bool(now["source"].get("masks")):
        raise ParamsError(
            f"ingest.source.masks = {now['source'].get('masks')!r}, and {volumes} were made "
            "otherwise. Set it back, or run `dvc repro`."
        )
