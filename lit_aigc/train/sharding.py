"""FSDP: each process keeps a part of a transformer's weights, gradients and optimizer states, and gathers the rest."""

from __future__ import annotations

import contextlib
import copy
import datetime
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

from lit_aigc.errors import InputError
from lit_aigc.modules.base import GenerativeModule
from lit_aigc.modules.language_model import LanguageModel
from lit_aigc.networks.encoder_decoder import CrossAttention
from lit_aigc.networks.transformer import Block
from lit_aigc.runs.launch import check_strategy

_UNFIT = {"Adafactor", "LBFGS", "Rprop", "SparseAdam"}  # they compare elements, or torch has not split them yet


class Sharded(DDPStrategy):
    """FSDP (Zhao et al., 2023) by torch's ``fully_shard``, for language models that are transformers.

    A block's weights are gathered when it computes, the others when the network does. Validation and sampling, which
    one process may do alone, have the whole network, and so does everyone after training. Checkpoints are whole too:
    training resumes from them under any strategy, on any number of processes.

    Args:
        gradients: ``fp32``, or ``bf16``: half the bytes, and gradients rounded to 8 bits on the way.
        minutes: How long a process waits for the others before it gives up.

    Raises:
        InputError: If an option is out of range.
    """

    def __init__(self, gradients: str = "fp32", minutes: float = 10.0) -> None:
        check_strategy(gradients, minutes=minutes)
        super().__init__(timeout=datetime.timedelta(minutes=minutes))
        self._policy = MixedPrecisionPolicy(reduce_dtype=torch.bfloat16 if gradients == "bf16" else None)
        self._skeleton = nn.Module()  # the network without memory for its weights
        self._put_away: tuple[nn.Module, Any] | None = None  # the shards, and those of the average, while all is whole

    def check_model(self, module: GenerativeModule) -> None:
        """Raise `InputError` if a model can't be trained in parts; to be called before the fit."""
        if not isinstance(module, LanguageModel) or not _parts(module.network):
            raise InputError("trainer=fsdp splits transformers (model=gpt, model=seq2seq): take trainer=cluster.")
        for optimizer in module.configure_optimizers():
            name = type(optimizer).__name__
            if name in _UNFIT:
                raise InputError(f"trainer=fsdp can't split optimizer {name}: take AdamW, or trainer=cluster.")
            if optimizer.defaults.get("fused") and name not in ("Adam", "AdamW"):
                raise InputError(f"trainer=fsdp can't split a fused {name}: set model.optimizer.fused=false.")
        if getattr(self.precision_plugin, "scaler", None):
            raise InputError("trainer=fsdp can't scale gradients of half precision: use trainer.precision=bf16-mixed.")

    # -- weights in parts, and whole

    def configure_ddp(self) -> None:
        """Split the network and its average; Lightning calls it before it makes the optimizers."""
        module = self.lightning_module
        self._skeleton = with_parameters(module.network, lambda _, weight: weight.to("meta"))
        average = module.ema.state_dict() if module.ema else None
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for part in (*_parts(module.network), module.network):
            fully_shard(part, mesh=mesh, mp_policy=self._policy)
        if average:
            live = dict(module.network.named_parameters())
            shadow = {name: _split_like(live.get(name), tensor) for name, tensor in average["shadow"].items()}
            module.ema.load_state_dict({**average, "shadow": shadow})

    def _gather(self) -> None:
        module = self.lightning_module
        shards, average = module.network, module.ema.state_dict() if module.ema else None
        live = dict(shards.named_parameters())
        module.network = with_parameters(self._skeleton, lambda name, _: live[name].detach().full_tensor())
        module.network.train(shards.training)
        if average:
            module.ema.network = module.network
            module.ema.load_state_dict(_whole(average))
        self._put_away = shards, average

    def on_validation_start(self) -> None:
        """Make the network whole for validation."""
        self._gather()

    def on_validation_end(self) -> None:
        """Split the network again after the callbacks of validation."""
        module = self.lightning_module
        (module.network, average), self._put_away = self._put_away, None
        if average:
            module.ema.network = module.network
            module.ema.load_state_dict(average)

    def on_train_end(self) -> None:
        """Leave an ordinary network after training."""
        self._gather()
        self._put_away = None

    def teardown(self) -> None:
        """Tear down as other strategies do, but move nothing to the CPU."""
        self.optimizers = []
        for part in (self.cluster_environment, self.precision_plugin, self.accelerator, self.checkpoint_io):
            part.teardown()

    # -- gradients and optimizers

    def setup_optimizers(self, trainer: L.Trainer) -> None:
        """Give whole gradients to Muon, which multiplies them as matrices: the same bits, and fewer messages."""
        super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            if isinstance(optimizer, torch.optim.Muon):
                optimizer.register_step_pre_hook(_gather_matrices)
                optimizer.register_step_post_hook(_split_matrices)

    @contextlib.contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Keep whole gradients in each process in a block."""
        self.lightning_module.network.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.lightning_module.network.set_requires_gradient_sync(True)

    # -- checkpoints

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Gather tensor by tensor on the first process, which writes."""
        super().save_checkpoint(_whole(checkpoint, self.is_global_zero), filepath, storage_options)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's part of the states; `configure_ddp` has taken that of weights and averages."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            parts = {
                index: {name: _split_like(weights[index], value) for name, value in values.items()}
                for index, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": parts})


def _parts(network: nn.Module) -> list[nn.Module]:
    """Return the parts that are gathered by themselves, inner ones first: blocks, and cross-attention in a decoder."""
    apart = [part.answer for part in network.modules() if isinstance(part, CrossAttention)]
    return apart + [part for part in network.modules() if isinstance(part, Block)]


def with_parameters(network: nn.Module, choose: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """Return a copy of a network with other values, tied where the originals are; buffers are shared."""
    known: dict[int, Any] = {id(buffer): buffer for buffer in network.buffers()}
    known |= {id(own): nn.Parameter(choose(name, own.detach())) for name, own in network.named_parameters()}
    return copy.deepcopy(network, known)


def _gather_matrices(muon: torch.optim.Muon, *_: Any) -> None:
    for weight in (weight for group in muon.param_groups for weight in group["params"] if weight.grad is not None):
        weight.grad = weight.grad.redistribute(placements=[Replicate()])
        if momentum := muon.state[weight]:
            momentum["momentum_buffer"] = momentum["momentum_buffer"].redistribute(placements=[Replicate()])


def _split_matrices(muon: torch.optim.Muon, *_: Any) -> None:
    for weight, momentum in muon.state.items():
        weight.grad = None
        momentum["momentum_buffer"] = momentum["momentum_buffer"].redistribute(placements=weight.placements)


def _split_like(weight: Tensor | None, value: Any) -> Any:
    """Return this process's part of a whole tensor, as of a weight; all of a tensor that isn't like the weight."""
    if not isinstance(weight, DTensor) or not isinstance(value, Tensor) or value.shape != weight.shape:
        return value
    return distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)


def _whole(values: Any, keep: bool | None = None) -> Any:
    """Return the same with whole tensors, on the CPU; gathered ones are None unless this process keeps them."""

    def gather(part: DTensor) -> Tensor | None:
        tensor = part.full_tensor()
        return tensor if keep is None else tensor.cpu() if keep else None

    return apply_to_collection(values, DTensor, gather)
