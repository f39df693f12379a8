from __future__ import annotations

import pytest
import torch

from lit_aigc.optimization.muon import Muon
from lit_aigc.optimization.optimizers import optimizer


def stepped(kind: type[torch.optim.Muon], shape: tuple[int, int], autocast: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight and its momentum after three steps."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape, generator=draw))
    made = kind([weight], lr=0.02, weight_decay=0.1)
    for _ in range(3):
        weight.grad = torch.randn(shape, generator=draw)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            made.step()
    return weight.detach(), made.state[weight]["momentum_buffer"]


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_it_is_the_library_s_in_the_precision_of_the_run(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit in bfloat16; in float32 as the library's would be if it did not round."""
    assert all(map(torch.equal, stepped(Muon, shape, True), stepped(torch.optim.Muon, shape, True)))
    rounded, _ = stepped(torch.optim.Muon, shape, False)
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    exact, momentum = stepped(torch.optim.Muon, shape, False)
    ours, own_momentum = stepped(Muon, shape, False)
    torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-6)
    assert torch.equal(own_momentum, momentum)
    assert (rounded - exact).abs().max() > 1e-4
    assert type(optimizer({"name": "Muon"}, [torch.nn.Parameter(ours)])) is Muon
