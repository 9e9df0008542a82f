"""Names of the folders below data/, here and nowhere else."""

from dataclasses import dataclass
from pathlib import Path

from vqmri.errors import InputError
from vqmri.outputs.manifest import MANIFEST

MADE_BY = {
    "volumes": "ingest",
    "vqvae": "train_vqvae",
    "codes": "encode",
    "prior": "train_prior",
    "samples": "sample",
    "study": "study",
    "use": "use",
    "report": "evaluate",
}
"""Which stage makes which folder."""

OUTPUT_OF = {stage: output for output, stage in MADE_BY.items()}


@dataclass(frozen=True)
class Layout:
    """A project: the folder that holds params.yaml, and what the stages make below data/."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def work(self) -> Path:
        """Unpublished work of running or killed stages."""
        return self.data / ".work"

    @property
    def metrics(self) -> Path:
        """The run's figures; outside every published folder, because DVC wants it so."""
        return self.data / "metrics.json"

    @property
    def plots(self) -> Path:
        """Histories of the trainings as CSV, for `dvc plots show`."""
        return self.data / "plots"

    def output(self, name: str) -> Path:
        """Where a stage publishes; ValueError for a `name` that is not in MADE_BY."""
        if name not in MADE_BY:
            raise ValueError(f"no output is called {name!r}")
        return self.data / name

    def is_own(self, place: Path, raw: str) -> bool:
        """Whether a place lies in a folder that stages write or read; `raw` as in params.yaml."""
        own = [*map(self.output, MADE_BY), self.work, self.data / "raw", self.root / raw]
        return any(place.resolve().is_relative_to(folder.resolve()) for folder in own)

    def need(self, name: str) -> Path:
        """A published output; InputError says which command makes it."""
        folder = self.output(name)
        if not (folder / MANIFEST).is_file():
            raise InputError(
                f"{folder} is missing. Make it with `vqmri {MADE_BY[name]}`, "
                "or run all stages with `dvc repro`."
            )
        return folder
