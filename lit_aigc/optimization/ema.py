"""An exponential moving average of a network's weights, for use inside and outside of a Trainer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """Averaged weights of a network, counted in that network's own updates.

    The average moves by ``1 - min(decay, (1 + t) / (10 + t))`` at its t-th move, so that it quickly forgets the random
    weights that it starts from. Floating-point buffers (BatchNorm statistics) are averaged like weights; other
    buffers are copied.

    Args:
        network: The network to average; its tensors are read, and changed only inside `applied`.
        decay: Share of the old average that each move keeps, in [0, 1).
        start: Number of updates of the network before the average starts; until then it is the live weights.
        every: Number of updates between two moves.

    Attributes:
        updates: Updates of the network seen so far.
        moves: Moves of the average so far.
    """

    def __init__(self, network: nn.Module, decay: float = 0.999, start: int = 0, every: int = 1) -> None:
        self.network = network
        self.decay = decay
        self.start = start
        self.every = every
        self.updates = 0
        self.moves = 0
        self._shadow: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Count one update of the network, and move the average if it is due."""
        self.updates += 1
        past_start = self.updates - self.start
        if past_start <= 0 or past_start % self.every:
            return
        live = self._live()
        if not self._shadow:
            self._shadow = {name: tensor.detach().clone() for name, tensor in live.items()}
            return
        self.moves += 1
        weight = 1.0 - min(self.decay, (1 + self.moves) / (10 + self.moves))
        averaged = [name for name, tensor in live.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self._shadow[name] for name in averaged], [live[name] for name in averaged], weight)
        for name, tensor in live.items():
            if not tensor.is_floating_point():
                self._shadow[name].copy_(tensor)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the network has the averaged weights, and afterwards its own again. Before the start: its own.

        Changing tensors in place inside changes the average: evaluate there, don't train.
        """
        if not self._shadow:
            yield
            return
        live = self._live()
        # The tensors are exchanged, not copied: entering costs nothing, however often a validation does it.
        kept = {name: tensor.data for name, tensor in live.items()}
        _point(live, self._shadow)
        for layer in self.network.modules():
            if isinstance(layer, nn.RNNBase):
                layer.flatten_parameters()  # otherwise cuDNN copies the weights into one piece at each call
        try:
            yield
        finally:
            _point(live, kept)

    def convert(self, function: Callable[[Tensor], Tensor]) -> None:
        """Move or cast the averaged tensors, as `torch.nn.Module._apply` does with the network's."""
        self._shadow = {name: function(tensor) for name, tensor in self._shadow.items()}

    def buffers(self) -> list[Tensor]:
        """Return the averaged tensors that no gradient moves, such as BatchNorm statistics."""
        names = {name.replace("_orig_mod.", "") for name, _ in self.network.named_buffers()}
        return [tensor for name, tensor in self._shadow.items() if name in names]

    def state_dict(self) -> dict[str, Any]:
        """Return counters and averaged tensors, fit for a ``weights_only`` checkpoint."""
        return {"updates": self.updates, "moves": self.moves, "shadow": dict(self._shadow)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; tensors are moved to the network's device."""
        live = self._live()
        self.updates, self.moves = state["updates"], state["moves"]
        # Keep the strides of the live tensors: a fused average over mixed layouts is an order of magnitude slower.
        self._shadow = {name: torch.empty_like(live[name]).copy_(tensor) for name, tensor in state["shadow"].items()}

    def _live(self) -> dict[str, Tensor]:
        return {
            name.replace("_orig_mod.", ""): tensor
            for name, tensor in (*self.network.named_parameters(), *self.network.named_buffers())
        }


def _point(tensors: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        tensors[name].data = value
