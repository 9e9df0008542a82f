"""What is wrong with a params.yaml, in words."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from inspect import isclass
from typing import Any, get_args

from pydantic import BaseModel

PARAMS = "params.yaml"
"""Name of the file that holds every number of a run."""

_LONGEST = 200  # characters of a value in a message


def across_sections(values: Any) -> list[str]:
    """What spans two sections; looked for in the raw values, so that no other fault hides it."""
    faults: list[str] = []
    for look in (
        _shape_faults,
        _patch_faults,
        _flip_faults,
        _turn_faults,
        _covariate_faults,
        _swap_faults,
        _suffix_faults,
    ):
        # of what cannot be looked at the schema says what is wrong
        with suppress(AttributeError, KeyError, OverflowError, TypeError, ValueError):
            faults += look(values)
    return faults


def _shape_faults(values: Any) -> list[str]:
    """A shape that the levels do not divide."""
    shape = [int(n) for n in values["ingest"]["shape"]]
    top = max(int(level["downsampling"]) for level in values["train_vqvae"]["levels"])
    if top < 1 or not any(n % top for n in shape):
        return []
    return [
        f"ingest.shape = {shape}: every axis must be a multiple of {top}, the largest downsampling "
        "of train_vqvae.levels"
    ]


def _patch_faults(values: Any) -> list[str]:
    """Pieces to train on that are no pieces of a volume."""
    shape = [int(n) for n in values["ingest"]["shape"]]
    patch = [int(n) for n in values["train_vqvae"].get("patch") or []]
    top = max(int(level["downsampling"]) for level in values["train_vqvae"]["levels"])
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


def _augments(values: Any) -> dict[str, Any]:
    """By dotted path, how training volumes are varied."""
    found = {
        "train_vqvae.augment": (values.get("train_vqvae") or {}).get("augment"),
        "encode.variations.augment": _variations(values).get("augment"),
    }
    return {path: augment for path, augment in found.items() if augment}


def _variations(values: Any) -> Any:
    return (values.get("encode") or {}).get("variations") or {}


def _flip_faults(values: Any) -> list[str]:
    """Axes to mirror that the volumes do not have."""
    dims = len(values["ingest"]["shape"])
    return [
        f"{path}.flips = {augment['flips']}: axes 0 to {dims - 1} can be mirrored"
        for path, augment in _augments(values).items()
        if any(int(axis) >= dims for axis in augment.get("flips", []))
    ]


def _turn_faults(values: Any) -> list[str]:
    """Voxels that are no cubes, which a rotation of the grid would shear."""
    spacing = [float(size) for size in values["ingest"]["spacing"]]
    if max(spacing) <= 1.01 * min(spacing):
        return []
    return [
        f"{path}.rotation = {augment['rotation']}: voxels of {spacing} mm are no cubes, and "
        "turning them would shear what they show. Set it to 0, or make them cubes (ingest.spacing)"
        for path, augment in _augments(values).items()
        if augment["rotation"]
    ]


def _covariates(values: Any) -> list[Any]:
    """Names that the source knows."""
    source = values["ingest"].get("source", {"kind": "auto"})
    return {
        "auto": [],
        "phantom": ["age", "sex"],
        "nifti": list(source.get("covariates", [])),
        "bids": list(source.get("covariates", [])),
        "dicom": list(source.get("covariates", [])),
        "idx": [source.get("covariate")],
        "images": [source.get("covariate")],
    }[source["kind"]]


def _covariate_faults(values: Any) -> list[str]:
    """Conditions that the source does not know, and uses of covariates that are no conditions."""
    conditions = list(values["train_prior"].get("conditions", []))
    known = _covariates(values)
    asked = list(values["sample"].get("covariates", {}))
    return [
        f"train_prior.conditions: {name!r} is no covariate of ingest.source, which has {known}"
        for name in conditions
        if name not in known
    ] + [
        f"sample.covariates.{name}: {name!r} is not among train_prior.conditions = {conditions}"
        for name in asked
        if name not in conditions
    ]


def _swap_faults(values: Any) -> list[str]:
    """Covariates to exchange in mirrored copies that the source does not know."""
    known = _covariates(values)
    return [
        f"encode.variations.swaps.{name}: {name!r} is no covariate of ingest.source, which has "
        f"{known}"
        for name in _variations(values).get("swaps", {})
        if name not in known
    ]


def _suffix_faults(values: Any) -> list[str]:
    """A suffix of the first channel that another channel of the samples has."""
    source, suffix = values["ingest"]["source"], values["sample"].get("suffix", "T1w")
    taken = [*source.get("modalities", {}), *(["dseg"] if source.get("label_values") else [])]
    if suffix not in taken:
        return []
    return [f"sample.suffix = {suffix!r}: another channel of ingest.source has that name"]


_UNIONS = {"source", "quantizer"}


def fault_text(fault: Any, schema: type[BaseModel]) -> str:
    """Dotted path, value, what is allowed; `schema` is of all that was read."""
    # pydantic puts the chosen kind of a union into the path, after the union's own name
    loc = fault["loc"]
    kept = [part for i, part in enumerate(loc) if i == 0 or loc[i - 1] not in _UNIONS]
    path = ".".join(str(part) for part in kept) or PARAMS
    value = fault["input"]
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = _unknown(str(loc[-1]), _sections(schema, loc[:-1]))
    told = _meaning(str(loc[-1]), _sections(schema, loc[:-1])) if loc else ""
    if fault["type"] == "missing":
        return f"{path}: this parameter is missing{told}"
    if fault["type"].endswith(("_type", "_parsing")):  # as of a file from before it was a list
        message += told
    shown = "" if isinstance(value, dict | BaseModel) else f" = {_short(value)}"
    return f"{path}{shown}: {message}"


def _sections(schema: type[BaseModel], loc: Sequence[int | str]) -> list[type[BaseModel]]:
    """What may stand at a path; names of kinds and of a mapping's keys are steps on the way too."""
    found = [schema]
    for part in loc:
        below = [
            section
            for one in found
            if part in one.model_fields
            for section in _sections_in(one.model_fields[str(part)].annotation)
        ]
        kinds = [
            one
            for one in found
            if "kind" in one.model_fields and part in get_args(one.model_fields["kind"].annotation)
        ]
        found = below or kinds or found
    return found


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections_in(part)


def _unknown(name: str, sections: Sequence[type[BaseModel]]) -> str:
    names = list(dict.fromkeys(field for section in sections for field in section.model_fields))
    near = get_close_matches(name, names, 1)
    return "no such parameter; " + (
        f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    )


def _meaning(name: str, sections: Sequence[type[BaseModel]]) -> str:
    """What a parameter is, where the schema says it."""
    fields = (section.model_fields.get(name) for section in sections)
    told = next((field.description for field in fields if field and field.description), None)
    return f" ({told})" if told else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
