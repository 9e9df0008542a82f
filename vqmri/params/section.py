"""What all sections of params.yaml have in common."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _names_files(glob: str) -> str:
    """What pathlib would only refuse once it looks for files."""
    parts = Path(glob).parts
    if not parts or any("**" in part and part != "**" for part in parts):
        raise ValueError("it must name files, and '**' stand alone between slashes: **/*.nii.gz")
    return glob


Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Value = str | int | float
Glob = Annotated[str, Field(pattern="^[^/]"), AfterValidator(_names_files)]
BidsSuffix = Annotated[str, Field(pattern="^[A-Za-z0-9]+$", max_length=64)]  # of a file's name
Percentile = Annotated[float, Field(ge=0, le=100)]
Relative = Annotated[str, Field(pattern="^[^/]")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
