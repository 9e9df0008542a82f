"""Write synthetic scans in the layout of a BIDS derivative data set."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Float

import vqmri
from vqmri.outputs import replace_file

BIDS_VERSION = "1.10.0"


def scan_path(label: str, suffix: str) -> Path:
    """Where the scan of a subject lies below the data set's folder; `suffix` is T1w, T2w, …"""
    return Path(f"sub-{label}/anat/sub-{label}_desc-synthetic_{suffix}.nii.gz")


def centred_affine(shape: Sequence[int], spacing: Sequence[float]) -> Float[np.ndarray, "4 4"]:
    """RAS affine whose origin in mm is the centre of the volume."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * np.array(spacing)
    return affine


def write_scan(
    path: Path,
    volume: Float[np.ndarray, "channel x y z"],
    spacing: Sequence[float],
    about: Mapping[str, Any],
) -> None:
    """Write a volume with one channel as float32 NIfTI, whole or not at all, with a JSON sidecar.

    spacing: mm per axis, RAS. Equal volumes give equal bytes: no time stands in the gzip header.
    """
    if volume.shape[0] != 1:
        raise ValueError(f"expected one channel, found {volume.shape[0]}")
    image: Any = nib.Nifti1Image(
        volume[0].astype(np.float32), centred_affine(volume.shape[1:], spacing)
    )
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"synthetic scan made by vqmri"
    replace_file(path, gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
    sidecar = path.with_name(path.name.removesuffix(".nii.gz") + ".json")
    replace_file(sidecar, _json({"Synthetic": True, **about}))


def describe(folder: Path, *, name: str, model: str, labels: Sequence[str]) -> None:
    """Write dataset_description.json, participants.tsv and what else makes a folder a data set.

    model: sha256 of the weights that decoded the scans
    """
    description = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "vqmri",
                "Version": vqmri.__version__,
                "Description": f"Drawn from a VQ-VAE and PixelCNN prior, weights {model}",
            }
        ],
        "SourceDatasets": [],
    }
    rows = "".join(f"sub-{label}\n" for label in labels)
    readme = (
        "Synthetic scans, drawn from a model that was trained on real or simulated ones. That a\n"
        "sample is nobody's scan is not proved by this.\n"
    )
    replace_file(folder / "dataset_description.json", _json(description))
    replace_file(folder / "participants.tsv", f"participant_id\n{rows}".encode())
    replace_file(folder / "README", readme.encode())
    replace_file(folder / ".bidsignore", b"codes.zarr\nMANIFEST.json\n")


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()
