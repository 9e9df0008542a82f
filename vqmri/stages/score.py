"""A scan → how unusual it is under the published models: figures, and a map of where.

A tool beside the stages: it publishes nothing below data/. The total is −log2 p(codes), exactly.
The bits of each code are spread evenly over the voxels it stands for. Each is judged given the
coarser maps and the codes before it in raster order, so a surprise stands where it is first met,
and what follows from it costs little. What the codes do not carry is not judged: the VQ-VAE may
turn a small finding into the usual before the prior sees it. Compare scans by their bits per code;
a total grows with the field of view.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqmri.build.ingest import normaliser
from vqmri.errors import InputError, IntegrityError, ParamsError
from vqmri.evaluation.unusualness import Unusualness, unusualness
from vqmri.layout import Layout
from vqmri.outputs import Manifest, replace_file
from vqmri.outputs.manifest import digest
from vqmri.params import Ingest, Params
from vqmri.prior.covariates import encode
from vqmri.scans import bids, image_file, nifti
from vqmri.scans.check import REFUSALS, Refused
from vqmri.scans.volume import Volume
from vqmri.shapes import Box
from vqmri.training.generator import Generator

SUFFIX = ".nii.gz"
_DECIDES_VOLUMES = ("spacing", "shape", "percentiles")


def score(
    params: Params,
    data: Layout,
    scan: Path,
    *,
    covariates: Mapping[str, Any] | None = None,
    extrapolate: bool = False,
    out: Path | None = None,
) -> dict[str, Any]:
    """Write the map of a scan's bits and a JSON sidecar beside it; its figures and its path.

    The scan goes the way of ingest and encode; its codes are the stored ones but where two are
    equally near in float32. The map lies over the normalised volume, and its sum is the total.

    covariates: of the subject; what they do not name is unknown to the prior
    out: the map; None for SCAN_bits.nii.gz in the current folder
    Raises InputError for a scan that ingest would refuse, ParamsError for a project of pictures or
    of several channels, for covariates that the prior does not know and for an `out` that exists or
    is the project's own, IntegrityError when the outputs were not made of one another.
    """
    target = out or Path(image_file.stem(scan) + f"_bits{SUFFIX}")
    _may_write(target, data, params.ingest.raw)
    generator = Generator(data.need("vqvae"), data.need("prior"))
    _check_project(params.ingest, data, generator.about)
    rows = encode(generator.prior.covariates, [covariates or {}], extrapolate=extrapolate)
    volume, box, sha256 = _read(scan, params.ingest)
    found = unusualness(generator.vqvae, generator.prior, volume.data, box, rows)
    assert volume.affine is not None
    about = {
        "Scan": scan.name,
        "ScanSHA256": sha256,
        "VQVAEWeights": generator.about["weights"],
        "PriorWeights": generator.prior_about["weights"],
        "Covariates": dict(covariates or {}),
    }
    replace_file(_sidecar(target), _json(found, about))
    description = "bits of a scan's codes, by vqmri"
    replace_file(target, bids.nifti_bytes(found.voxels, volume.affine, description))
    return {
        "map": str(target),
        "total_bits": found.total_bits,
        "bits_per_code": found.bits_per_code,
        "bits_per_voxel": found.bits_per_voxel,
        "bits_of_maps": found.bits,
        "density_bits_of_maps": found.density_bits,
    }


def _sidecar(target: Path) -> Path:
    return target.with_name(target.name.removesuffix(SUFFIX) + ".json")


def _may_write(target: Path, data: Layout, raw: str) -> None:
    """Refuse a map that would replace a file, or lie where the project's own outputs lie."""
    if not target.name.endswith(SUFFIX):
        raise ParamsError(f"--out {target}: the map is a NIfTI; give it a name in {SUFFIX}.")
    for path in (target, _sidecar(target)):
        if path.exists():
            raise ParamsError(f"{path} exists. Remove it, or name another map with `--out`.")
    if data.is_own(target, raw):
        raise ParamsError(
            f"{target} would lie in a folder that is the project's own. Name another map with "
            "`--out`."
        )


def _check_project(settings: Ingest, data: Layout, about: Mapping[str, Any]) -> None:
    """The models are of single grey volumes, and of such as params.yaml's ingest makes."""
    if len(about["shape"]) != 4:
        raise ParamsError(
            f"ingest.source.kind = {settings.source.kind!r}: score takes volumes, and the models "
            "of this project were trained on pictures."
        )
    if len(about["channels"]) != 1:
        names = ", ".join(channel["name"] for channel in about["channels"])
        raise ParamsError(
            f"ingest.source: the models of this project were trained on volumes of several "
            f"channels ({names}); score takes single-channel grey scans only."
        )
    volumes = data.need("volumes")
    if about["volumes"] != digest(volumes):
        raise IntegrityError(
            f"{data.output('vqvae')} was trained on other volumes than those in {volumes}. "
            "Run `dvc repro`."
        )
    made = Manifest.read(volumes).provenance["params"]["ingest"]
    now = settings.model_dump(mode="json")
    for name in _DECIDES_VOLUMES:
        if made[name] != now[name]:
            raise ParamsError(
                f"ingest.{name} = {now[name]}, but {volumes} and the models were made with "
                f"{made[name]}. Set it back, or run `dvc repro`."
            )


def _read(scan: Path, settings: Ingest) -> tuple[Volume, Box, str]:
    """The scan as ingest would store it, its field of view, and the sha256 of its file."""
    try:
        raw, sha256 = nifti.read(scan)
        volume, box = normaliser(settings)(raw)
    except Refused as refusal:
        raise InputError(
            f"{scan}: {refusal.code}: {refusal.reason}. Ingest refuses such a scan: "
            f"{REFUSALS[refusal.code]}."
        ) from refusal
    return volume, box, sha256


def _json(found: Unusualness, about: Mapping[str, Any]) -> bytes:
    """The sidecar: what the map is, of what, and its figures."""
    values = {
        "Description": "Bits of the scan's codes under the prior, spread over their voxels",
        "Units": "bit",
        **about,
        "TotalBits": found.total_bits,
        "BitsPerCode": found.bits_per_code,
        "BitsPerVoxel": found.bits_per_voxel,
        "BitsOfMaps": found.bits,
        "DensityBitsOfMaps": found.density_bits,
    }
    return (json.dumps(values, indent=1) + "\n").encode()
