"""The positive control of membership inference: a prior that knows its training items by heart."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from vqmri.errors import DivergedError
from vqmri.prior import Prior, nats_per_code
from vqmri.training.device import choose_device, mixed_precision
from vqmri.training.loop import MAX_GRADIENT_NORM
from vqmri.training.optim import adamw

_WARMUP = 10
_ENOUGH = 0.05


def overtrain(
    arguments: Mapping[str, Any],
    maps: Sequence[Num[Tensor, "item ..."]],
    rows: Float[Tensor, "item covariate"],
    *,
    steps: int,
    seed: int,
    learning_rate: float = 3e-3,
) -> Prior:
    """A new prior, in evaluation mode, trained on all of a few items at once until it knows them.

    Nothing is hidden from it, neither codes nor covariates, and no weight decays. It ends when the
    bits per code are a twentieth of what they were at first, at the latest after `steps`. An attack
    that does not tell its items from others finds nothing because it is weak.

    arguments: of `Prior`, of which both dropouts are set to 0; maps, rows: as the prior takes them
    Equal arguments give equal weights on the CPU, and the caller's random state is left alone.
    DivergedError when the loss is not a finite number.
    """
    device = choose_device()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Prior(**{**arguments, "dropout": 0.0, "condition_dropout": 0.0}).eval()
    model.fit_gains(maps)
    model.to(device)
    values, rows = [each.to(device) for each in maps], rows.to(device)
    optimiser = adamw(model, weight_decay=0.0)
    enough = 0.0
    for step in range(steps):
        with mixed_precision(device):
            found = model(values, rows)
        loss = nats_per_code(found, model.num_embeddings)
        if not torch.isfinite(loss):
            raise DivergedError(
                f"overtrained prior: the loss is {loss.item()} at step {step}. Set "
                "evaluate.control_steps: null in params.yaml to do without this control."
            )
        enough = enough or _ENOUGH * loss.item()
        if loss.item() <= enough:
            break
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / _WARMUP)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimiser.step()
    return model
