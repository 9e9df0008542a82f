"""What both trainings take from params.yaml."""

from vqmri.params import Optimisation
from vqmri.training.batches import epoch_steps
from vqmri.training.loop import Plan
from vqmri.training.optim import warmup_cosine


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
