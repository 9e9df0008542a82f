"""The typed schema of params.yaml, one section per stage.

Every number of a run stands there; nothing below this module ever sees these objects, because
`build` unpacks them into plain arguments.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from vqmri.errors import ParamsError

PARAMS = "params.yaml"

Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Value = str | int | float
Glob = Annotated[str, Field(pattern="^[^/]")]
BidsSuffix = Annotated[str, Field(pattern="^[A-Za-z0-9]+$")]
Percentile = Annotated[float, Field(ge=0, le=100)]
Relative = Annotated[str, Field(pattern="^[^/]")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PhantomSource(Section):
    """Procedural heads, made on the spot; `raw` is not read."""

    kind: Literal["phantom"]
    count: int = Field(ge=2, description="number of phantoms, each a subject of its own")
    spacing: PositiveFloat = Field(description="voxel size of the phantoms' own grid in mm")


class NiftiSource(Section):
    """NIfTI files below `raw`."""

    kind: Literal["nifti"]
    images: Glob = Field(description="glob of the scans, relative to `raw`")
    modalities: dict[BidsSuffix, Glob] = Field(
        {}, description="further channels: BIDS suffix, as T2w, to the glob of its files"
    )
    labels: Glob | None = Field(None, description="glob of label maps, named as the scans")
    label_values: list[Annotated[int, Field(ge=-(2**31), lt=2**31)]] | None = Field(
        None, description="values of the label maps, 0 first, if they are to be the last channel"
    )
    table: str | None = Field(None, description="TSV or CSV of subjects, relative to `raw`")
    file_column: str = Field("file", description="the table's column with the scan's file name")
    subject_column: str = Field("subject", description="the table's column with the person")
    covariates: list[str] = Field([], description="columns of the table to keep with each volume")

    @field_validator("modalities")
    @classmethod
    def _names_are_free(cls, value: dict[str, str]) -> dict[str, str]:
        if taken := sorted({"image", "dseg"} & set(value)):
            raise ValueError(f"{taken[0]!r} is the name of another channel; choose another")
        return value

    @field_validator("label_values")
    @classmethod
    def _label_values_begin_with_0(cls, value: list[int] | None, info: Any) -> list[int] | None:
        if value is None:
            return value
        if len(value) < 2 or value[0] != 0 or len(set(value)) < len(value):
            raise ValueError("0, the background, must be the first of at least two, none twice")
        if "labels" in info.data and info.data["labels"] is None:
            raise ValueError("without `labels` there are no label maps; add `labels` or remove it")
        return value


class IdxSource(Section):
    """Files in MNIST's format below `raw`, gzipped or plain; their test part is held out."""

    kind: Literal["idx"]
    train_images: Relative = Field(description="file of the training images, relative to `raw`")
    train_labels: Relative = Field(description="file of their labels")
    test_images: Relative = Field(description="file of the test images")
    test_labels: Relative = Field(description="file of their labels")
    covariate: str = Field(min_length=1, description="name of the covariate that the label becomes")


class ImagesSource(Section):
    """Class folders of PNG or JPEG, or CIFAR-10's binary files (.bin), below `raw`."""

    kind: Literal["images"]
    images: Glob = Field(
        description="glob of the pictures, as train/*/*.png, or binary files, relative to `raw`"
    )
    test_images: Glob | None = Field(
        None, description="glob of those that are held out; null: `held_out` of the others are"
    )
    channels: Literal[1, 3] = Field(description="1: grey, 3: red, green and blue")
    covariate: str = Field(
        min_length=1, description="name of the covariate that the class becomes, a picture's folder"
    )


