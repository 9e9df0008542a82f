"""Write synthetic scans in the layout of a BIDS derivative data set."""

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Float, Integer, Shaped

import vqmri
from vqmri.outputs import replace_file
from vqmri.scans.table import tsv
from vqmri.scans.volume import Channel

BIDS_VERSION = "1.10.0"
_LABEL_TYPES = (np.uint8, np.int8, np.uint16, np.int16, np.int32)


def is_name(text: str) -> bool:
    """Whether a text can be a label or suffix in a file's name; no other leads out of a folder."""
    return re.fullmatch(r"[A-Za-z0-9]{1,64}", text) is not None


def scan_path(label: str, suffix: str) -> Path:
    """Where the scan of a subject lies below the data set's folder; `suffix` is T1w, T2w, …

    Raises ValueError for a text that is no name, see `is_name`.
    """
    if not (is_name(label) and is_name(suffix)):
        raise ValueError(f"{label!r} and {suffix!r} are not letters and digits only")
    return Path(f"sub-{label}/anat/sub-{label}_desc-synthetic_{suffix}.nii.gz")


def centred_affine(shape: Sequence[int], spacing: Sequence[float]) -> Float[np.ndarray, "4 4"]:
    """RAS affine whose origin in mm is the centre of the volume."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * np.array(spacing)
    return affine


def write_scan(
    folder: Path,
    label: str,
    suffix: str,
    volume: Float[np.ndarray, "channel x y z"],
    channels: Sequence[Channel],
    spacing: Sequence[float],
    about: Mapping[str, Any],
) -> None:
    """Write each channel as a NIfTI of its own, whole or not at all, with a JSON sidecar.

    folder: of the data set; label: of the subject
    suffix: BIDS suffix of the first channel; that of any other is its name
    volume: grey values, written as float32; indices of a label map, written as its label values
    spacing: mm per axis, RAS
    Equal volumes give equal bytes: no time stands in the gzip header.
    Raises ValueError for other channels than those of the volume, or two of one name.
    """
    if len(channels) != volume.shape[0]:
        raise ValueError(f"{len(channels)} channels are named and {volume.shape[0]} are given")
    suffixes = [suffix, *(channel.name for channel in channels[1:])]
    if len(set(suffixes)) < len(suffixes):
        raise ValueError(f"two channels would be one file: their suffixes are {suffixes}")
    affine = centred_affine(volume.shape[1:], spacing)
    for name, channel, data in zip(suffixes, channels, volume, strict=True):
        values = _labels(data, channel.label_values) if channel.label_values else data
        path = folder / scan_path(label, name)
        replace_file(path, nifti_bytes(values, affine, "synthetic scan made by vqmri"))
        sidecar = path.with_name(path.name.removesuffix(".nii.gz") + ".json")
        replace_file(sidecar, _json({"Synthetic": True, **about}))


def nifti_bytes(
    data: Shaped[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], description: str
) -> bytes:
    """A gzipped file: real numbers as float32, integers as they are; equal data, equal bytes."""
    if data.dtype.kind == "f":
        data = data.astype(np.float32)
    image: Any = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _labels(
    indices: Float[np.ndarray, "x y z"], label_values: Sequence[int]
) -> Integer[np.ndarray, "x y z"]:
    """The label map that indices stand for, in the smallest type that holds all its values."""
    whole = np.rint(indices)
    if (whole != indices).any() or whole.min() < 0 or whole.max() >= len(label_values):
        raise ValueError(f"a label map holds whole numbers from 0 to {len(label_values) - 1}")
    low, high = min(label_values), max(label_values)
    smallest = next(t for t in _LABEL_TYPES if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
    return np.asarray(label_values, dtype=smallest)[whole.astype(np.int64)]


def describe(
    folder: Path,
    *,
    name: str,
    model: str,
    labels: Sequence[str],
    covariates: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write dataset_description.json, participants.tsv and what else makes a folder a data set.

    model: sha256 of the weights that decoded the scans
    covariates: of each subject, in the order of `labels`; they become columns of participants.tsv,
        n/a where a subject lacks one
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
    readme = (
        "Synthetic scans, drawn by vqmri from a model that was trained on real or simulated ones:\n"
        "a PixelCNN prior draws codes, a VQ-VAE decodes them. That a sample is nobody's scan is\n"
        "not proved by this; the report of the run says what was tested. participants.tsv says\n"
        "what each sample was asked to be, not what is known of a person. Each scan's JSON file\n"
        "has the seed, the number and the weights that make the same scan again.\n"
    )
    replace_file(folder / "dataset_description.json", _json(description))
    replace_file(folder / "participants.tsv", _participants(labels, covariates))
    asked = dict.fromkeys(name for row in covariates for name in row)
    if asked:
        columns = {column: {"Description": f"{column} that was asked for"} for column in asked}
        replace_file(folder / "participants.json", _json(columns))
    replace_file(folder / "README", readme.encode())
    replace_file(folder / ".bidsignore", b"codes.zarr\nMANIFEST.json\n")


def _participants(labels: Sequence[str], covariates: Sequence[Mapping[str, Any]]) -> bytes:
    """One row per subject; columns in the order in which they first come."""
    rows = covariates or [{}] * len(labels)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    values = (["n/a" if (v := row.get(name)) is None else v for name in columns] for row in rows)
    people = ([f"sub-{label}", *own] for label, own in zip(labels, values, strict=True))
    return tsv(["participant_id", *columns], people)


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()
