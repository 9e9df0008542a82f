import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.stages.train_prior import train_prior
from vqmri.stages.train_vqvae import train_vqvae
from vqmri.training import loop


class Watched(TorchDispatchMode):
    """Writes down the operations of torch that compute something."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not func.is_view:
            self.seen.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("stage", "needed"), [(train_vqvae, ["volumes"]), (train_prior, ["volumes", "vqvae", "codes"])]
)
def test_what_is_read_ahead_computes_nothing_with_torch(
    stage: Callable[..., Any],
    needed: Sequence[str],
    finished: Layout,
    tiny: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second team of threads beside the first makes a step take half as long again."""
    data, watched, parts = Layout(tmp_path), Watched(), 0
    for name in needed:
        shutil.copytree(finished.output(name), data.output(name))

    def ahead(
        make: Callable[[int, range], Any], keys: Sequence[tuple[int, range]]
    ) -> Iterator[Any]:
        nonlocal parts
        for key in keys:
            with watched:
                part = make(*key)
            parts += 1
            yield part

    monkeypatch.setattr(loop, "ahead", ahead)
    stage(tiny, data)
    assert parts
    assert not watched.seen
