"""The processes that train one model together."""

import os

from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from vqmri.errors import ParamsError
from vqmri.training.device import choose_device


def start_fabric(*, unused: bool = False) -> Fabric:
    """This process as one of those that train together; alone, unless `torchrun` started it.

    `torchrun --nproc-per-node 4 -m vqmri train_vqvae` takes four GPUs of a machine, and with
    `--nnodes` those of several that share the project's folder.

    unused: whether the model has parameters without an effect, as a PixelCNN's last layer has
    """
    world, local = (int(os.environ.get(n, 1)) for n in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    fabric = Fabric(
        accelerator=choose_device().type,
        devices=local,
        num_nodes=world // local,
        strategy=DDPStrategy(find_unused_parameters=unused) if world > 1 else "auto",
    )
    fabric.launch()
    return fabric


def own_slots(fabric: Fabric, name: str, batch_size: int, micro_batch: int | None) -> list[range]:
    """The places in a step's batch that fall to this process, cut into parts of `micro_batch`.

    None: one part; name: of the section of params.yaml. ParamsError when they cannot be shared out
    evenly: the mean over parts would not be the mean over the batch.
    """
    share, rest = divmod(batch_size, fabric.world_size)
    if rest:
        raise ParamsError(
            f"{name}.batch_size = {batch_size}: it must be a multiple of the {fabric.world_size} "
            "processes that train. Change it, or start another number of them."
        )
    size = min(micro_batch or share, share)
    if share % size:
        raise ParamsError(
            f"{name}.micro_batch = {size}: it must divide the {share} items of a batch that fall "
            "to each process. Change it in params.yaml."
        )
    first = fabric.global_rank * share
    return [range(start, start + size) for start in range(first, first + share, size)]
