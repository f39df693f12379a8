"""A callback that tells what a process holds of the training."""

import json
from pathlib import Path

import lightning as L
import torch
from torch.distributed.tensor import DTensor


class Witness(L.Callback):
    """A process writes the number of values that it holds to ``held-RANK.json``.

    ``weights``, ``states`` of the optimizers and ``average`` in training, ``whole``: the weights at a validation.

    Args:
        run_dir: Where the file goes.
    """

    def __init__(self, run_dir: str) -> None:
        self.folder, self.held = Path(run_dir), {}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
        states = [
            value for optimizer in trainer.optimizers for state in optimizer.state.values() for value in state.values()
        ]
        average = pl_module.ema.state_dict()["shadow"].values() if pl_module.ema else ()
        self.held |= {"weights": _held(pl_module.parameters()), "states": _held(states), "average": _held(average)}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.held["whole"] = _held(pl_module.parameters())
        (self.folder / f"held-{trainer.global_rank}.json").write_text(json.dumps(self.held))


def _held(tensors: object) -> int:
    local = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors)
    return sum(tensor.numel() for tensor in local if isinstance(tensor, torch.Tensor))