class Ingest(Section):
    raw: str = Field(description="folder of the raw scans, relative to params.yaml; never written")
    source: Annotated[
        PhantomSource | NiftiSource | IdxSource | ImagesSource, Field(discriminator="kind")
    ]
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = Field(
        None,
        validate_default=True,
        description="voxel size of the volumes in mm, axes x, y, z of RAS; pictures have none",
    )
    shape: tuple[PositiveInt, ...] = Field(
        description="voxels of the volumes, axes x, y, z of RAS; of pictures rows, columns"
    )
    percentiles: tuple[Percentile, Percentile] | None = Field(
        None,
        validate_default=True,
        description="percentiles of a scan's intensities that become 0 and 1; pictures have none",
    )
    held_out: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        validate_default=True,
        description="share of the subjects; none for a source with a test part of its own",
    )

    @field_validator("spacing", "percentiles")
    @classmethod
    def _volumes_have_it_and_pictures_not(cls, value: Any, info: Any) -> Any:
        if "source" not in info.data:  # its own fault is reported
            return value
        source = info.data["source"]
        flat = isinstance(source, IdxSource | ImagesSource)
        if flat and value is not None:
            raise ValueError(f"pictures (source kind {source.kind}) have none; remove it")
        if not flat and value is None:
            raise ValueError(f"a source of kind {source.kind} needs it; add it")
        return value

    @field_validator("percentiles")
    @classmethod
    def _percentiles_rise(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError("the first must be below the second")
        return value

    @field_validator("shape")
    @classmethod
    def _shape_has_the_axes_of_the_source(cls, value: Any, info: Any) -> Any:
        if "source" in info.data:
            source = info.data["source"]
            axes = 2 if isinstance(source, IdxSource | ImagesSource) else 3
            if len(value) != axes:
                raise ValueError(f"a source of kind {source.kind} has {axes} axes")
        return value

    @field_validator("held_out")
    @classmethod
    def _held_out_is_said_once(cls, value: float | None, info: Any) -> float | None:
        source = info.data.get("source")
        own = isinstance(source, IdxSource) or getattr(source, "test_images", None) is not None
        if own and value is not None:
            raise ValueError("this source has a test part of its own, which is held out; remove it")
        if source is not None and not own and value is None:
            raise ValueError("this source has no test part; add the share that is held out, as 0.2")
        return value


class Level(Section):
    downsampling: int = Field(ge=2, description="voxels per code along each axis, a power of two")
    num_embeddings: int = Field(ge=2, le=65536, description="size of the codebook, K")


class Quantizer(Section):
    commitment_cost: PositiveFloat = Field(description="β, weight of the encoder's term")
    initialisation: Literal["data", "kmeans"] = Field(
        "data", description="codebook from the first batch: random vectors, or k-means from them"
    )


class CodebookLoss(Quantizer):
    """Codebook by gradient (van den Oord et al. 2017)."""

    kind: Literal["codebook_loss"]


class MovingAverage(Quantizer):
    decay: float = Field(gt=0, lt=1, description="γ of the moving average, per step")


class EMA(MovingAverage):
    """Codebook by exponential moving average."""

    kind: Literal["ema"]


class Projected(MovingAverage):
    """The latent's projection onto its code: a code and a gain."""

    kind: Literal["projected"]
    projection_cost: NonNegativeFloat = Field(
        description="weight of the term that draws the projection towards its code"
    )
    num_gains: Annotated[int, Field(ge=2, le=65536)] | None = Field(
        description="values of a quantised gain; null: real gains, Gaussian given the code"
    )


class Optimisation(Section):
    steps: PositiveInt = Field(description="optimiser steps")
    warmup: NonNegativeInt = Field(description="steps until the learning rate is at its peak")
    batch_size: PositiveInt = Field(description="volumes in a batch")
    learning_rate: PositiveFloat = Field(description="peak of the schedule")
    weight_decay: NonNegativeFloat = Field(description="of AdamW, on matrices and kernels")


class TrainVQVAE(Optimisation):
    channels: list[Annotated[int, Field(gt=0, multiple_of=8)]] = Field(
        min_length=1, description="widths at ÷2, ÷4, …; multiples of 8"
    )
    num_res_blocks: NonNegativeInt = Field(description="residual blocks at each scale, each way")
    embedding_dim: PositiveInt = Field(description="length of a codebook vector, D")
    levels: list[Level] = Field(min_length=1, description="levels of codes, finest first")
    quantizer: Annotated[CodebookLoss | EMA | Projected, Field(discriminator="kind")]

    @field_validator("levels")
    @classmethod
    def _levels_fit_channels(cls, value: list[Level], info: Any) -> list[Level]:
        factors = [level.downsampling for level in value]
        if sorted(set(factors)) != factors:
            raise ValueError("downsampling must rise, finest level first")
        if "channels" in info.data:
            allowed = [2 ** (i + 1) for i in range(len(info.data["channels"]))]
            if not set(factors) <= set(allowed) or factors[-1] != allowed[-1]:
                raise ValueError(
                    f"with {len(allowed)} channels downsampling is among {allowed}, and "
                    f"{allowed[-1]} in the last level"
                )
        return value


class Encode(Section):
    items_per_shard: PositiveInt = Field(description="volumes encoded and written together")


class TrainPrior(Optimisation):
    channels: PositiveInt = Field(description="width of every stream")
    num_layers: PositiveInt = Field(description="gated layers")
    kernel: int = Field(ge=2, description="causal extent of a stream along its own axis")
    radius: PositiveInt = Field(description="reach of a layer along the axes after that")
    dropout: Share = Field(description="share of units, and of whole codes, hidden in training")
    num_attention: NonNegativeInt = Field(
        0, description="self-attentions of the top map's net, spread evenly over its layers"
    )
    heads: PositiveInt = Field(1, description="heads of each; `channels` is a multiple of it")
    conditions: list[str] = Field([], description="covariates that the prior is conditioned on")
    condition_dropout: Share = Field(
        0.1, description="share of the items whose covariates are hidden in training"
    )

    @model_validator(mode="after")
    def _attention_fits(self) -> "TrainPrior":
        if self.channels % self.heads:
            raise ValueError(f"heads = {self.heads} must divide channels = {self.channels}")
        if self.num_attention >= self.num_layers:
            raise ValueError("num_attention must be below num_layers")
        return self


class Sample(Section):
    count: PositiveInt = Field(description="number of synthetic scans")
    seed: Seed = Field(description="with a sample's number it decides that sample")
    temperature: PositiveFloat = Field(description="divides the logits before each draw")
    suffix: str = Field(
        "T1w", pattern="^[A-Za-z0-9]+$", description="BIDS suffix of the synthetic scans"
    )
    covariates: dict[str, Value | list[Value]] = Field(
        {}, description="of the synthetic subjects; a list is gone through sample by sample"
    )
    extrapolate: bool = Field(
        False, description="allow a covariate outside the range of the training subjects"
    )
    guidance: NonNegativeFloat = Field(
        1.0, description="above 1, samples follow their covariates more than the data do"
    )


class Study(Section):
    count: int = Field(ge=2, description="items of each way to draw, at most those held out")
    temperatures: list[PositiveFloat] = Field(description="of the prior's draws, 1 among them")


class Classifier(Section):
    covariate: str = Field(description="the categorical condition that is to be recognised")
    steps: PositiveInt = Field(description="optimiser steps, on real and on synthetic volumes")


class Evaluate(Section):
    montages: PositiveInt = Field(description="held-out volumes shown in the report")
    gallery: PositiveInt = Field(description="synthetic scans shown in the report")
    classifier: Classifier | None = Field(
        None, description="for the Classification Accuracy Score; null: none"
    )


class Params(Section):
    """All of params.yaml."""

    seed: Seed = Field(description="of the split, the weights, the order of batches")
    ingest: Ingest
    train_vqvae: TrainVQVAE
    encode: Encode
    train_prior: TrainPrior
    sample: Sample
    study: Study | None = Field(None, description="the study of the prior; null: none")
    evaluate: Evaluate

    @classmethod
    def load(cls, path: Path, changes: Mapping[str, Mapping[str, Any]] | None = None) -> "Params":
        """Read params.yaml; ParamsError names every fault at once.

        changes: section to values that take the place of the file's
        """
        if not path.is_file():
            raise ParamsError(f"{path} is missing. Write one with `vqmri init --preset phantom`.")
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ParamsError(f"{path} is not YAML: {error}") from None
        for section, fields in (changes or {}).items():
            if fields and isinstance(values, dict) and isinstance(values.get(section), dict):
                values[section] = {**values[section], **fields}
        faults = _shape_faults(values) + _covariate_faults(values)
        try:
            params = cls.model_validate(values)
        except ValidationError as error:
            faults += [_fault(fault) for fault in error.errors()]
        if faults:
            number = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
            lines = "\n".join(f"  {fault}" for fault in faults)
            raise ParamsError(f"{path}: {number}, nothing was written.\n{lines}")
        return params


def _shape_faults(values: Any) -> list[str]:
    """What spans two sections; looked for in the raw values, so that no other fault hides it."""
    try:
        shape = [int(n) for n in values["ingest"]["shape"]]
        top = max(int(level["downsampling"]) for level in values["train_vqvae"]["levels"])
    except (KeyError, TypeError, ValueError):
        return []  # the schema says what is wrong with these
    if top < 1 or not any(n % top for n in shape):
        return []
    return [
        f"ingest.shape = {shape}: every axis must be a multiple of {top}, the largest downsampling "
        "of train_vqvae.levels"
    ]


def _covariate_faults(values: Any) -> list[str]:
    """Conditions that the source does not know, and uses of covariates that are no conditions."""
    try:
        source, prior = values["ingest"]["source"], values["train_prior"]
        conditions = list(prior.get("conditions", []))
        if source["kind"] == "phantom":
            known = ["age", "sex"]
        else:
            known = [*source.get("covariates", []), *filter(None, [source.get("covariate")])]
        classifier = (values["evaluate"].get("classifier") or {}).get("covariate")
        asked = list(values["sample"].get("covariates", {}))
    except (KeyError, TypeError, AttributeError):
        return []  # the schema says what is wrong with these
    faults = [
        f"train_prior.conditions: {name!r} is no covariate of ingest.source, which has {known}"
        for name in conditions
        if name not in known
    ]
    used = [(f"sample.covariates.{name}", name) for name in asked]
    used += [("evaluate.classifier.covariate", classifier)] if classifier else []
    return (
        faults
        + [
            f"{path}: {name!r} is not among train_prior.conditions = {conditions}"
            for path, name in used
            if name not in conditions
        ]
        + [
            f"sample.covariates: {name!r} is missing, which evaluate.classifier is to recognise"
            for name in {classifier} - {None, *asked}
        ]
    )


_UNIONS = {"source", "quantizer"}


def _fault(fault: Any) -> str:
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
    shown = "" if isinstance(value, dict | BaseModel) else f" = {value!r}"
    return f"{path}{shown}: {message}"
