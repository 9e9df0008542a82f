"""What is wrong with a params.yaml, in words."""

from typing import Any

from pydantic import BaseModel

PARAMS = "params.yaml"
"""Name of the file that holds every number of a run."""

_LONGEST = 200  # characters of a value in a message


def across_sections(values: Any) -> list[str]:
    """What spans two sections; looked for in the raw values, so that no other fault hides it."""
    faults = _shape_faults(values) + _patch_faults(values) + _flip_faults(values)
    return faults + _covariate_faults(values) + _suffix_faults(values)


def _shape_faults(values: Any) -> list[str]:
    """A shape that the levels do not divide."""
    try:
        shape = [int(n) for n in values["ingest"]["shape"]]
        top = max(int(level["downsampling"]) for level in values["train_vqvae"]["levels"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return []  # the schema says what is wrong with these
    if top < 1 or not any(n % top for n in shape):
        return []
    return [
        f"ingest.shape = {shape}: every axis must be a multiple of {top}, the largest downsampling "
        "of train_vqvae.levels"
    ]


def _patch_faults(values: Any) -> list[str]:
    """Pieces to train on that are no pieces of a volume."""
    try:
        shape = [int(n) for n in values["ingest"]["shape"]]
        patch = [int(n) for n in values["train_vqvae"].get("patch") or []]
        top = max(int(level["downsampling"]) for level in values["train_vqvae"]["levels"])
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return []
    if not patch or top < 1:
        return []
    if len(patch) == len(shape) and all(
        n % top == 0 and (n == side or 2 * top <= n < side)  # else tiles would not overlap
        for n, side in zip(patch, shape, strict=True)
    ):
        return []
    return [
        f"train_vqvae.patch = {patch}: it needs {len(shape)} multiples of {top}, the largest "
        f"downsampling of train_vqvae.levels; along each axis that of ingest.shape = {shape}, or "
        f"less and then {2 * top} at least"
    ]


def _flip_faults(values: Any) -> list[str]:
    """Axes to mirror that the volumes do not have."""
    try:
        dims = len(values["ingest"]["shape"])
        flips = [int(axis) for axis in (values["train_vqvae"].get("augment") or {})["flips"]]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return []
    if all(axis < dims for axis in flips):
        return []
    return [f"train_vqvae.augment.flips = {flips}: axes 0 to {dims - 1} can be mirrored"]


def _covariate_faults(values: Any) -> list[str]:
    """Conditions that the source does not know, and uses of covariates that are no conditions."""
    try:
        source = values["ingest"].get("source", {"kind": "auto"})
        prior = values["train_prior"]
        conditions = list(prior.get("conditions", []))
        known = {
            "auto": [],
            "phantom": ["age", "sex"],
            "nifti": list(source.get("covariates", [])),
            "bids": list(source.get("covariates", [])),
            "dicom": list(source.get("covariates", [])),
            "idx": [source.get("covariate")],
            "images": [source.get("covariate")],
        }[source["kind"]]
        asked = list(values["sample"].get("covariates", {}))
    except (KeyError, TypeError, AttributeError):
        return []  # the schema says what is wrong with these
    return [
        f"train_prior.conditions: {name!r} is no covariate of ingest.source, which has {known}"
        for name in conditions
        if name not in known
    ] + [
        f"sample.covariates.{name}: {name!r} is not among train_prior.conditions = {conditions}"
        for name in asked
        if name not in conditions
    ]


def _suffix_faults(values: Any) -> list[str]:
    """A suffix of the first channel that another channel of the samples has."""
    try:
        source, suffix = values["ingest"]["source"], values["sample"].get("suffix", "T1w")
        taken = [*source.get("modalities", {}), *(["dseg"] if source.get("label_values") else [])]
    except (KeyError, TypeError, AttributeError):
        return []
    if suffix not in taken:
        return []
    return [f"sample.suffix = {suffix!r}: another channel of ingest.source has that name"]


_UNIONS = {"source", "quantizer"}


def fault_text(fault: Any) -> str:
    """Dotted path, value, what is allowed."""
    # pydantic puts the chosen kind of a union into the path, after the union's own name
    loc = fault["loc"]
    kept = [part for i, part in enumerate(loc) if i == 0 or loc[i - 1] not in _UNIONS]
    path = ".".join(str(part) for part in kept) or PARAMS
    value = fault["input"]
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "no such parameter; is it misspelt?"
    if fault["type"] == "missing":
        return f"{path}: this parameter is missing"
    shown = "" if isinstance(value, dict | BaseModel) else f" = {_short(value)}"
    return f"{path}{shown}: {message}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
