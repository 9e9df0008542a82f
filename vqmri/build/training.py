"""What both trainings take from params.yaml."""

from typing import Any

from vqmri.params import Optimisation
from vqmri.training.batches import epoch_steps
from vqmri.training.loop import Plan
from vqmri.training.optim import warmup_cosine

_AT_A_TIME = {"micro_batch", "activation_checkpointing"}


def deciding(params: Optimisation) -> dict[str, Any]:
    """What decides what is trained: all but how much of it is in memory at a time.

    So a training that ran out of memory goes on from its checkpoint with these lowered. They change
    the result by rounding, by a codebook's first vectors, and by what dropout hides (see
    docs/training.md).
    """
    return params.model_dump(mode="json", exclude=_AT_A_TIME)


def training_plan(params: Optimisation, *, seed: int, count: int) -> Plan:
    """The plan of a training on `count` items."""
    return Plan(
        steps=params.steps,
        steps_per_epoch=epoch_steps(count, params.batch_size),
        batch_size=params.batch_size,
        rate=warmup_cosine(params.learning_rate, params.warmup, params.steps),
        seed=seed,
        micro_batch=params.micro_batch,
        average_decay=params.average_decay,
    )
