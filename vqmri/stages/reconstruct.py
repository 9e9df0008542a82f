"""A scan → what the VQ-VAE makes of it, on the scan's own grid and in its own intensities."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqmri.evaluation.likelihood import plain_bits
from vqmri.evaluation.reconstruction import psnr_in_view, ssim_in_view
from vqmri.layout import Layout
from vqmri.outputs import replace_file
from vqmri.params import Params
from vqmri.scans import bids, image_file
from vqmri.scans.restore import restore
from vqmri.scans.volume import Volume
from vqmri.stages.one_scan import SUFFIX, check_project, may_write, read_one, sidecar
from vqmri.training.device import choose_device
from vqmri.training.model_folder import load_model
from vqmri.vqvae import VQVAE


def reconstruct(
    params: Params, data: Layout, scan: Path, *, mask: Path | None = None, out: Path | None = None
) -> dict[str, Any]:
    """Write the reconstruction over the scan and a JSON sidecar; its figures and its path.

    The scan goes the way of ingest and encode, and back. PSNR (dB) and SSIM are of the normalised
    volumes inside the field of view; bits per voxel is what the codes there cost without a prior.

    mask: its brain mask, for a project whose scans have one from a file
    out: the reconstruction; None for SCAN_reconstruction.nii.gz in the current folder
    Raises InputError for a scan that ingest would refuse, ParamsError for a project of pictures or
    of several channels and for an `out` that exists or is the project's own, IntegrityError when
    the outputs were not made of one another.
    """
    target = out or Path(image_file.stem(scan) + f"_reconstruction{SUFFIX}")
    may_write([target], data, params.ingest.raw)
    vqvae, about = load_model(data.need("vqvae"), VQVAE)
    check_project(params.ingest, data, about)
    one = read_one(scan, params.ingest, data.root, mask)
    volume, box = one.normalised.volume, one.normalised.box
    found = _through(vqvae, volume)
    assert one.raw.affine is not None
    restored = restore(found, one.raw.affine, one.raw.data.shape[1:], one.steps)
    bits = plain_bits(box, vqvae.downsamplings, vqvae.num_embeddings)
    figures = {
        "psnr_db": psnr_in_view(found.data[None], volume.data[None], [box])[0],
        "ssim": ssim_in_view(found.data[None], volume.data[None], [box])[0],
        "bits_per_voxel": bits / math.prod(stop - start for start, stop in box),
    }
    figures = {name: value for name, value in figures.items() if math.isfinite(value)}
    described = {
        "Description": "Reconstruction of the scan from its codes",
        "Scan": scan.name,
        "ScanSHA256": one.sha256,
        "VQVAEWeights": about["weights"],
        "Steps": one.steps,
        **figures,
    }
    replace_file(sidecar(target), (json.dumps(described, indent=1) + "\n").encode())
    written = bids.nifti_bytes(restored.data[0], one.raw.affine, "reconstruction, by vqmri")
    replace_file(target, written)
    return {"reconstruction": str(target), **figures}


@torch.inference_mode()
def _through(vqvae: VQVAE, volume: Volume) -> Volume:
    """The decoded codes of a normalised volume, in [0, 1], where it lies."""
    device = choose_device()
    vqvae = vqvae.to(device)
    codes = vqvae.encode(torch.from_numpy(volume.data[None]).to(device))
    decoded = vqvae.to_volumes(vqvae.decode(codes)).cpu().numpy()[0]
    return Volume(np.clip(decoded, 0, 1), volume.affine)
