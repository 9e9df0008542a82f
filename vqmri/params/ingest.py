"""The section `ingest`: sources of scans and pictures."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from vqmri.params.section import BidsSuffix, Glob, Percentile, Relative, Section

Labels = Annotated[list[Annotated[str, Field(pattern="^[A-Za-z0-9+]+$")]], Field(min_length=1)]


class PhantomSource(Section):
    """Procedural heads, made on the spot; `raw` is not read."""

    kind: Literal["phantom"]
    count: int = Field(ge=2, description="number of phantoms, each a subject of its own")
    spacing: PositiveFloat = Field(description="voxel size of the phantoms' own grid in mm")


class AutoSource(Section):
    """A BIDS data set, images with an affine or DICOM series: whichever `raw` holds."""

    kind: Literal["auto"]


class NiftiSource(Section):
    """NIfTI files (.nii, or .hdr with .img) and FreeSurfer's (.mgh, .mgz) below `raw`."""

    kind: Literal["nifti"]
    images: Glob = Field(description="glob of the scans, relative to `raw`")
    modalities: dict[BidsSuffix, Glob] = Field(
        {}, description="further channels: BIDS suffix, as T2w, to the glob of its files"
    )
    labels: Glob | None = Field(
        None, description="glob of label maps, named as the scans but for a last _suffix"
    )
    masks: Glob | None = Field(None, description="glob of brain masks, named in the same way")
    label_values: list[Annotated[int, Field(ge=-(2**31), lt=2**31)]] | None = Field(
        None, description="values of the label maps, 0 first, if they are to be the last channel"
    )
    table: str | None = Field(None, description="TSV or CSV of subjects, relative to `raw`")
    file_column: str = Field(
        "file",
        description="the table's column with the scan's file name, with or without ending and "
        "last _suffix",
    )
    subject_column: str = Field("subject", description="the table's column with the person")
    covariates: list[str] = Field([], description="columns of the table to keep with each volume")

    @field_validator("covariates")
    @classmethod
    def _covariates_have_a_table(cls, value: list[str], info: Any) -> list[str]:
        if value and "table" in info.data and info.data["table"] is None:
            raise ValueError("they are columns of the table; add `table`")
        return value

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


class DicomSource(Section):
    """DICOM series below `raw`, found by their headers, in any folders and among other files."""

    kind: Literal["dicom"]
    description: str | None = Field(
        None, description="glob of the series descriptions, as *t1*; null: every series"
    )
    covariates: list[Literal["age", "sex"]] = Field(
        [], description="what to keep of a patient; ages over 90 become 90"
    )


class BidsSource(Section):
    """A BIDS data set at `raw`: its subjects, sessions and runs, found by their names."""

    kind: Literal["bids"]
    suffix: BidsSuffix = Field("T1w", description="BIDS suffix of the scans")
    session: Labels | None = Field(
        None, description='labels of the sessions to take, as ["01", "02"]; null: all'
    )
    acquisition: Labels | None = Field(
        None, description="labels of the acquisitions (acq-LABEL) to take; null: all"
    )
    covariates: list[str] = Field(
        [], description="columns of participants.tsv, or of sub-*_sessions.tsv, to keep"
    )


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


def _both_are_named(command: list[str]) -> list[str]:
    for place in ("{scan}", "{out}"):
        if not any(place in word for word in command[1:]):
            raise ValueError(f"{place}, a file in .nii.gz, must stand among its arguments")
    return command


Command = Annotated[list[str], Field(min_length=3), AfterValidator(_both_are_named)]
_OF_VOLUMES = ("deface", "brain_mask", "skull_strip", "bias_correction", "foreground_crop")


class Ingest(Section):
    """Which scans are read, and how they are made alike."""

    raw: str = Field(description="folder of the raw scans, relative to params.yaml; never written")
    source: Annotated[
        AutoSource
        | PhantomSource
        | NiftiSource
        | BidsSource
        | DicomSource
        | IdxSource
        | ImagesSource,
        Field(discriminator="kind"),
    ] = Field(
        AutoSource(kind="auto"), description="what `raw` holds; left out, it is found out and told"
    )
    subject_key: Relative | None = Field(
        None,
        description="file whose content keys the hashes that name subjects and scans in all that "
        "is written, relative to params.yaml; null: they keep their names, patients are numbered",
    )
    deface: Command | None = Field(
        None,
        description="a command to take the face off, as [pydeface, '{scan}', --outfile, '{out}']",
    )
    brain_mask: Command | None = Field(
        None, description="a command that writes a brain mask {out} of the scan {scan}"
    )
    skull_strip: bool = Field(False, description="what is outside the brain mask becomes 0")
    bias_correction: bool = Field(False, description="N4, of some seconds a scan")
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
        description="percentiles of a scan's intensities that become 0 and 1, inside the brain "
        "mask if it has one; pictures have none",
    )
    foreground_crop: bool = Field(
        False, description="the middle of the brain or the head, not of the scan, is the middle"
    )
    stratify: list[str] = Field(
        [], description="covariates of which train and held-out shall have alike; numbers by thirds"
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

    @field_validator("skull_strip")
    @classmethod
    def _there_is_a_mask_to_strip_by(cls, value: bool, info: Any) -> bool:
        masked = info.data.get("brain_mask") or getattr(info.data.get("source"), "masks", None)
        if value and not masked:
            raise ValueError("there is no brain mask; add `brain_mask`, or `masks` to the source")
        return value

    @model_validator(mode="after")
    def _is_possible(self) -> "Ingest":
        if self.brain_mask and getattr(self.source, "masks", None):
            raise ValueError("brain_mask and source.masks both give a mask; remove one")
        asked = [name for name in _OF_VOLUMES if getattr(self, name)]
        if asked and isinstance(self.source, IdxSource | ImagesSource):
            raise ValueError(f"{asked[0]} is for volumes, and the source has pictures; remove it")
        return self

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
