from pathlib import Path

import pytest

from tests.conftest import tiny_values
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.stages.ingest import ingest


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny phantoms, ingested: all that a benchmark reads."""
    data = Layout(tmp_path_factory.mktemp("benchmarks"))
    ingest(Params.model_validate(tiny_values()), data)
    return data.output("volumes")
