"""What the clock makes of several processes; the rest of it is tested by whole runs in test_training.py."""

from types import SimpleNamespace

import pytest
import torch

from lit_aigc.callbacks.clock import Budget, Clock, PauseAfter
from lit_aigc.errors import InputError


def process(world_size, others):
    """A trainer whose other processes have done so many batches."""

    def reduce(bounds, reduce_op):
        assert reduce_op == "max"
        return torch.stack([bounds, *(torch.tensor([n, -n], dtype=bounds.dtype) for n in others)]).amax(dim=0)

    strategy = SimpleNamespace(reduce=reduce, root_device=torch.device("cpu"))
    return SimpleNamespace(world_size=world_size, strategy=strategy)


def start(trainer, batches):
    module = SimpleNamespace(batches=batches, train_seconds=0.0, samples_seen=8 * batches, progress=0.0)
    clock = Clock(Budget(batches=10), PauseAfter())
    try:
        clock.on_train_start(trainer, module)
    finally:
        clock.signals.uninstall()
    return module.progress


@pytest.mark.parametrize("others", [[], [4], [4, 4, 4]])
def test_processes_that_stand_at_the_same_batch_start(others):
    assert start(process(1 + len(others), others), 4) == 0.4


@pytest.mark.parametrize(("own", "others"), [(4, [0]), (0, [4]), (4, [4, 3])])
def test_processes_that_read_different_checkpoints_are_refused(own, others):
    """Say a node that doesn't see the run folder: its weights are broadcast, its optimizers and data order are not."""
    low, high = min(own, *others), max(own, *others)
    with pytest.raises(InputError, match=f"batch {low} and another from batch {high}.*disk that they share"):
        start(process(1 + len(others), others), own)
