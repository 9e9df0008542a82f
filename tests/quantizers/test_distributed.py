import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.quantizers.cases import INITIALISATIONS, NAMES
from tests.quantizers.ranks import WORLD, trained
from vqmri.quantizers import Initialisation

REPO = Path(__file__).parents[2]
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def states_of_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two gloo processes ends with, by quantizer and initialisation."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.quantizers.ranks", str(rank), str(folder)],
            cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(WORLD)
    ]  # fmt: skip
    try:
        printed = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert all(process.returncode == 0 for process in processes), "\n".join(printed)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("initialisation", INITIALISATIONS)
def test_two_processes_learn_what_one_does(
    name: str, initialisation: Initialisation, states_of_ranks: list[dict[str, Any]]
) -> None:
    module, restarts = trained(name, initialisation, None)
    assert restarts > 0
    first, second = (states[f"{name} {initialisation}"] for states in states_of_ranks)
    for key, expected in module.state_dict().items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], expected, rtol=1e-5, atol=1e-6)
