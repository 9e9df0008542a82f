"""The typed schema of params.yaml, one section per stage.

Every number of a run stands there; nothing below this module ever sees these objects, because
`build` unpacks them into plain arguments.
"""

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
)

from vqmri.errors import ParamsError

PARAMS = "params.yaml"

Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Glob = Annotated[str, Field(pattern="^[^/]")]
Triple = tuple[PositiveInt, PositiveInt, PositiveInt]


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
    labels: Glob | None = Field(None, description="glob of label maps, named as the scans")
    table: str | None = Field(None, description="TSV or CSV of subjects, relative to `raw`")
    file_column: str = Field("file", description="the table's column with the scan's file name")
    subject_column: str = Field("subject", description="the table's column with the person")
    covariates: list[str] = Field([], description="columns of the table to keep with each volume")


class Ingest(Section):
    raw: str = Field(description="folder of the raw scans, relative to params.yaml; never written")
    source: Annotated[PhantomSource | NiftiSource, Field(discriminator="kind")]
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        description="voxel size of the volumes in mm, axes x, y, z of RAS"
    )
    shape: Triple = Field(description="voxels of the volumes, axes x, y, z of RAS")
    percentiles: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(le=100)]] = Field(
        description="percentiles of a scan's intensities that become 0 and 1"
    )
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(description="share of the subjects")

    @field_validator("percentiles")
    @classmethod
    def _percentiles_rise(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError("the first must be below the second")
        return value


class Level(Section):
    downsampling: int = Field(ge=2, description="voxels per code along each axis, a power of two")
    num_embeddings: int = Field(ge=2, le=65536, description="size of the codebook, K")


class EMA(Section):
    """Codebook by exponential moving average."""

    kind: Literal["ema"]
    decay: float = Field(gt=0, lt=1, description="γ of the moving average, per step")
    commitment_cost: PositiveFloat = Field(description="β, weight of the encoder's term")


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
    quantizer: EMA

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


class Sample(Section):
    count: PositiveInt = Field(description="number of synthetic scans")
    seed: Seed = Field(description="with a sample's number it decides that sample")
    temperature: PositiveFloat = Field(description="divides the logits before each draw")
    suffix: str = Field(
        pattern="^[A-Za-z0-9]+$", description="BIDS suffix of the synthetic scans, as T1w"
    )


class Evaluate(Section):
    montages: PositiveInt = Field(description="held-out volumes shown in the report")
    gallery: PositiveInt = Field(description="synthetic scans shown in the report")


class Params(Section):
    """All of params.yaml."""

    seed: Seed = Field(description="of the split, the weights, the order of batches")
    ingest: Ingest
    train_vqvae: TrainVQVAE
    encode: Encode
    train_prior: TrainPrior
    sample: Sample
    evaluate: Evaluate

    @classmethod
    def load(cls, path: Path) -> "Params":
        """Read params.yaml; ParamsError names every fault at once."""
        if not path.is_file():
            raise ParamsError(f"{path} is missing. Write one with `vqmri init --preset phantom`.")
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ParamsError(f"{path} is not YAML: {error}") from None
        faults = _shape_faults(values)
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


def _fault(fault: Any) -> str:
    """Dotted path, value, what is allowed."""
    kinds = {"phantom", "nifti"}  # pydantic puts the chosen kind of source into the path
    path = ".".join(str(part) for part in fault["loc"] if part not in kinds) or PARAMS
    value = fault["input"]
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "no such parameter; is it misspelt?"
    if fault["type"] == "missing":
        return f"{path}: this parameter is missing"
    shown = "" if isinstance(value, dict | BaseModel) else f" = {value!r}"
    return f"{path}{shown}: {message}"
