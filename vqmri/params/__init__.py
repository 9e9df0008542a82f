"""The typed schema of params.yaml, one section per stage.

Every number of a run stands there; nothing below this module ever sees these objects, because
`build` unpacks them into plain arguments.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
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
from vqmri.params.faults import PARAMS, across_sections, fault_text
from vqmri.params.ingest import (
    AutoSource,
    BidsSource,
    DicomSource,
    IdxSource,
    ImagesSource,
    Ingest,
    NiftiSource,
    PhantomSource,
)
from vqmri.params.reading import read_values
from vqmri.params.section import BidsSuffix, Section, Seed, Share, Value, Values

__all__ = [
    "EMA", "PARAMS", "Augment", "AutoSource", "BidsSource", "Bound", "CodebookLoss", "DicomSource",
    "Encode", "Evaluate", "IdxSource", "ImagesSource", "Ingest", "Level", "NiftiSource",
    "Optimisation", "Params", "PhantomSource", "Projected", "Sample", "Study", "TrainPrior",
    "TrainVQVAE", "Use", "Variations", "sample_settings",
]  # fmt: skip


class Level(Section):
    """One level of codes."""

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
    """How a model is trained."""

    steps: PositiveInt = Field(description="optimiser steps")
    warmup: NonNegativeInt = Field(description="steps until the learning rate is at its peak")
    batch_size: PositiveInt = Field(description="volumes in a batch")
    learning_rate: PositiveFloat = Field(description="peak of the schedule")
    weight_decay: NonNegativeFloat = Field(description="on matrices and kernels")
    micro_batch: PositiveInt | None = Field(
        None,
        description="items of a batch that pass through the model at a time, a divisor of "
        "batch_size; null: all of them",
    )
    average_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="of the moving average of the weights, which is published in their place; "
        "null: the last weights are",
    )

    @model_validator(mode="after")
    def _parts_fit_batch(self) -> "Optimisation":
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise ValueError(
                f"micro_batch = {self.micro_batch} must divide batch_size = {self.batch_size}"
            )
        return self


class Augment(Section):
    """How training volumes are varied."""

    flips: list[Annotated[int, Field(ge=0, le=2)]] = Field(
        [], description="axes that are mirrored in half of the items; 0 is left to right"
    )
    rotation: NonNegativeFloat = Field(description="largest angle about each axis, in degrees")
    scaling: Share = Field(description="largest share by which an axis is stretched or shrunk")
    translation: NonNegativeFloat = Field(
        description="largest shift along each axis, in mm; of pictures, in pixels. With neither "
        "rotation nor scaling it is rounded up to whole voxels"
    )
    contrast: NonNegativeFloat = Field(
        description="intensities are raised to a power of 1 / (1 + contrast) to 1 + contrast"
    )


class TrainVQVAE(Optimisation):
    """The autoencoder and its training."""

    channels: list[Annotated[int, Field(gt=0, multiple_of=8)]] = Field(
        min_length=1, description="widths at ÷2, ÷4, …; multiples of 8"
    )
    num_res_blocks: list[NonNegativeInt] = Field(
        description="residual blocks at ÷2, ÷4, …, each way; as many entries as `channels`"
    )
    embedding_dim: PositiveInt = Field(description="length of a codebook vector, D")
    levels: list[Level] = Field(min_length=1, description="levels of codes, finest first")
    quantizer: Annotated[CodebookLoss | EMA | Projected, Field(discriminator="kind")]
    augment: Augment | None = Field(None, description="variation of the volumes; null: none")
    patch: list[PositiveInt] | None = Field(
        None,
        description="voxels along each axis of the pieces to train on, multiples of the largest "
        "downsampling; null: whole volumes",
    )
    activation_checkpointing: bool = Field(
        False, description="compute activations twice to keep fewer of them in memory"
    )
    spectral_cost: NonNegativeFloat = Field(
        0.0, description="weight of the difference of Fourier magnitudes"
    )
    adversarial_cost: NonNegativeFloat = Field(
        0.0, description="weight of an opponent that tells patches of reconstructions from real"
    )

    @field_validator("num_res_blocks")
    @classmethod
    def _blocks_fit_channels(cls, value: list[int], info: Any) -> list[int]:
        scales = len(info.data.get("channels", value))
        if len(value) != scales:
            raise ValueError(f"{len(value)} entries, but channels has {scales}")
        return value

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


class Variations(Section):
    """Training volumes that are varied and encoded too: more codes for the prior to learn from."""

    copies: PositiveInt = Field(description="of each training volume, each varied anew")
    augment: Augment = Field(
        description="how; with axis 0 among the flips, every second copy is mirrored"
    )
    swaps: dict[str, tuple[Value, Value]] = Field(
        {},
        description="covariate to the two values that mirroring exchanges, as side: [left, right]",
    )


class Encode(Section):
    """From volumes to codes."""

    items_per_shard: PositiveInt = Field(description="volumes encoded and written together")
    variations: Variations | None = Field(None, description="of training volumes; null: none")


class TrainPrior(Optimisation):
    """The prior over the codes and its training."""

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
    condition_dropout: float = Field(
        0.1, gt=0, lt=1, description="share of the items whose covariates are hidden in training"
    )

    @model_validator(mode="after")
    def _attention_fits(self) -> "TrainPrior":
        if self.channels % self.heads:
            raise ValueError(f"heads = {self.heads} must divide channels = {self.channels}")
        if self.num_attention >= self.num_layers:
            raise ValueError("num_attention must be below num_layers")
        return self


class Sample(Section):
    """Which synthetic scans are drawn, and how."""

    count: PositiveInt = Field(description="number of synthetic scans")
    seed: Seed = Field(description="with a sample's number it decides that sample")
    temperature: PositiveFloat = Field(description="divides the logits before each draw")
    top_k: PositiveInt | None = Field(
        None, description="draw from so many of the likeliest codes only; null: from all"
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="draw from the fewest codes of this probability together; null: from all"
    )
    suffix: BidsSuffix = Field("T1w", description="BIDS suffix of the synthetic scans")
    covariates: dict[str, Values] = Field(
        {}, description="of the synthetic subjects; a list is gone through sample by sample"
    )
    extrapolate: bool = Field(
        False, description="allow a covariate outside the range of the training subjects"
    )
    residual: bool = Field(
        False,
        description="add what codes leave out: noise as strong, and with the spectrum, as that of "
        "training volumes",
    )
    guidance: NonNegativeFloat = Field(
        1.0, description="above 1, samples follow their covariates more than the data do"
    )


class Study(Section):
    """Whether the prior is needed."""

    count: int = Field(ge=2, description="items of each way to draw, at most those held out")
    temperatures: list[PositiveFloat] = Field(description="of the prior's draws, 1 among them")

    @field_validator("temperatures")
    @classmethod
    def _one_is_among_them(cls, value: list[float]) -> list[float]:
        if 1.0 not in value or len(set(value)) < len(value):
            raise ValueError("1 must be among them, and none twice")
        return value


class Use(Section):
    """Whether one can learn from the samples."""

    steps: PositiveInt = Field(
        description="optimiser steps of every net, the same on real scans, on samples and on both"
    )


class Bound(Section):
    """What a figure must reach."""

    least: float | None = Field(None, description="the figure must not be below it")
    most: float | None = Field(None, description="the figure must not be above it")

    @model_validator(mode="after")
    def _one_of_both(self) -> "Bound":
        if (self.least is None) == (self.most is None):
            raise ValueError("give one of least and most")
        return self


class Evaluate(Section):
    """What is measured and shown, and what a champion must reach."""

    montages: PositiveInt = Field(description="held-out volumes shown in the report")
    gallery: PositiveInt = Field(description="synthetic scans shown in the report")
    control_steps: PositiveInt | None = Field(
        None,
        description="optimiser steps, at most, of the privacy tests' positive control, a prior "
        "overtrained on 4 scans; null: no control",
    )
    weights: str | None = Field(
        None,
        description="file of a ResNet's weights, MedicalNet style, for one more space of features",
    )
    licence: str | None = Field(
        None, description="of the training scans, as model card and datasheet shall say it"
    )
    gates: dict[str, Bound] = Field(
        {}, description="figure of data/metrics.json to its bound; a champion must reach all"
    )


class Params(Section):
    """All of params.yaml."""

    seed: Seed = Field(description="of the split, the weights, the order of batches")
    ingest: Ingest
    train_vqvae: TrainVQVAE
    encode: Encode
    train_prior: TrainPrior
    sample: Sample
    study: Study | None = Field(description="the study of the prior; null: none")
    use: Use | None = Field(description="nets that learn from the samples; null: none")
    evaluate: Evaluate

    @classmethod
    def load(cls, path: Path, changes: Mapping[str, Mapping[str, Any]] | None = None) -> "Params":
        """Read params.yaml; ParamsError names every fault at once.

        changes: section to values that take the place of the file's
        """
        if not path.is_file():
            raise ParamsError(f"{path} is missing. Write one with `vqmri init --preset phantom`.")
        values = read_values(path)
        for section, fields in (changes or {}).items():
            if fields and isinstance(values, dict) and isinstance(values.get(section), dict):
                values[section] = {**values[section], **fields}
        faults = across_sections(values)
        try:
            params = cls.model_validate(values)
        except ValidationError as error:
            faults += [fault_text(fault, cls) for fault in error.errors()]
        if faults:
            raise _all_of(faults, str(path))
        return params


def sample_settings(values: Mapping[str, Any]) -> Sample:
    """The section `sample` of a params.yaml that is not there; ParamsError names every fault."""
    try:
        return Sample.model_validate(values)
    except ValidationError as error:
        raise _all_of(
            [fault_text(fault, Sample) for fault in error.errors()], "The options"
        ) from None


def _all_of(faults: Sequence[str], where: str) -> ParamsError:
    number = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
    lines = "\n".join(f"  {fault}" for fault in faults)
    return ParamsError(f"{where}: {number}, nothing was written.\n{lines}")
