"""Every family's forward passes on a GPU that isn't there: fake tensors have a device and no numbers.

Shown: no operation mixes devices, and how often the host waits for the device (`SYNCHRONIZATIONS`) or tensors cross
between the two, in a training batch, a validation batch, a sample and after a resume.

Not shown, since fake tensors can't run it: backward passes and optimizer steps, penalties on gradients among them;
the kernels of cuDNN (recurrent networks take PyTorch's own here); operations on lists of tensors, whose devices are
not checked; NCCL; and what depends on numbers, since each number that the host reads is 0 here, so no text is written.
"""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lit_aigc.build import build, resolve
from lit_aigc.config.compose import load
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, DataSpec, TextBatch
from tests.reliability.runs import MODELS, READS_TEXT

IMAGES = DataSpec("image", (1, 28, 28), num_classes=2, class_names=("a", "b"), name="made_up")
TEXT = DataSpec("text", (12,), vocab_size=32, name="made_up")

# The most that a family may do: times that the host waits for the device, and copies between them.
#                 training     validation   sampling
MOST = {
    "gan":        ((0, 1),     (0, 0),      (0, 1)),
    "vae":        ((0, 1),     (0, 2),      (0, 1)),
    "vqvae":      ((4, 4),     (1, 1),      (0, 1)),
    "vae_gan":    ((0, 2),     (0, 2),      (0, 1)),
    "classifier": ((0, 0),     (0, 1),      None),
    "gpt":        ((0, 0),     (0, 2),      None),
    "lstm":       ((0, 1),     (0, 3),      None),
    "seq2seq":    ((0, 0),     (0, 2),      None),
}  # fmt: skip

_aten = torch.ops.aten
SYNCHRONIZATIONS = (
    _aten._local_scalar_dense, _aten.nonzero, _aten.masked_select, _aten.is_nonzero, _aten._unique2, _aten.unique_dim,
    _aten.equal, _aten.repeat_interleave.Tensor, _aten.bincount,
)  # fmt: skip


class Traffic(TorchDispatchMode):
    """Counts what makes the host wait for the device, and copies between them; what is read is 0.

    Attributes:
        synchronizations: Of the first.
        copies: Of the second.
    """

    def __init__(self) -> None:
        super().__init__()
        self.synchronizations = 0
        self.copies = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_device = any(tensor.device.type == "cuda" for tensor in given)
        if on_device and (function in SYNCHRONIZATIONS or function.overloadpacket in SYNCHRONIZATIONS):
            self.synchronizations += 1
        if function.overloadpacket is _aten._local_scalar_dense:
            return 0.0 if args[0].dtype.is_floating_point else 0
        if function.overloadpacket is _aten.nonzero and on_device:
            return args[0].new_zeros(0, args[0].dim(), dtype=torch.int64)
        if function.overloadpacket is _aten.bincount and on_device:
            return args[0].new_zeros(kwargs["minlength"] if "minlength" in kwargs else args[2])
        result = function(*args, **kwargs)
        if function.overloadpacket in (_aten._to_copy, _aten.copy_):
            devices = {tensor.device.type for tensor in (*given, result)}
            self.copies += len(devices) > 1
        return result


def restored(family: str) -> Any:
    """A module as a checkpoint leaves it: on the CPU, with averages."""
    data = ["data=text_files"] if family in READS_TEXT else []
    words = [word for word in MODELS[family] if not word.lstrip("~").startswith("data")]
    config = load("train", ["experiment=null", *(data or ["data=mnist5k"]), *words])
    spec = TEXT if family in READS_TEXT else IMAGES
    module = build(resolve(config["model"], spec), spec)
    if module.ema:
        module.ema.update()
    module.batches = 1  # not the first, which looks at more
    strategy = types.SimpleNamespace(reduce=lambda tensor, reduce_op: tensor)
    module._trainer = types.SimpleNamespace(strategy=strategy, world_size=1, precision_plugin=None, is_global_zero=True)
    optimizers = module.configure_optimizers()
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["base_lr"] = group["lr"]  # as `training_step` sets it
    module.optimizers = lambda: optimizers
    module.all_gather = lambda tensor: tensor
    # The forward pass of an update alone.
    module.update = lambda optimizer, batch, loss, name="", generates=True: loss(batch)[1]
    return module


def move(module: Any) -> None:
    """To the GPU, with tied weights tied again: a fake tensor can only be a new parameter."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    module.to("cuda:0")
    for first, *others in names.values():
        for parent, _, own in (name.rpartition(".") for name in others):
            setattr(module.get_submodule(parent), own, module.get_parameter(first))


def batch_of(family: str, n: int = 4) -> Any:
    if family not in READS_TEXT:
        return Batch(torch.zeros(n, 1, 28, 28, device="cuda:0"), torch.zeros(n, dtype=torch.int64, device="cuda:0"), 0)
    ids = torch.zeros(n, 13, dtype=torch.int64, device="cuda:0")
    source = torch.zeros(n, 7, dtype=torch.int64, device="cuda:0") if family == "seq2seq" else None
    mask = None if source is None else torch.ones_like(source, dtype=torch.bool)
    return TextBatch(ids, None, 0, carried=family == "lstm", source=source, source_mask=mask)


@pytest.mark.parametrize("family", MODELS)
def test_forward_passes_of_training_validation_and_sampling_after_a_resume(family):
    module = restored(family)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.backends.cudnn.flags(enabled=False):
        move(module)
        shadow = module.ema.state_dict()["shadow"].values() if module.ema else ()
        assert {tensor.device.type for tensor in (*module.parameters(), *module.buffers(), *shadow)} == {"cuda"}
        with Traffic() as training, torch.autocast("cuda", torch.bfloat16):
            module.train_batch(batch_of(family))
        with Traffic() as validation:
            module.on_validation_epoch_start()
            module.eval()
            module.validation_step(batch_of(family), 0)
        seen = [training, validation]
        if MOST[family][2] is not None:
            with Traffic() as sampling:
                module.sample(2, noise=Noise(0))
            seen.append(sampling)
    found = [(traffic.synchronizations, traffic.copies) for traffic in seen]
    for step, number, most in zip(("training", "validation", "sampling"), found, MOST[family], strict=False):
        assert number[0] <= most[0], f"{step}: the host waits {number[0]} times"
        assert number[1] <= most[1], f"{step}: {number[1]} copies between host and device"
