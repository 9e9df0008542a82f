"""A scan → how unusual it is under the published models: figures, and a map of where.

The total is −log2 p(codes), exactly.
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

from vqmri.evaluation.unusualness import Unusualness, unusualness
from vqmri.layout import Layout
from vqmri.outputs import replace_file
from vqmri.params import Params
from vqmri.prior.covariates import encode
from vqmri.scans import bids, image_file
from vqmri.stages.one_scan import SUFFIX, check_project, may_write, read_one, sidecar
from vqmri.training.generator import Generator


def score(
    params: Params,
    data: Layout,
    scan: Path,
    *,
    covariates: Mapping[str, Any] | None = None,
    extrapolate: bool = False,
    mask: Path | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Write the map of a scan's bits and a JSON sidecar beside it; its figures and its path.

    The scan goes the way of ingest and encode; its codes are the stored ones but where two are
    equally near in float32. The map lies over the normalised volume, and its sum is the total.

    covariates: of the subject; what they do not name is unknown to the prior
    mask: its brain mask, for a project whose scans have one from a file
    out: the map; None for SCAN_bits.nii.gz in the current folder
    Raises InputError for a scan that ingest would refuse, ParamsError for a project of pictures or
    of several channels, for covariates that the prior does not know and for an `out` that exists or
    is the project's own, IntegrityError when the outputs were not made of one another.
    """
    target = out or Path(image_file.stem(scan) + f"_bits{SUFFIX}")
    may_write([target], data, params.ingest.raw)
    generator = Generator(data.need("vqvae"), data.need("prior"))
    check_project(params.ingest, data, generator.about)
    rows = encode(generator.prior.covariates, [covariates or {}], extrapolate=extrapolate)
    one = read_one(scan, params.ingest, data.root, mask)
    volume = one.normalised.volume
    found = unusualness(generator.vqvae, generator.prior, volume.data, one.normalised.box, rows)
    assert volume.affine is not None
    about = {
        "Scan": scan.name,
        "ScanSHA256": one.sha256,
        "VQVAEWeights": generator.about["weights"],
        "PriorWeights": generator.prior_about["weights"],
        "Covariates": dict(covariates or {}),
    }
    replace_file(sidecar(target), _json(found, about))
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
