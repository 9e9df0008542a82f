"""What all sections of params.yaml have in common."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _no_switch(value: Any) -> Any:
    """What YAML makes of yes, no, on and off without quotes would become 1 and 0."""
    if any(isinstance(part, bool) for part in (value if isinstance(value, list) else [value])):
        raise ValueError("YAML reads yes, no, on and off as true and false; write 'yes' in quotes")
    return value


def _names_files(glob: str) -> str:
    """What pathlib would only refuse once it looks for files."""
    parts = Path(glob).parts
    if not parts or any("**" in part and part != "**" for part in parts):
        raise ValueError("it must name files, and '**' stand alone between slashes: **/*.nii.gz")
    return glob


Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Value = Annotated[str | int | float, BeforeValidator(_no_switch)]
Values = Annotated[
    str | int | float | Annotated[list[str | int | float], Field(min_length=1)],
    BeforeValidator(_no_switch),
]
Glob = Annotated[str, Field(pattern="^[^/]"), AfterValidator(_names_files)]
BidsSuffix = Annotated[str, Field(pattern="^[A-Za-z0-9]+$", max_length=64)]  # of a file's name
Percentile = Annotated[float, Field(ge=0, le=100)]
Relative = Annotated[str, Field(pattern="^[^/]")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
