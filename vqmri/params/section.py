"""What all sections of params.yaml have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Value = str | int | float
Glob = Annotated[str, Field(pattern="^[^/]")]
BidsSuffix = Annotated[str, Field(pattern="^[A-Za-z0-9]+$", max_length=64)]  # of a file's name
Percentile = Annotated[float, Field(ge=0, le=100)]
Relative = Annotated[str, Field(pattern="^[^/]")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
